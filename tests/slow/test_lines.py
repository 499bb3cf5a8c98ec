"""Random command lines: each ends with a known exit code and without a traceback, and harms nothing.

They run in a jail: a temporary folder is the working folder, the home and the place of all else, and a hook notices
what is opened for writing outside of it. Inside, --force does what it says.
"""

import os
import pickle
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.support.budgets import SEED, trials
from tests.support.lines import verbs, viewser_command
from tests.support.stores import NOTHING, copied, leftovers
from views_runs import Storage
from views_runs.cli import main

#: Findings that are not mended yet, each a regular expression for what is said about it.
KNOWN: tuple[str, ...] = ()

#: Verbs that change nothing; and verbs that exit with 1 for what they print, without an error.
READING = {"list", "inspect", "diff", "guide", "check", "verify", "doctor"}
TELLING = {"check", "verify", "doctor", "backup"}

#: How many command lines one jail sees, and every which is run as a process.
LINES, ANEW = 40, 200

#: Seconds after which a command line never ends.
PATIENCE = 100

NUMBERS = "0 1 -1 2 480 1e999 -1e999 nan NaN Infinity 1_000 0x10 1. ١٢ １２ 1e-400 100MB 1e9kB 2.5".split()
NUMBERS += ["9" * 400, "9" * 5000, "1 GB", *(str(2**63 + one) for one in (-1, 0, 1)), str(-(2**63) - 1), str(2**64)]
TIMES = "2026-01-01 2026-13-45 2019-12 9999-12 10000-01 0000-01-01 2026-01-01T08:00Z 2026-01-01T08:00+99:00".split()
TEXTS = ["", " ", "\n", "a\tb", "é", "e\u0301", "\u202e", "😀", "\udc80", "\udce9", "\x1b[31m", "\x7f", "\x9b"]
TEXTS += "' \" '' \"a\" \\ %s {0} $HOME * ? [a [!a] a,b - -- --- -x = a=b true null None İß \ufeff \u2028".split(" ")
TEXTS += [*TIMES, "x" * 300, "x" * 70_000, "é" * 200]
NAMES = ["m:" + "9" * 31, *"m n large m:1 m:2 m:3 m:999 m:-1 m: :1 m:1:1 M nothing mé".split()]
FIELDS = "author train_start train_end steps note note.a note.a.b size stored_at stored_by version current type".split()
FIELDS += "name sha256 metadata.size run_id training_date x a. .a . not in f(x)".split()
OPERATORS = "= != < <= > >= ~ == =~ <> is !".split() + ["", " has ", " in (", " not in "]

#: What conditions are joined with, and what else may stand in one.
JOINTS = [" and ", " or ", " and not (", ") or (", " AND ", "and", ", ", ")", "(", " not ", '"', "'"]
FILES = "m.pickle link.pickle cut.pickle text.txt folder folder/new missing/new new.db new.pickle - . .. ./m n".split()
FILES += "models.db models.db-journal link.db ä.pickle /dev/null text.txt/new".split()
STORES = "models.db link.db new.db folder text.txt missing/x.db empty.db".split()

#: What deep nesting begins and ends with, and ranges of characters.
BRACKETS = [("[", "]"), ('{"a":', "}"), ("(", ")"), ("a.", ""), ("!", ""), ("-", ""), ('[{"":', "}]")]
LETTERS = [(32, 126), (0x80, 0x24F), (1, 0x1F), (0x370, 0x5FF), (0x2000, 0x20FF), (0xDC80, 0xDCFF), (0x10000, 0x10FFFF)]

#: What must not stand on a line: with it, two computers are tested, which takes a minute.
PEER = re.compile("--p")


def nested(choose: random.Random) -> str:
    """Return a value that is nested deeply."""
    start, end = choose.choice(BRACKETS)
    depth = choose.choice([2, 30, 500, 1001, 5000, 20_000])
    return start * depth + choose.choice(["", "1"]) + end * choose.choice([0, depth])


def letters(choose: random.Random) -> str:
    """Return random characters that an argument can have, but none that leads out of a folder."""
    ranges = choose.choices(LETTERS, [8, 2, 1, 1, 1, 1, 1], k=choose.randint(1, 8))
    found = "".join(chr(choose.randint(*one)) for one in ranges)
    return re.sub(r"[/~]", "_", found)


