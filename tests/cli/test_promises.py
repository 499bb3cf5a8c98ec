"""What the command line promises: what reaches a terminal, exit codes, and that it says what it did."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.support.machine import need
from tests.support.watched import between, watched
from views_runs import Storage

Viewser = Callable[..., Result]

#: It would set the title of the terminal, clear it, and show the rest from right to left.
NASTY = "bad\x1b]0;owned\x07\x1b[2J\u202ename"


@pytest.mark.parametrize("verb", ["verify", "backup"])
@pytest.mark.parametrize("kind", ["bytes", "row"])
def test_the_name_of_a_damaged_model(
    store: Storage, sql: sqlite3.Connection, viewser: Viewser, verb: str, kind: str
) -> None:
    """Nothing in the name of a damaged model moves the cursor or changes the terminal; it is shown with escapes."""
    store.store("m", 1)
    store.store("whole", 1)
    change = "pickle = x'00'" if kind == "bytes" else "metadata = '[', stored_at = 'x'"
    for (index,) in sql.execute("SELECT name FROM sqlite_schema WHERE sql LIKE '%metadata ->>%'").fetchall():
        # It would refuse what is not JSON.
        sql.execute(f"DROP INDEX {index}")
    sql.execute("PRAGMA ignore_check_constraints = ON")
    sql.execute(f"UPDATE models SET name = ?, {change} WHERE name = 'm'", (NASTY,))
    result = viewser("model", verb, *(["copy.db"] if verb == "backup" else []), exit_code=1)
    shown = result.stdout + result.stderr
    assert not [one for one in shown if not one.isprintable() and one != "\n"]
    assert r"bad\x1b]0;owned\x07\x1b[2J\u202ename:1" in shown


def test_the_name_of_a_deleted_model(store: Storage, sql: sqlite3.Connection, viewser: Viewser) -> None:
    """Nor does that of a model that was deleted while a backup was made."""
    store.store("m", 1)
    sql.execute("UPDATE models SET name = ?", (NASTY,))

    has_read = False

    def before(connection: sqlite3.Connection, statement: str) -> None:
        nonlocal has_read
        if connection.in_transaction:
            has_read |= "stored_at" in statement
        elif has_read:
            # The rows were read at one moment, and the pickles are read later.
            sql.execute("DELETE FROM models")

    with watched(store.path, before):
        result = viewser("model", "backup", "copy.db")
    assert r"bad\x1b]0;owned\x07\x1b[2J\u202ename:1" in result.stderr and "\x1b" not in result.stderr


def test_doctor_warns(store: Storage, sql: sqlite3.Connection, viewser: Viewser) -> None:
    """doctor exits with 0 when the worst that it finds is a warning, and with 1 on a failure."""
    need(os.name == "posix", "there are no mode bits")
    for folder in (store.path.parent, store.path.parent.parent):
        folder.chmod(0o700)
    store.store("m", 1)
    sql.execute("INSERT INTO uploads (owner, started_at, condemned) VALUES ('{}', '2026-11-23', 1)")
    findings = json.loads(viewser("model", "doctor", "--json", exit_code=0).stdout)
    assert [one["topic"] for one in findings if one["state"] == "warning" and one["topic"] != "file system"] == [
        "leftovers"
    ]
    assert "failure" not in {one["state"] for one in findings}
    viewser("model", "doctor", exit_code=0)
    store.path.chmod(0o666)
    viewser("model", "doctor", exit_code=1)
    viewser("model", "doctor", "--json", exit_code=1)


def test_no_pickle_on_a_terminal(store: Storage) -> None:
    """`download NAME -` is refused where the output is a terminal, and writes nothing to it."""
    need(os.name == "posix", "there are no such terminals")
    import pty

    store.store("m", "canary")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "views_runs", "model", "--store", str(store.path), "download", "m", "-"]
    try:
        result = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE)
        assert result.returncode == 2 and b"canary" not in result.stderr
        os.set_blocking(main, False)
        with pytest.raises(BlockingIOError):
            os.read(main, 1000)
    finally:
        os.close(terminal)
        os.close(main)


def test_a_version_that_is_stored_while_another_is_annotated(store: Storage, viewser: Viewser) -> None:
    """annotate changes the version whose metadata it compares with, and says no other change than its own."""
    store.store("m", 1, {"number": 1})

    def overwrite() -> None:
        store.store("m", 1, {"number": len(store.versions("m")) + 1}, overwrite=True)

    with watched(store.path, between(overwrite)):
        shown = viewser("model", "annotate", "m", "--set", "note=x").stderr
    versions = store.versions("m")
    assert len(versions) > 2 and len([one for one in versions if "note" in (one.metadata or {})]) == 1
    assert "note" in shown and "number" not in shown
