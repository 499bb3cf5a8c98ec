"""Texts that would steer a terminal, in every place that a command can show one: none of them reaches it as it is.

Each command runs on a terminal or into files, with a store, files, variables or arguments that somebody else has
prepared.
"""

import fcntl
import importlib
import json
import os
import pickle
import pty
import random
import re
import select
import shutil
import signal
import sqlite3
import struct
import sys
import termios
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.budgets import SEED, trials
from tests.support.lines import verbs, viewser_command
from tests.support.machine import need
from tests.support.planted import plant
from tests.support.stores import copied
from views_runs import Storage
from views_runs.cli import main

#: Findings that are not mended yet, each a regular expression for what is said about it.
KNOWN: tuple[str, ...] = ()

#: What a text is put together from.
ATOMS = [
    "\x1b[5;7m",
    "\x1b[2J",
    "\x1b]8;;http://example.org\x07",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x1b\\",
    "\x1bc",
    "\x9b5;7m",
    "\x9d52;c;ZXZpbA==\x9c",
    "\x85",
    "\x80",
    "\nFORGED",
    "\rFORGED",
    "\n\x1b[1A",
    "\t",
    "\b\b\b",
    "\x00",
    "\x07",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200f",
    "\u2028FORGED",
    "\u2029",
    "\ufeff",
    "[bold red]",
    "[link=http://example.org]",
    "{0}%s",
    "'\"",
    "\\x1b",
    "é",
]