def condition(choose: random.Random) -> str:
    """Return a condition, an assignment or something like it."""
    space = choose.choice(["", " ", "  "])
    single = f"{choose.choice(FIELDS)}{space}{choose.choice(OPERATORS)}{space}{scalar(choose)}"
    return single if choose.random() < 0.6 else f"{single}{choose.choice(JOINTS)}{condition(choose)}"


def scalar(choose: random.Random) -> str:
    """Return a text, a number, or random characters."""
    kinds: list[Callable[[random.Random], str]] = [
        lambda choose: choose.choice(NUMBERS),
        lambda choose: choose.choice(TEXTS),
        lambda choose: choose.choice(NAMES),
        letters,
        nested,
    ]
    return choose.choices(kinds, [3, 3, 2, 2, 1])[0](choose)


def anything(choose: random.Random) -> str:
    """Return any argument."""
    kinds: list[Callable[[random.Random], str]] = [
        scalar,
        condition,
        lambda choose: f"{choose.choice(FIELDS)}={scalar(choose)}",
        lambda choose: choose.choice(FILES),
        lambda choose: choose.choice(NAMES),
        lambda choose: choose.choice(FIELDS),
    ]
    return choose.choice(kinds)(choose)


#: What suits a parameter, by its name; for others anything does.
SUITABLE: dict[str, Callable[[random.Random], str]] = {
    "name": lambda choose: choose.choice(NAMES),
    "names": lambda choose: choose.choice(NAMES),
    "other": lambda choose: choose.choice(NAMES),
    "file": lambda choose: choose.choice(FILES),
    "fields": lambda choose: choose.choice(FIELDS),
    "unset": lambda choose: choose.choice(FIELDS),
    "sort": lambda choose: choose.choice(["", "-"]) + choose.choice(FIELDS),
    "where": condition,
    "settings": lambda choose: f"{choose.choice(FIELDS)}={scalar(choose)}",
    "store": lambda choose: choose.choice(STORES),
    "topic": lambda choose: choose.choice(["index", "conditions", "commands", "..", "x"]),
}


def command_line(commands: dict[str, click.Command], choose: random.Random) -> list[str]:
    """Return a random command line: one that makes sense, which is then changed a little, or a lot."""
    verb = choose.choice([*commands])
    oddity = choose.choice([0, 0.05, 0.3])

    def value(parameter: click.Parameter) -> str:
        return (anything if choose.random() < oddity else SUITABLE.get(str(parameter.name), anything))(choose)

    pieces: list[list[str]] = []
    for parameter in commands[verb].params:
        if isinstance(parameter, click.Argument):
            least, most = int(parameter.required), 3 if parameter.nargs == -1 else 1
            pieces += [[value(parameter)] for _ in range(choose.randint(least, most))]
        elif isinstance(parameter, click.Option) and choose.random() < (0.6 if parameter.name == "yes" else 0.12):
            option = choose.choice(parameter.opts)
            if parameter.is_flag:
                pieces.append([option])
            else:
                one = value(parameter)
                pieces.append(choose.choice([[option, one], [f"{option}={one}"]]))
    while choose.random() < oddity:
        position = choose.randint(0, len(pieces))
        pieces[position : position + choose.randint(0, 1)] = choose.choice([[[anything(choose)]], [], pieces[:2]])
    if choose.random() < oddity:
        choose.shuffle(pieces)
    line = ["model", verb, *(one for piece in pieces for one in piece)]
    if choose.random() < 0.03:
        line[choose.randrange(2)] = anything(choose)
    line = [one.replace("\0", "") for one in line]
    return command_line(commands, choose) if is_out_of_bounds(line) else line


def is_out_of_bounds(line: list[str]) -> bool:
    """Whether a line takes a minute, or may replace the store by the pickle of another store as it is told to."""
    names_another = any(one.startswith("--store") for one in line) and any(one.endswith("models.db") for one in line)
    return names_another or any(PEER.match(one) for one in line)


