"""What holds while others store, delete, look and fork between two steps of an operation."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.machine import need
from tests.support.pieces import MIB, Pieces
from tests.support.stores import NOTHING, leftovers
from tests.support.watched import between, moments, watched
from views_runs import (
    BackupError,
    DownloadError,
    InvalidMetadataError,
    MetadataExistsError,
    ModelExistsError,
    ModelNotFoundError,
    ModelPickleError,
    Storage,
    StorageError,
)


def test_a_name_that_is_taken_meanwhile(store: Storage) -> None:
    """Who stores a name that another takes while it pickles is refused, and adds no version."""
    store.store("first", 1)

    def on_piece(number: int) -> None:
        if number == 7:
            store.store("m", "theirs")

    with pytest.raises(ModelExistsError):
        store.store("m", Pieces(8, on_piece))
    assert [record.version for record in store.versions("m")] == [1] and store.fetch("m") == "theirs"
    assert leftovers(store) == NOTHING


def test_fields_that_are_required_meanwhile(store: Storage) -> None:
    """A model that lacks a field which another requires while it is pickled, or while it is annotated, is refused."""
    store.store("first", 1, {"author": "ines"})
    with pytest.raises(InvalidMetadataError):
        store.store("m", Pieces(8, lambda number: store.require("author")), {"note": "x"})
    assert store.list() == ["first"] and leftovers(store) == NOTHING
    with watched(store.path, between(lambda: store.require("run_id"))), pytest.raises(InvalidMetadataError):
        store.annotate("first", note="x")
    assert store.fetch_metadata("first") == {"author": "ines"}


def test_a_store_beside_another_of_its_own_process(store: Storage) -> None:
    """A store that is under way is not cleared by another of the same process."""
    store.store("first", 1)

    def on_piece(number: int) -> None:
        store.store("beside", bytes(2 * MIB), overwrite=True)

    store.store("m", Pieces(8, on_piece))
    assert len(store.fetch("m")) == 8 and len(store.versions("beside")) == 8
    assert leftovers(store) == NOTHING


def test_an_upload_that_goes_on_when_it_is_looked_at(store: Storage, sql: sqlite3.Connection) -> None:
    """A store elsewhere is cleared, or goes on, and never both."""
    store.store("first", 1)
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES ('{}', '2026-11-23')")
    store.store("second", bytes(2 * MIB))
    sql.execute("UPDATE watches SET since = 0")
    has_read = went_on = 0

    def before(connection: sqlite3.Connection, statement: str) -> None:
        nonlocal has_read, went_on
        if has_read and not connection.in_transaction:
            went_on += sql.execute("UPDATE uploads SET beat = beat + 1 WHERE id = 1 AND NOT condemned").rowcount
        has_read |= "beat" in statement and statement.startswith("SELECT")

    with watched(store.path, before):
        store.store("third", bytes(2 * MIB))
    assert has_read and leftovers(store)["uploads"] == (1 if went_on else 0)


def test_an_id_that_is_another_s_by_now(store: Storage, sql: sqlite3.Connection) -> None:
    """When the first parts of a store fail, another may get the id of its upload, and is left alone."""
    store.store("first", 1)
    has_parts = has_failed = False

    def before(connection: sqlite3.Connection, statement: str) -> None:
        nonlocal has_parts, has_failed
        has_parts |= "INTO model_parts" in statement
        if has_failed and not connection.in_transaction and leftovers(store) == NOTHING:
            sql.execute("INSERT INTO uploads (owner, started_at) VALUES ('{}', '2026-11-23')")
        if statement == "COMMIT" and has_parts and not has_failed:
            has_failed = True
            raise sqlite3.OperationalError("no")

    with watched(store.path, before), pytest.raises(StorageError):
        store.store("m", bytes(3 * MIB))
    assert sql.execute("SELECT id, condemned FROM uploads").fetchall() == [(1, 0)]


def test_whoever_writes_has_the_lock_from_the_beginning(store: Storage) -> None:
    """A transaction that writes keeps other writers out before it reads: two that both read first would block."""
    store.store("first", 1)
    other = sqlite3.connect(store.path, isolation_level=None, timeout=0, check_same_thread=False)
    kept_out: list[bool] = []
    written = 0

    def before(connection: sqlite3.Connection, statement: str) -> None:
        nonlocal written
        if not connection.in_transaction:
            kept_out.clear()
            return
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            kept_out.append(False)
        except sqlite3.OperationalError:
            kept_out.append(True)
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            written += 1
            assert all(kept_out), statement

    with watched(store.path, before):
        store.store("m", bytes(3 * MIB), {"author": "ines"})
        store.annotate("m", note="x")
        store.store_metadata("m", {"author": "ines"}, overwrite=True)
        store.require("author")
        store.delete("m")
    other.close()
    assert written > 12


def test_two_that_store_metadata_at_once(store: Storage) -> None:
    """Of two that give a model its metadata one is refused, whenever the other does it."""
    given: list[str] = []

    def give(who: str) -> None:
        with suppress(MetadataExistsError):
            store.store_metadata("m", {"author": who})
            given.append(who)

    for moment in moments(store.path, lambda: give("ines")):
        store.store("m", 1, overwrite=True)
        given.clear()
        with moment:
            give("testuser")
        assert len(given) == 1 and store.fetch_metadata("m") == {"author": given[0]}


def test_required_fields_are_replaced_at_once(store: Storage) -> None:
    """Whoever looks while the required fields are changed sees those before, or those after."""
    store.store("m", 1)
    seen = set()
    for moment in moments(store.path, lambda: seen.add(tuple(store.required()))):
        store.require("author", "run_id")
        with moment:
            store.require("outcome", "steps")
    assert seen == {("author", "run_id")} or seen == {("author", "run_id"), ("outcome", "steps")}


OPERATIONS: dict[str, Callable[[Storage], object]] = {
    "store": lambda store: store.store("n", bytes(3 * MIB)),
    "overwrite": lambda store: store.store("m", bytes(3 * MIB), overwrite=True),
    "fail": lambda store: store.store("n", [Pieces(8), lambda: None]),
    "delete": lambda store: store.delete("m"),
    "delete a version": lambda store: store.delete("m:1"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_part_has_an_owner(store: Storage, sql: sqlite3.Connection, name: str) -> None:
    """Whoever dies between any two steps leaves no part without a model or an upload: nobody would clear it."""
    store.store("m", bytes(3 * MIB))
    owned = "SELECT upload FROM models WHERE upload IS NOT NULL UNION ALL SELECT id FROM uploads"
    lost = f"SELECT count(*) FROM model_parts WHERE upload NOT IN ({owned})"
    looked: list[tuple[int]] = []

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if not connection.in_transaction:
            looked.extend(sql.execute(lost).fetchall())

    with watched(store.path, before):
        try:
            OPERATIONS[name](store)
        except ModelPickleError:
            assert name == "fail"
    assert len(looked) > 3 and set(looked) == {(0,)}
    assert leftovers(store) == NOTHING


def test_replaced_while_it_is_fetched(store: Storage) -> None:
    """A name that always has a model is always fetched, though others store a version and delete the one before."""
    store.store("m", 1)
    stored = [1]

    def replace() -> None:
        stored.append(store.store("m", len(stored) + 1, overwrite=True).version)
        store.delete("m", stored[-2])

    lists: tuple[list[str] | None, ...] = (None, [])
    for trusted in lists:
        with watched(store.path, between(replace)):
            assert store.fetch("m", trusted=trusted) in stored
    assert len(stored) > 4


def found_damaged(store: Storage, verb: str) -> object:
    """Read a model; return what is said of its damage."""
    try:
        if verb == "verify":
            return store.verify().damaged
        if verb == "backup":
            return store.backup(store.path.with_name(f"{os.urandom(8).hex()}.db")).damaged
        return () if store.fetch("m", trusted=None if verb == "fetch" else []) else "another model"
    except ModelNotFoundError:
        return ()


@pytest.mark.parametrize(
    ("verb", "size"),
    [("verify", 1), ("backup", 1), ("fetch", 1), ("fetch with a list", 1), ("fetch", MIB)],
)
def test_deleted_while_it_is_read(store: Storage, verb: str, size: int) -> None:
    """A model that another deletes is not said to be damaged, at whatever step it goes."""
    count = 0
    for moment in moments(store.path, lambda: store.delete("m")):
        store.store("m", b"x" * size)
        count += 1
        with moment:
            assert found_damaged(store, verb) == ()
    assert count > 3


@pytest.mark.parametrize("verb", ["backup", "download"])
def test_a_file_that_appears_meanwhile(store: Storage, tmp_path: Path, verb: str) -> None:
    """A file that another makes while its name is being written to is kept."""
    store.store("m", 1)
    file = tmp_path / "file"

    def make() -> None:
        file.write_text("theirs")

    with watched(store.path, between(make)), pytest.raises((BackupError, DownloadError)):
        if verb == "backup":
            store.backup(file)
        else:
            store.download("m", file)
    assert file.read_text() == "theirs"
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


@pytest.mark.parametrize("verb", ["backup", "download"])
def test_written_before_it_has_its_name(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A file is on the disk before it has its name, so that no power failure leaves half a file of that name."""
    store.store("m", bytes(2 * MIB))
    file = tmp_path / "file"
    synced: dict[int, bool] = {}
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.setdefault(os.stat(descriptor).st_ino, file.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    if verb == "backup":
        store.backup(file)
    else:
        store.download("m", file)
    assert synced[file.stat().st_ino] is False


FORKING = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from tests.support.watched import watched
from views_runs import Storage
store = Storage(sys.argv[1])
store.store("m", 1)
inside, done = threading.Event(), threading.Event()
def before(connection, statement):
    if connection.in_transaction and statement.startswith("INSERT") and not inside.is_set():
        inside.set()
        done.wait(0.3)
def storing():
    store.store("n", 1)
with watched(store.path, before):
    thread = threading.Thread(target=storing)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if not child:
        try:
            own = Storage(sys.argv[1], timeout=3)
            own.store("child", own.fetch("m"))
            os._exit(0)
        finally:
            os._exit(1)
    done.set()
    thread.join()
    print(os.waitpid(child, 0)[1], len(store.list()))
"""


def test_forked_in_the_middle_of_a_transaction(store: Storage) -> None:
    """A child that is forked while another thread is in a transaction uses the store as any other process."""
    need(hasattr(os, "fork"), "this system does not fork")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", FORKING, str(store.path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (result.stdout, result.stderr) == ("0 3\n", "")