#: The styles that click and rich write, of which none is among the atoms; and what a bar of progress writes.
STYLE = re.compile(r"\x1b\[(?!5;7m)[0-9;]*m")
PROGRESS = re.compile(r"\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r")
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
DIRECTION = re.compile("[\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

#: Seconds after which a command never ends.
PATIENCE = 120.0


#: What commands import late, and forks need not import again.
IMPORTED = ["views_runs.health.doctor", "views_runs.database.backup", "views_runs.database.verification"]
IMPORTED += ["views_runs.rendering.views", "difflib", "importlib.metadata", "platformdirs", "importlib.resources"]
IMPORTED += ["rich.console", "rich.panel", "rich.progress", "rich.table", "rich.measure", "rich.rule", "getpass"]


class Scene:
    """A folder in which a command is run, prepared with a text.

    Args:
        folder: where the store and all else is.
        base: a store to copy.
        text: what would steer a terminal.
    """

    def __init__(self, folder: Path, base: Storage, text: str) -> None:
        self.folder, self.text = folder, text
        folder.mkdir()
        for name in ("home", "work"):
            (folder / name).mkdir()
        self.work = folder / "work"
        self.store = copied(base, folder / "models.db")
        #: Names of models to give to commands, besides those in the base.
        self.names = ["m", "m:1", "n"]
        self.files = ["m.pickle", "out.pickle"]
        self.environment = {"TERM": "xterm-256color"}
        #: Arguments that are put where any argument may be, and whether the store is locked for a while.
        self.arguments: list[str] = []
        self.is_locked = False
        (self.work / "m.pickle").write_bytes(pickle.dumps([1]))

    def sql(self, statement: str, *parameters: Any) -> None:
        """Change the store with other means."""
        with closing(sqlite3.connect(self.store.path, isolation_level=None)) as sql:
            sql.execute("PRAGMA ignore_check_constraints = ON")
            sql.execute("PRAGMA writable_schema = ON")
            sql.execute(statement, parameters)

    def update(self, column: str, value: Any) -> None:
        """Change one column of one version."""
        self.sql(f"UPDATE models SET {column} = ? WHERE id = (SELECT max(id) FROM models WHERE name = 'm')", value)

    def lie(self, **recorded: Any) -> None:
        """Change what was recorded of one version."""
        before = self.store.inspect("m")
        known = {"type": before.type, "python": before.python, "platform": before.platform, "protocol": 4}
        self.update("environment", json.dumps({**known, **recorded}))

    def variables(self) -> dict[str, str]:
        """Return the environment of the command."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
        own = {"HOME": str(self.folder / "home"), "VIEWS_RUNS_STORE": os.fsdecode(self.store.path), "PAGER": "cat"}
        return {**kept, **own, "PYTHONUTF8": "1", **self.environment}


def name_model(scene: Scene) -> None:
    scene.sql("UPDATE models SET name = ? WHERE name = 'n'", scene.text)
    scene.sql("UPDATE names SET name = ? WHERE name = 'n'", scene.text)
    scene.names.append(scene.text.replace("\0", ""))


def set_metadata(scene: Scene) -> None:
    text = scene.text
    fields = {text: text, "nested": {text: [text, {text: None}]}, "author": text, "train_start": text, "steps": [text]}
    scene.update("metadata", json.dumps({**fields, "run_id": {text: 1}, "training_date": text}))


def set_datetimes(scene: Scene) -> None:
    scene.update("metadata", json.dumps({scene.text: "2026-01-01", "training_date": scene.text}))
    scene.update("datetimes", json.dumps([[scene.text], "training_date", scene.text]))


def import_it(scene: Scene) -> None:
    plant(scene.store, "m", pickled_import(scene.text, scene.text))
    scene.update("environment", json.dumps({"type": None, "python": None, "platform": None, "protocol": 4}))


def import_part(scene: Scene) -> None:
    plant(scene.store, "m", pickled_import("os." + scene.text, "name." + scene.text))


def pickled_import(*names: str) -> bytes:
    """Return a pickle that imports something."""
    texts = b"".join(b"X" + struct.pack("<I", len(one.encode())) + one.encode() for one in names)
    return b"\x80\x04" + texts + b"\x93."


def record_imports(scene: Scene) -> None:
    text = scene.text
    packages = {"packages": {text: text, "sklearn": text}, "suppliers": {text: text, "m": "sklearn"}}
    scene.lie(imports=[text, "m." + text, text + ".m"], troubles=[text], **packages)


def own_upload(scene: Scene) -> None:
    owner = {"user": scene.text, "pid": scene.text, "kernel": None, "start": 1, "token": scene.text}
    scene.sql("INSERT INTO uploads (owner, started_at) VALUES (?, '2026-01-01 00:00:00')", json.dumps(owner))


def own_dead_upload(scene: Scene) -> None:
    own_upload(scene)
    scene.sql("UPDATE uploads SET condemned = 1")


def wait_for_upload(scene: Scene) -> None:
    own_upload(scene)
    scene.is_locked = True


def quoted(text: str) -> str:
    """Return a name for SQL."""
    return '"' + text.replace("\0", "").replace('"', '""') + '"'


def trigger(scene: Scene) -> None:
    said = scene.text.replace("\0", "").replace("'", "''")
    table = random.Random(said).choice(["models", "uploads", "names", "required_fields"])
    body = f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
    scene.sql(f"CREATE TRIGGER {quoted(scene.text)} BEFORE INSERT ON {table} {body}")


def raise_in_index(scene: Scene) -> None:
    scene.sql(f"CREATE UNIQUE INDEX {quoted(scene.text)} ON models (version * 0)")


def odd_column(scene: Scene) -> None:
    scene.sql(f"ALTER TABLE required_fields ADD COLUMN {quoted(scene.text)} TEXT")


def odd_view(scene: Scene) -> None:
    scene.sql("DROP TABLE uploads")
    scene.sql(f"CREATE VIEW uploads AS SELECT 1 AS {quoted(scene.text)}")


def malformed_schema(scene: Scene) -> None:
    sql = f"CREATE TABLE {quoted(scene.text)} (x, {scene.text}"
    scene.sql("INSERT INTO sqlite_schema VALUES ('table', ?, ?, 3, ?)", scene.text, scene.text, sql)


def malformed_name(scene: Scene) -> None:
    scene.sql("UPDATE sqlite_schema SET sql = sql || ?, name = name || ? WHERE name = 'names'", scene.text, scene.text)


def move_store(scene: Scene) -> None:
    path = scene.folder / file_name(scene.text)
    scene.store.path.rename(path)
    scene.store = Storage(path)


def move_store_away(scene: Scene) -> None:
    scene.store = Storage(scene.folder / file_name(scene.text) / "models.db")


def damage_store(scene: Scene) -> None:
    move_store(scene)
    scene.store.path.write_bytes(scene.text.encode() * 1000)


def lock_moved_store(scene: Scene) -> None:
    move_store(scene)
    wait_for_upload(scene)


def file_name(text: str) -> str:
    """Return a name for a file."""
    return text.replace("\0", "").replace("/", "_")[:60]


def name_file(scene: Scene) -> None:
    name = file_name(scene.text)
    (scene.work / name).write_bytes(random.Random(name).choice([pickle.dumps([1]), b"no pickle"]))
    scene.files = [name, name + "2", name + "/x"]


def fill_file(scene: Scene) -> None:
    (scene.work / "m.pickle").write_bytes(scene.text.encode())


def link_file(scene: Scene) -> None:
    (scene.work / file_name(scene.text)).write_bytes(pickle.dumps([1]))
    (scene.work / "out.pickle").symlink_to(scene.work / file_name(scene.text))


def leave_files(scene: Scene) -> None:
    for start in (".views_runs.backup-", ".views_runs.", ".views_runs-probe-", "models.db-"):
        (scene.folder / (start + file_name(scene.text))).write_text(scene.text)


def fill_trust_list(scene: Scene) -> None:
    folder = scene.folder / "home" / ".config" / "views_runs"
    folder.mkdir(parents=True)
    (folder / "trusted.txt").write_text(scene.text)
    scene.environment["VIEWS_RUNS_TRUSTED_ONLY"] = "1"


def name_home(scene: Scene) -> None:
    home = scene.folder / file_name(scene.text)
    home.mkdir()
    scene.environment["HOME"] = str(home)


def set_variables(scene: Scene) -> None:
    text = scene.text.replace("\0", "")
    name = random.Random(text).choice(["LOGNAME", "VIEWS_RUNS_STORE", "VIEWS_RUNS_TRUSTED_ONLY", "XDG_CONFIG_HOME"])
    scene.environment[name] = text


def give_arguments(scene: Scene) -> None:
    text = scene.text.replace("\0", "")
    options = "--unset --set --where -w --sort --since --author --train-end --store --limit".split()
    values = [text, f"{text}=1", f"{text} = {text}", f"m.{text}", f"m:{text}", f"[{text}", f'{{"{text}": ', f"'{text}"]
    choose = random.Random(text)
    for _ in range(choose.randint(1, 3)):
        value = choose.choice(values)
        scene.arguments += choose.choice([[value], [choose.choice(options), value], [f"--{text}"], [f"-{text}"]])


def damage_part(scene: Scene) -> None:
    name_model(scene)
    scene.sql("UPDATE models SET pickle = ?, digest = ?, sha256 = ?", scene.text.encode(), b"0" * 32, scene.text)


#: All places of a text.
PLACES: dict[str, Callable[[Scene], object]] = {
    "name": name_model,
    "metadata": set_metadata,
    "metadata that is no JSON": lambda scene: scene.update("metadata", scene.text),
    "metadata that is no object": lambda scene: scene.update("metadata", json.dumps(scene.text)),
    "metadata in bytes": lambda scene: scene.update("metadata", scene.text.encode()),
    "datetimes": set_datetimes,
    "datetimes that are no JSON": lambda scene: scene.update("datetimes", scene.text),
    "stored_by": lambda scene: scene.update("stored_by", scene.text),
    "stored_by in bytes": lambda scene: scene.update("stored_by", scene.text.encode()),
    "stored_at": lambda scene: scene.update("stored_at", scene.text),
    "version": lambda scene: scene.update("version", scene.text),
    "size": lambda scene: scene.update("size", scene.text),
    "sha256": lambda scene: scene.update("sha256", scene.text),
    "sha256 in bytes": lambda scene: scene.update("sha256", scene.text.encode()),
    "upload": lambda scene: scene.update("upload", scene.text),
    "digest": lambda scene: scene.update("digest", scene.text),
    "pickle": lambda scene: scene.update("pickle", scene.text),
    "name in bytes": lambda scene: scene.update("name", scene.text.encode()),
    "type": lambda scene: scene.lie(type=scene.text),
    "python": lambda scene: scene.lie(python=scene.text),
    "platform": lambda scene: scene.lie(platform=scene.text),
    "protocol": lambda scene: scene.lie(protocol=scene.text),
    "another field": lambda scene: scene.lie(**{scene.text: scene.text, "has_code": scene.text}),
    "environment that is no JSON": lambda scene: scene.update("environment", scene.text),
    "environment of the wrong type": lambda scene: scene.lie(imports=scene.text, packages=[scene.text]),
    "recorded imports": record_imports,
    "import": import_it,
    "part of an import": import_part,
    "bytes that are no pickle": lambda scene: plant(scene.store, "m", scene.text.encode()),
    "persistent id": lambda scene: plant(scene.store, "m", b"\x80\x04P" + file_name(scene.text).encode() + b"\n."),
    "part": damage_part,
    "required field": lambda scene: scene.sql("INSERT INTO required_fields VALUES (?)", scene.text),
    "name in names": lambda scene: scene.sql("INSERT INTO names VALUES (?, ?)", scene.text, scene.text),
    "versions in names": lambda scene: scene.sql("UPDATE names SET versions = ?", scene.text),
    "upload's owner": own_upload,
    "upload's owner, dead": own_dead_upload,
    "upload's owner, no JSON": lambda scene: scene.sql("INSERT INTO uploads VALUES (9, ?, ?, 0, 0)", scene.text, "x"),
    "upload's owner, waiting": wait_for_upload,
    "trigger": trigger,
    "index": raise_in_index,
    "column": odd_column,
    "view": odd_view,
    "malformed schema": malformed_schema,
    "malformed name": malformed_name,
    "path": move_store,
    "path that is missing": move_store_away,
    "path of no store": damage_store,
    "path, waiting": lock_moved_store,
    "file name": name_file,
    "file": fill_file,
    "target of a link": link_file,
    "file beside": leave_files,
    "list of trust": fill_trust_list,
    "home": name_home,
    "variable": set_variables,
    "argument": give_arguments,
}

#: Places that are tried more or less often than others: who waits for a lock takes a second.
WEIGHTS = {"name": 3.0, "upload's owner, waiting": 0.7, "path, waiting": 0.7}
WAITING = ["annotate", "delete", "upload", "require"]

#: The first line that each place is shown with.
FIRST = [["list"], ["list", "-q"], ["list", "-q", "--all-versions"], ["list", "--json"], ["check", "--all"]]

#: What is given for an argument whose name is not among these: a model.
ARGUMENTS = {"topic": ["index", "nothing"], "fields": ["author", "run_id"]}
#: Options that are never given: the first waits for another computer.
NEVER = {"peer", "store", "help"}
VALUES = ["me", "2019-12", "author=me", "a = 1", "1", "stored_at"]


def is_given(option: click.Option, choose: random.Random) -> bool:
    """Whether to give an option."""
    likely = 0.5 if option.name == "yes" else 0.25 if option.is_flag else 0.07
    return option.name not in NEVER and choose.random() < likely


def command_line(command: click.Command, scene: Scene, choose: random.Random) -> list[str]:
    """Return arguments for a verb, most of which make sense."""
    line: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            known = {**ARGUMENTS, "file": scene.files}.get(str(parameter.name), scene.names)
            most = 2 if parameter.nargs == -1 else 1
            line += [choose.choice(known) for _ in range(choose.randint(int(parameter.required), most))]
        elif isinstance(parameter, click.Option) and is_given(parameter, choose):
            line.append(parameter.opts[-1])
            line += [] if parameter.is_flag else [choose.choice(VALUES)]
    for argument in scene.arguments:
        line.insert(choose.randint(0, len(line)), argument)
    return [one.replace("\0", "") for one in line]


class Shown:
    """What a command wrote: on a terminal all is in ``out``."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out, self.err = (text.decode("utf-8", "backslashreplace") for text in (out, err))


def run_here(line: list[str]) -> None:
    """Run the command line in this process, with streams as in a new one, and end it."""
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, "r" if number == 0 else "w", encoding="utf-8", errors="backslashreplace" if number == 2 else None)
        for number in range(3)
    )
    code = 1
    try:
        main.main(line, prog_name="viewser")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