class Jail:
    """A folder in which command lines are run.

    Args:
        folder: of the jail.
        base: a store to copy.
    """

    def __init__(self, folder: Path, base: Storage) -> None:
        self.folder, self.work = folder, folder / "inside" / "work"
        for path in (folder / "home", self.work / "folder"):
            path.mkdir(parents=True)
        self.store = copied(base, self.work / "models.db")
        (self.work / "link.db").symlink_to("models.db")
        (self.work / "link.pickle").symlink_to("m.pickle")
        (self.work / "empty.db").touch()
        (self.work / "m.pickle").write_bytes(pickle.dumps([1]))
        (self.work / "cut.pickle").write_bytes(pickle.dumps([1] * 9)[:-3])
        (self.work / "text.txt").write_bytes(b"x")
        shutil.copy(self.work / "m.pickle", self.work / "ä.pickle")

    def variables(self, choose: random.Random) -> dict[str, str]:
        """Return the environment of a command."""
        home = str(self.folder / "home")
        own = {f"XDG_{kind}_HOME": f"{home}/{kind}" for kind in ("DATA", "CONFIG", "CACHE", "STATE")}
        named = {} if choose.random() < 0.1 else {"VIEWS_RUNS_STORE": str(self.store.path)}
        return {"HOME": home, "TMPDIR": home, **own, **named}

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Return all files, with what changes when they are written."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found

    def troubles(self) -> list[str]:
        """Return what is wrong with the store."""
        with closing(sqlite3.connect(self.store.path)) as sql:
            found = [str(row) for row in sql.execute("PRAGMA integrity_check") if row != ("ok",)]
        found += [str(damage) for damage in self.store.verify().damaged]
        return found + ([f"left over: {leftovers(self.store)}"] if leftovers(self.store) != NOTHING else [])


#: What was done outside of the jail; None while nobody looks.
_outside: list[str] | None = None
_jail = ""

#: Events whose first arguments are paths that are changed.
CHANGES = {f"os.{one}" for one in "mkdir rename remove rmdir link symlink chmod chown truncate utime setxattr".split()}


