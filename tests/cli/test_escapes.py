"""No text that anyone wrote reaches the terminal as anything but text: escapes in all that can be shown."""

import json
import logging
import os
import pickle
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.lines import environment, on_a_terminal, viewser_command
from views_runs import InvalidMetadataError, Storage, StorageError, StoreBusyError
from views_runs.rendering import console

Viewser = Callable[..., Result]

#: Would set the title of the terminal, clear it, colour it (also with a C1 control), and show text from right to left.
NASTY = "bad\x1b]0;owned\x07\x1b[2J\x1b[35m\x9b35m\x7f\u202etext"
SHOWN = r"bad\x1b]0;owned\x07\x1b[2J\x1b[35m\x9b35m\x7f\u202etext"

#: Commands that read, change nothing that another needs, and end whatever is in the file.
COMMANDS = [
    ["list"],
    ["list", "-q"],
    ["list", "--json"],
    ["list", "--all-versions", "-w", f"x = {NASTY}"],
    ["list", "-w", NASTY],
    ["list", "--sort", NASTY],
    ["list", "--limit", NASTY],
    ["list", "--since", NASTY],
    ["list", f"--{NASTY}"],
    ["inspect", "m"],
    ["inspect", "m", "--json"],
    ["inspect", NASTY],
    ["diff", "m", "n", "--all"],
    ["diff", "m", "n", "--json"],
    ["check", "--all"],
    ["check", "m", "--json"],
    ["verify"],
    ["verify", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["require"],
    ["require", "--json"],
    ["require", NASTY],
    ["trust", "m"],
    ["guide", NASTY],
    [NASTY],
    ["annotate", "m", "--unset", NASTY],
    ["annotate", "m", "--set", NASTY],
    ["annotate", "m", "--set", f"{NASTY}=1"],
    ["download", "m", f"{NASTY}/file"],
    ["upload", f"{NASTY}.pickle"],
    ["upload", "m.pickle", "m"],
    ["upload", "m.pickle", NASTY],
    ["download", "m", "n", NASTY],
    ["backup", NASTY],
    ["delete", "m"],
]


def refuse_raw(shown: str) -> None:
    """Check that a text consists of printable characters and line breaks."""
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []


def overwrite_texts(sql: sqlite3.Connection) -> None:
    """Put escapes in every text of the file, as another program could."""
    sql.execute("PRAGMA ignore_check_constraints = ON")
    metadata = json.dumps({NASTY: NASTY, "author": NASTY, "train_end": NASTY, "nested": [{NASTY: NASTY}]})
    environment = json.dumps({"type": NASTY, "python": NASTY, "imports": [NASTY], "packages": {NASTY: NASTY}})
    columns = "metadata = ?, environment = ?, stored_by = ?"
    sql.execute(f"UPDATE models SET {columns} WHERE name <> 'whole'", (metadata, environment, NASTY))
    sql.execute("UPDATE models SET name = ? WHERE name = 'named'", (NASTY,))
    sql.execute("UPDATE models SET version = ? WHERE name = 'versioned'", (NASTY,))
    sql.execute("UPDATE models SET stored_at = ? WHERE name = 'timed'", (NASTY,))
    sql.execute("UPDATE models SET sha256 = ? WHERE name = 'hashed'", (NASTY,))
    sql.execute("INSERT INTO required_fields VALUES (?)", (NASTY,))
    owner = json.dumps({"user": NASTY, "pid": NASTY, "kernel": NASTY, "start": 1, "token": NASTY})
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES (?, '2026-11-23')", (owner,))
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES (?, ?)", (NASTY, NASTY))


@pytest.fixture
def nasty(store: Storage, sql: sqlite3.Connection) -> Storage:
    """A store with escapes in every text."""
    Path("m.pickle").write_bytes(pickle.dumps(1))
    for name in ("m", "n", "named", "versioned", "timed", "hashed", "whole"):
        store.store(name, [name])
    overwrite_texts(sql)
    return store


def test_every_text(nasty: Storage, viewser: Viewser) -> None:
    """Whatever the command, and whether it succeeds or not, only text is printed, and all of it."""
    printed = ""
    for command in COMMANDS:
        result = viewser("model", *command, exit_code=None, input="n\n")
        refuse_raw(result.stdout + result.stderr)
        printed += result.stdout + result.stderr
        if "--json" in command and result.stdout:
            json.loads(result.stdout)
    assert SHOWN in printed
    assert json.loads(viewser("model", "inspect", "m", "--json").stdout)["metadata"]["author"] == NASTY


@pytest.mark.parametrize("line", ["list", "inspect m", "diff m whole", "check --all", "require", "doctor", "trust m"])
def test_on_a_terminal(nasty: Storage, line: str) -> None:
    """Where the package's own styles are shown, nobody else's are."""
    shown = on_a_terminal(viewser_command("model", *line.split()), environment(nasty, TERM="xterm-256color"), b"n\n")
    assert "\x1b[35m" not in shown
    refuse_raw(re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r", ""))


def test_findings(nasty: Storage) -> None:
    """A script prints what doctor found, too."""
    texts = [one.text + one.advice for one in nasty.doctor()]
    assert all(map(str.isprintable, texts)) and SHOWN in "".join(texts)


def test_errors_of_the_library(nasty: Storage) -> None:
    """A script prints an error, too; the key is what is in the file."""
    with pytest.raises(InvalidMetadataError) as lacking:
        nasty.store("m", 1)
    assert SHOWN in str(lacking.value) and lacking.value.key == NASTY
    for call in (lambda: nasty.annotate("m", unset=["x"]), lambda: nasty.store("n", 1, {"a": 1}, overwrite=True)):
        with pytest.raises(StorageError) as caught:
            call()
        refuse_raw(str(caught.value))


def test_a_path_in_an_error(tmp_path: Path) -> None:
    """Nor can the path of a store do anything to the terminal."""
    store = Storage(tmp_path / f"{NASTY}\n.db")
    with pytest.raises(StorageError) as caught:
        Storage(tmp_path / NASTY / "models.db").list()
    assert SHOWN in str(caught.value)
    store.path.write_bytes(b"text")
    with pytest.raises(StorageError, match="not an SQLite") as caught:
        store.list()
    assert rf"{SHOWN}\n.db" in str(caught.value)


@pytest.mark.parametrize("kind", ["view", "trigger", "schema"])
def test_a_malformed_schema(store: Storage, sql: sqlite3.Connection, viewser: Viewser, kind: str) -> None:
    """What SQLite says of a file quotes the file."""
    store.store("m", 1)
    sql.execute("PRAGMA writable_schema = ON")
    if kind == "view":
        sql.execute("DROP TABLE uploads")
        sql.execute(f"CREATE VIEW uploads AS SELECT 1 AS \"{NASTY}\"")
    elif kind == "trigger":
        sql.execute(f"CREATE TRIGGER \"{NASTY}\" AFTER INSERT ON names BEGIN SELECT RAISE(ABORT, '{NASTY}'); END")
    else:
        sql.execute("UPDATE sqlite_schema SET sql = ?, name = ? WHERE name = 'names'", (f"CREATE TABLE {NASTY}", NASTY))
    for command in (["list"], ["upload", "m.pickle"], ["doctor"], ["verify"]):
        result = viewser("model", *command, exit_code=None)
        refuse_raw(result.stdout + result.stderr)
    with pytest.raises(StorageError) as caught:
        store.list()
    refuse_raw(str(caught.value))


def test_who_is_waited_for(
    nasty: Storage, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of an upload is named in the log and in the error, without the escapes in its name."""
    monkeypatch.setattr("views_runs.database.connection.PATIENCE", 0.05)
    sql.execute("UPDATE uploads SET owner = replace(owner, 'text', '\\nForged')")
    sql.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError) as caught:
        Storage(nasty.path, timeout=0.3).annotate("whole", note="x")
    assert r"\x1b]0;owned\x07" in str(caught.value)
    refuse_raw(str(caught.value))
    [message] = caplog.messages
    assert r"\x1b]0;owned\x07" in message and message.isprintable()


def test_what_a_script_logs(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """The reasons for training quote the metadata that another program changed."""
    store.store("m", 1, {"author": NASTY + "\nForged"})
    with caplog.at_level(logging.INFO):
        store.fetch_or_train("m", lambda: 2, {"author": "me"})
    assert SHOWN in caplog.text and all(message.isprintable() for message in caplog.messages)


def test_names_for_another_command(store: Storage, sql: sqlite3.Connection, viewser: Viewser) -> None:
    """`list -q` prints in a pipe what other commands take, as it is, and leaves out what they take for another name."""
    fine = ["a b'c", "no\xa0break", "zero\u200dwidth", "right\u202eleft", "back\\x1bslash"]
    for name in ("two", "escape", "versioned", *fine):
        store.store(name, 1)
    sql.execute("UPDATE models SET name = 'old' || char(10) || 'precious' WHERE name = 'two'")
    sql.execute("UPDATE models SET name = 'back' || char(27) || 'slash' WHERE name = 'escape'")
    sql.execute("UPDATE models SET name = 'zero:1' WHERE name = 'versioned'")
    result = viewser("model", "list", "-q", exit_code=1)
    assert result.stdout.split("\n") == [*reversed(fine), ""]
    assert len(result.stderr.splitlines()) == 3
    for name in (r"old\nprecious:1", r"back\x1bslash:1", "zero:1:1"):
        assert f"Error: cannot read {name}: " in result.stderr
    viewser("model", "delete", "--yes", *result.stdout.splitlines())
    assert len(store.list()) == 3


def test_bytes_that_are_no_text(store: Storage) -> None:
    """An argument of any bytes is an answer or an error, never a traceback."""
    store.store("m", 1)
    lines = ["download \x80", "download m \x80", "download m \x81 --json", "backup \x80.db", "list \x80", "upload \x80"]
    for line in lines:
        command = [*map(os.fsencode, viewser_command("model")), *line.encode("latin-1").split()]
        result = subprocess.run(command, capture_output=True, env=environment(store))
        assert b"Traceback" not in result.stderr and result.returncode in (0, 1)
        refuse_raw((result.stdout + result.stderr).decode())
    assert os.path.exists(b"\x80") and os.path.exists(b"\x81")


def test_too_many_brackets(store: Storage, viewser: Viewser) -> None:
    """JSON that is nested too deeply is an error in words."""
    store.store("m", 1)
    for value in ("[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500):
        said = viewser("model", "annotate", "m", "--set", f"x={value}", exit_code=1).stderr
        assert "nested" in said and len(said) < 300


def test_a_number_that_json_has_not(store: Storage, sql: sqlite3.Connection, viewser: Viewser) -> None:
    """Infinity, which another program can write as 1e999, is a string in JSON."""
    store.store("m", 1)
    sql.execute("""UPDATE models SET metadata = '{"x": 1e999, "y": [-1e999, 1e9]}'""")
    for command in (["inspect", "m"], ["list"]):
        shown = json.loads(viewser("model", *command, "--json").stdout, parse_constant=pytest.fail)
        [record] = shown if command == ["list"] else [shown]
        assert record["metadata"] == {"x": "Infinity", "y": ["-Infinity", 1e9]}
    json.dumps(store.inspect("m").as_json(), allow_nan=False)
    assert "Infinity" in viewser("model", "inspect", "m").stdout


def test_what_a_view_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    """The way out escapes, whatever a view gives to it, and adds no line."""
    from rich.panel import Panel

    console.write(NASTY, bold=True)
    console.show_message(NASTY)
    console.show_error(NASTY)
    console.show_lines([NASTY])
    console.draw(Panel(NASTY))
    console.draw(Panel(NASTY), err=True, wrap=False)
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(r"\x1b]0;owned") == 6
    refuse_raw(shown.out + shown.err)