#: Runs the command line in a process that says sooner what it waits for.
IMPATIENT = """
import sys
from views_runs.cli import main
from views_runs.database import connection
connection.SUSPICION, connection.PATIENCE = 0.1, 0.1
main.main(sys.argv[1:], prog_name="viewser")
"""


def run(line: list[str], scene: Scene, on_terminal: bool, anew: bool, columns: int = 80) -> Shown:
    """Run a command line on a terminal or into files, in a fork or in a new interpreter."""
    files = [scene.folder / "stdout", scene.folder / "stderr"]
    variables = scene.variables()
    lock = sqlite3.connect(scene.store.path, isolation_level=None) if scene.is_locked else None
    if lock:
        lock.execute("BEGIN IMMEDIATE")
    child, terminal = pty.fork()
    if not child:
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            if not on_terminal:
                for number, file in enumerate(files, 1):
                    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.chdir(scene.work)
            if lock:
                os.execve(sys.executable, [sys.executable, "-c", IMPATIENT, *line], variables)
            if anew:
                os.execve(sys.executable, viewser_command(*line), variables)
            os.environ.clear()
            os.environ.update(variables)
            run_here(line)
        finally:
            os._exit(99)
    # The answer to a question.
    os.write(terminal, b"n\n")
    shown = b""
    end, unlock = time.monotonic() + PATIENCE, time.monotonic() + 1.2
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.05)[0]:
                shown += os.read(terminal, 10_000)
            if lock and (b"waiting" in shown or time.monotonic() > unlock):
                lock.close()
    except OSError:
        # That is how a terminal ends on Linux.
        pass
    if time.monotonic() >= end:
        os.kill(child, signal.SIGKILL)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if lock:
        lock.close()
    if on_terminal:
        return Shown(code, shown, b"")
    return Shown(code, *(file.read_bytes() for file in files))