def notice(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what is written outside of the jail; an audit hook, which cannot be removed again."""
    if _outside is None:
        return
    paths: tuple[Any, ...] = ()
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        paths = arguments[:1]
    elif event in CHANGES:
        paths = arguments[:2]
    elif event == "sqlite3.connect":
        paths = (str(arguments[0]).removeprefix("file://").partition("?")[0],)
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            whole = os.path.abspath(os.fsdecode(path))
            # Modules are compiled when they are first imported.
            if not whole.startswith(_jail) and whole != os.devnull and "__pycache__" not in whole:
                _outside.append(f"{event} {whole!r}")


@contextmanager
def watched(jail: Jail) -> Iterator[list[str]]:
    """Yield a list of what is written outside of the jail."""
    global _outside, _jail
    _jail, _outside = f"{jail.folder}{os.sep}", []
    try:
        yield _outside
    finally:
        _outside = None


def ring(number: int, frame: FrameType | None) -> None:
    """End a command line that never ends."""
    raise AssertionError("it never ends")


class Done:
    """How a command line ended."""

    def __init__(self, code: int, out: str, err: str, error: BaseException | None = None) -> None:
        self.code, self.out, self.err, self.error = code, out, err, error


def run_here(line: list[str], variables: dict[str, str], answer: str) -> Done:
    """Run a command line in this process."""
    signal.alarm(PATIENCE)
    try:
        result = CliRunner().invoke(main, line, env={"VIEWS_RUNS_STORE": None, **variables}, input=answer)
    finally:
        signal.alarm(0)
    error = None if isinstance(result.exception, SystemExit) else result.exception
    out = result.stdout_bytes.decode("utf-8", "backslashreplace")
    return Done(result.exit_code, out, result.stderr_bytes.decode("utf-8", "backslashreplace"), error)


def run_anew(line: list[str], variables: dict[str, str], answer: str, folder: Path) -> Done | None:
    """Run a command line in a process; None if it cannot be given to one."""
    try:
        command = [os.fsencode(one) for one in viewser_command(*line)]
    except UnicodeEncodeError:
        return None
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    if max(map(len, command)) > 100_000:
        return None
    given = os.fsencode(answer)
    done = subprocess.run(
        command, cwd=folder, env={**kept, **variables}, input=given, capture_output=True, timeout=PATIENCE
    )
    out, err = (one.decode("utf-8", "backslashreplace") for one in (done.stdout, done.stderr))
    return Done(done.returncode, out, err)


def troubles(done: Done, verb: str, has_changed: bool) -> list[str]:
    """Return what is wrong with how a command line ended."""
    found = []
    if done.error is not None:
        last = traceback.extract_tb(done.error.__traceback__)[-1]
        found.append(f"{type(done.error).__name__}: {str(done.error)[:150]} at {last.filename}:{last.lineno}")
    elif "Traceback (most recent call last)" in done.err:
        found.append(f"a traceback: {done.err.splitlines()[-1][:200]}")
    elif done.code not in (0, 1, 2, 130):
        found.append(f"exit code {done.code}")
    errors = sum(line.startswith("Error: ") for line in done.err.splitlines())
    says_no = "Aborted!" in done.err
    # Without a verb, click shows the help.
    expected = {0: {0}, 1: {0, 1} if says_no or verb in TELLING else {1}, 2: {1} if verb else {0, 1}}
    if not found and errors not in expected.get(done.code, {0}):
        found.append(f"exit code {done.code} with {errors} errors")
    if has_changed and (verb in READING or done.code == 2):
        found.append(f"something has changed, exit code {done.code}")
    return found


@pytest.fixture
def base(memory_path: Path) -> Storage:
    """A store with some models."""
    store = Storage(memory_path / "base.db")
    metadata = {"author": "me", "train_start": 121, "train_end": 480, "note": {"a": [1, "b"]}, "steps": [1, 2]}
    store.store("n", [1], metadata)
    store.store("m", [1], metadata)
    store.store("m", [2], {**metadata, "author": "you"}, overwrite=True)
    store.store("large", b"x" * 1_500_000)
    store.store("mé", (1, 2))
    return store


def test_random_command_lines(memory_path: Path, base: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends well, reading changes nothing, the store stays whole, and nothing is written outside of the jail."""
    commands = verbs()
    sys.addaudithook(notice)
    monkeypatch.setattr(sys, "stdin", None)
    before = signal.signal(signal.SIGALRM, ring)
    findings: dict[str, str] = {}
    counts: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    jail = None
    for number, (seed, choose) in enumerate(trials()):
        if jail is None:
            jail = Jail(memory_path / f"jail{number}", base)
            monkeypatch.chdir(jail.work)
            used: list[list[str]] = []
        line = command_line(commands, choose)
        used.append(line)
        verb = line[1] if line[0] == "model" and line[1] in commands else ""
        variables, answer = jail.variables(choose), choose.choice(["", "y\n", "n\n"])
        files = jail.files()
        done = None
        with watched(jail) as outside:
            if number % ANEW == ANEW - 1:
                done = run_anew(line, variables, answer, jail.work)
                counts["as a process"] += done is not None
            done = done or run_here(line, variables, answer)
        wrong = troubles(done, verb, files != jail.files()) + [f"outside: {one}" for one in outside]
        if len(used) == LINES or verb not in READING and choose.random() < 0.05:
            wrong += [f"the store: {one}" for one in jail.troubles()]
        counts[f"exit {done.code}"] += 1
        tried[verb] += 1
        for trouble in wrong:
            detail = f"TESTS_SEED={seed} {shortened(line)}\n{done.out[-300:]!a}\n{done.err[-500:]!a}"
            findings.setdefault(f"{verb}: {re.sub(r'jail[0-9]+', 'jail', trouble)}", detail)
        if len(used) == LINES or wrong:
            shutil.rmtree(jail.folder)
            jail = None
    monkeypatch.undo()
    signal.signal(signal.SIGALRM, before)
    print(f"TESTS_SEED={SEED}: {sum(tried.values())} lines, {dict(sorted(counts.items()))}, {dict(tried)}")
    known = {said for said in findings if any(re.search(one, said) for one in KNOWN)}
    print(f"{len(known)} known findings")
    new = [f"{said}\n    {detail}" for said, detail in findings.items() if said not in known]
    assert not new, "\n".join(new)


def shortened(line: list[str]) -> str:
    """Return a line for people to read."""
    return "[" + ", ".join(f"{one[:40]!a}...{len(one)}" if len(one) > 60 else f"{one!a}" for one in line) + "]"
