"""Waiting for locks: what is said of who holds them, and of a file system that has none."""

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.support.machine import need
from tests.support.stores import start_storing
from tests.support.shares import SMB_LOCKS
from views_runs import Storage, StoreBusyError
from views_runs.database import locks, owners


def test_who_is_writing(
    store: Storage, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error and the log name who has been storing since when, where that can be read."""
    monkeypatch.setattr("views_runs.database.connection.PATIENCE", 0.05)
    store.store("first", 1)
    process = start_storing(store)
    try:
        sql.execute("PRAGMA busy_timeout = 10000")
        # With the lock for writing alone others can read.
        sql.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            StoreBusyError, match=rf"waited \d.* s; .* \(process {process.pid}\) has been storing a"
        ) as caught:
            Storage(store.path, timeout=0.5).annotate("first", note="x")
        since = r"has been storing a model since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert caught.match(since) and caught.match(
            "cannot annotate 'first': .*models.db: .* Try again later"
        )
        [message] = [record.message for record in caplog.records]
        assert message.startswith(f"{store.path} is locked by another program, waiting; ")
        assert f"(process {process.pid}) has been storing" in message
        sql.execute("ROLLBACK")
    finally:
        process.kill()
        process.communicate()


def test_another_program_in_wal_mode(store: Storage, sql: sqlite3.Connection) -> None:
    """A tool that has switched the file to WAL mode may keep it open for hours: the error says so at once."""
    store.store("first", 1)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("BEGIN")
    sql.execute("SELECT count(*) FROM models").fetchall()
    with pytest.raises(StoreBusyError, match=r"open in WAL mode.*Close that program, and run `sqlite3 "):
        Storage(store.path, timeout=60).list()
    sql.execute("COMMIT")
    sql.close()
    assert store.list() == ["first"]


def test_oneself_is_not_waited_for(store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that waits in its middle does not name itself."""
    store.store("first", 1)
    monkeypatch.setattr(owners, "active_tokens", {"mine": None})
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES (?, ?)", (owners.this_process("mine"), "2026-11-23"))
    sql.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match=r"waited \d\S* s\. Try again"):
        Storage(store.path, timeout=0.2).annotate("first", note="x")


@pytest.mark.parametrize("owner", ["", "{}", "[]", "null", '{"token": [], "user": 1, "pid": 2}'])
def test_a_writer_that_says_nothing(store: Storage, sql: sqlite3.Connection, owner: str) -> None:
    """A row that cannot be read does not hide the error."""
    store.store("first", 1)
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES (?, 'yesterday')", (owner,))
    sql.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match=r"waited \d\S* s\. Try again"):
        Storage(store.path, timeout=0.2).annotate("first", note="x")


def test_locks_that_work(tmp_path: Path) -> None:
    """A file system that provides locks is not accused, and nothing is left beside the store."""
    need(sys.platform != "win32", "locks cannot be tested")
    assert locks.find_trouble(tmp_path, processes=1) is None
    assert locks.find_trouble(tmp_path) is None
    assert not [*tmp_path.glob(f"{locks.PROBE}*")]


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that get one lock are noticed."""
    need(sys.platform != "win32", "locks cannot be tested")
    monkeypatch.setattr(locks, "_CHILD", "import sys; print(0, flush=True); sys.stdin.read()")
    assert locks.find_trouble(tmp_path) == "two processes can hold the same lock at once, so locks have no effect"


def test_locks_that_cannot_become_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe asks as SQLite does, which an SMB server refuses."""
    need(sys.platform != "win32", "locks cannot be tested")
    monkeypatch.setattr(locks, "_CHILD", SMB_LOCKS + locks._CHILD)
    found = [locks.find_trouble(tmp_path, processes=1), locks.find_trouble(tmp_path)]
    assert found == ["a lock is refused: Permission denied"] * 2


def test_locks_that_are_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that hangs is given up, and nothing is claimed."""
    need(sys.platform != "win32", "locks cannot be tested")
    monkeypatch.setattr(locks, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    with pytest.raises(OSError, match="was not answered within"):
        locks.find_trouble(tmp_path)
    assert not [*tmp_path.glob(f"{locks.PROBE}*")]


def test_a_folder_that_cannot_be_asked(
    store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file can be made beside the store, the wait goes on."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")

    def fail(folder: Path, processes: int) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(locks, "find_trouble", fail)
    with pytest.raises(StoreBusyError):
        Storage(store.path, timeout=0.2).fetch("m")


@pytest.mark.parametrize("program", ["echo", "cat", "nowhere", None])
def test_a_program_that_python_is_a_part_of(
    store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """Where no Python can be run to ask for a lock, the wait goes on all the same."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sys, "executable", program and (shutil.which(program) or f"/{program}"))
    with pytest.raises(StoreBusyError):
        Storage(store.path, timeout=0.1).list()
    with pytest.raises(OSError):
        locks.find_trouble(store.path.parent)


def test_a_frozen_program_is_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executable is no Python."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(OSError, match="locks cannot be tested"):
        locks.find_trouble(tmp_path)