def troubles(shown: Shown, verb: str, line: list[str], on_terminal: bool) -> list[str]:
    """Return what is wrong with what a command wrote."""
    found = []
    if shown.code not in (0, 1, 2):
        found.append(f"exit code {shown.code}")
    if "Traceback (most recent call last)" in shown.out + shown.err:
        found.append("a traceback")
    for stream, text in ("stdout", shown.out), ("stderr", shown.err):
        rest = STYLE.sub("", text).replace("\r\n", "\n") if on_terminal else text
        if on_terminal and "\x1b[?25" in text:
            rest = PROGRESS.sub("", rest)
        raw = CONTROL.findall(rest) + (DIRECTION.findall(rest) if on_terminal else [])
        if raw and not (verb == "download" and "-" in line):
            found.append(f"{sorted({*raw})} in {stream}")
    if verb == "list" and not on_terminal and "--json" not in line and "--help" not in line:
        found += ["a forged line in stdout" for one in shown.out.split("\n") if one.startswith("FORGED")]
    if "--json" in line and shown.code == 0 and not on_terminal:
        try:
            json.loads(shown.out or "null")
        except ValueError as error:
            found.append(f"no JSON: {error}")
    return found


def json_or_usage(line: list[str], shown: Shown) -> str:
    """Return what was asked for, or that it was not understood."""
    return " (usage)" if shown.code == 2 else " --json" if "--json" in line else ""


