"""Several threads, scarce resources, and errors that are kept: nobody waits or is blamed without need."""

import os
import pickle
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.pieces import MIB
from tests.support.stores import damage
from views_runs import CorruptModelError, ModelPickleError, Storage, StoreBusyError, StoreDamagedError
from views_runs.database import owners


def test_a_thread_that_waits_for_another_program(store: Storage, sql: sqlite3.Connection, tmp_path: Path) -> None:
    """While one thread waits for a lock, others use another store at once, however impatient they are."""
    store.store("m", 1)
    other = Storage(tmp_path / "other.db", timeout=0)
    other.store("m", 2)
    for begin in ("BEGIN EXCLUSIVE", "BEGIN"):
        # With the lock for reading, others can begin to write and have to wait when they commit.
        sql.execute(begin)
        sql.execute("SELECT count(*) FROM models").fetchall()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(Storage(store.path, timeout=60).annotate, "m", note=begin)
            while not waiting.running():
                pass
            assert [other.fetch("m") for _ in range(50)] == [2] * 50
            assert not waiting.done()
            sql.execute("ROLLBACK")
            assert waiting.result(60).metadata == {"note": begin}


def test_no_thread_can_be_started_for_a_moment(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system starts no thread now, and one later, the digests are taken without."""
    model = os.urandom(4 * MIB)
    store.store("m", model)
    start, tried = threading.Thread.start, []

    def start_later(thread: threading.Thread) -> None:
        tried.append(thread)
        if len(tried) == 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    assert store.fetch("m") == model and tried
    tried.clear()
    assert store.verify("m").damaged == () and tried


def test_an_error_that_is_kept_keeps_no_lock(store: Storage, sql: sqlite3.Connection) -> None:
    """The traceback of an error that is kept, as by a notebook, keeps the cursor; others can write all the same."""
    store.store("bad", 1)
    store.store("good", 2)
    sql.execute("UPDATE models SET stored_by = CAST(x'ff' AS TEXT) WHERE name = 'bad'")
    with pytest.raises(StoreDamagedError) as kept:
        store.versions("bad")
    sql.execute("BEGIN EXCLUSIVE")
    sql.execute("ROLLBACK")
    assert kept.value.__traceback__ is not None


def test_an_error_is_not_its_own_cause(store: Storage, sql: sqlite3.Connection) -> None:
    """What follows causes to their end gets there."""
    store.store("m", os.urandom(4 * MIB))
    damage(sql, 2)
    with pytest.raises(CorruptModelError) as caught:
        store.fetch("m")
    seen, error = [], caught.value
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__  # type: ignore[assignment]
    assert error is None


class Asking:
    """An object that asks another store when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return ask, (self.path,)


def ask(path: Path) -> Any:
    return Storage(path).find()


def test_damage_of_another_store(store: Storage, tmp_path: Path) -> None:
    """What fails while a model is unpickled is not said to be damage of that model."""
    other = Storage(tmp_path / "other.db")
    other.store("m", 1)
    store.store("m", [os.urandom(3 * MIB), Asking(other.path)])
    with sqlite3.connect(other.path) as connection:
        connection.execute("DROP INDEX models_record")
    connection.close()
    with pytest.raises(StoreDamagedError, match="other.db"):
        store.fetch("m")


def test_an_error_with_a_model_survives_a_process_border(store: Storage) -> None:
    """The model that was trained stays behind: that it cannot be pickled may be what went wrong."""
    with pytest.raises(ModelPickleError) as caught:
        store.fetch_or_train("m", lambda: lambda: 0, {})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) and not hasattr(copy, "model") and hasattr(caught.value, "model")


def test_too_many_open_files_is_not_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot look whether another one runs takes it to run."""
    need(sys.platform == "linux", "only Linux tells which process had an id")
    monkeypatch.setattr(owners, "active_tokens", {"token": None})
    owner = owners.this_process("token")
    resource = pytest.importorskip("resource", reason="there is no such limit")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        ended = owners.has_ended(owner)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not ended


def test_a_child_that_exits_in_the_middle_of_a_store(store: Storage) -> None:
    """A child that is forked while its parent pickles leaves the parent's upload alone when it exits."""
    need(hasattr(os, "fork"), "this system does not fork")

    class Forking:
        def __reduce__(self) -> Any:
            child = os.fork()
            if not child:
                try:
                    raise SystemExit
                except SystemExit:
                    # As sys.exit() does, but for what pytest makes of it.
                    raise KeyboardInterrupt from None
            os.waitpid(child, 0)
            return int, ()

    parent = os.getpid()
    try:
        store.store("m", [os.urandom(9 * MIB), Forking(), os.urandom(9 * MIB)])
    except BaseException:
        if os.getpid() != parent:
            os._exit(0)
        raise
    assert len(store.fetch("m")) == 3


def test_a_lock_is_waited_for_no_longer_than_asked(store: Storage, sql: sqlite3.Connection) -> None:
    """Two threads that wait for one store give up, each by its own timeout."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(Storage(store.path, timeout=60).fetch, "m")
        with pytest.raises(StoreBusyError):
            pool.submit(Storage(store.path, timeout=0.1).fetch, "m").result(30)
        assert not patient.done()
        sql.execute("ROLLBACK")
        assert patient.result(60) == 1