@pytest.fixture
def base(memory_path: Path) -> Storage:
    """A store with some models."""
    store = Storage(memory_path / "base.db")
    metadata = {"author": "me", "train_start": 121, "train_end": 480, "note": {"a": [1, "b"]}}
    store.store("n", [1], metadata)
    store.store("m", [1], metadata)
    store.store("m", [2], {**metadata, "author": "you"}, overwrite=True)
    store.store("large", b"x" * 1_500_000)
    return store


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_texts_that_steer_a_terminal(memory_path: Path, base: Storage) -> None:
    """No control character that came from elsewhere is written as it is, and no name is forged."""
    need(hasattr(os, "fork"), "this system has no forks")
    commands = verbs()
    for module in IMPORTED:
        importlib.import_module(module)
    findings: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for seed, choose in trials():
        [place] = choose.choices([*PLACES], [WEIGHTS.get(one, 1.0) for one in PLACES])
        text = "v" + "w".join(choose.sample(ATOMS, choose.randint(1, 6))) + "x"
        scene = Scene(memory_path / str(seed), base, text)
        try:
            PLACES[place](scene)
        except sqlite3.Error:
            # SQLite does not take this text there.
            counts["refused by SQLite"] += 1
            shutil.rmtree(scene.folder)
            continue
        for number in range(5):
            verb = choose.choice(WAITING if scene.is_locked else [*commands])
            line = ["model", verb, *command_line(commands[verb], scene, choose)]
            if number == 0 and not scene.is_locked:
                verb, *_ = first = choose.choice(FIRST)
                line = ["model", *first, *scene.arguments]
            on_terminal, anew = choose.random() < 0.6, choose.random() < 0.02
            shown = run(line, scene, on_terminal, anew, choose.choice([40, 80, 200]))
            counts["commands"] += 1
            counts["on a terminal"] += on_terminal
            counts["in a new interpreter"] += anew or scene.is_locked
            counts[f"exit {shown.code}"] += 1
            counts["waiting"] += "waiting" in shown.out + shown.err
            where = "on a terminal" if on_terminal else "in a file"
            for trouble in troubles(shown, verb, line, on_terminal):
                said = f"{place}: {trouble} {where}, {verb}{json_or_usage(line, shown)}"
                detail = f"TESTS_SEED={seed} {line!r}\n{(shown.out + shown.err)[-900:]!a}"
                findings.setdefault(said, detail)
            if scene.is_locked:
                break
        shutil.rmtree(scene.folder)
    print(f"TESTS_SEED={SEED}: {', '.join(f'{count} {what}' for what, count in counts.most_common())}")
    known = {said for said in findings if any(re.search(one, said) for one in KNOWN)}
    print(f"{len(known)} known findings")
    new = [f"{said}\n    {detail}" for said, detail in findings.items() if said not in known]
    assert not new, "\n".join(new)
