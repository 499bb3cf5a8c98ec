"""Stores that are interrupted: by a full disk, Ctrl-C, a kill, and locks of others. Nothing is lost or half there."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.budgets import budget
from tests.support.machine import need
from tests.support.stores import LENGTH, NOTHING, fill, leftovers, start_storing
from views_runs import Storage, StorageError, StoreBusyError, StoreFullError, UploadLostError
from views_runs.database import owners, uploads
from views_runs.database.connection import Connection
from views_runs.pickles.parts import PART_SIZE

#: How often a process is forked while a thread of it stores.
FORKS = budget(25, 5)


def test_a_full_disk(small_disk: Path) -> None:
    """A store that does not fit says so and leaves nothing; deleting works on the full disk, and then it fits."""
    store = Storage(small_disk / "models.db")
    model = os.urandom(6 * PART_SIZE)
    store.store("first", model, {"author": "testuser"})
    with pytest.raises(StoreFullError, match="cannot store 'second': .*the disk is full .* Free some space") as caught:
        store.store("second", model)
    assert str(store.path) in str(caught.value)
    assert store.list() == ["first"]
    assert leftovers(store) == NOTHING
    fill(small_disk)
    with pytest.raises(StoreFullError):
        store.store("second", model)
    with pytest.raises(StoreFullError, match="cannot store the metadata of 'first'"):
        store.store_metadata("first", {"note": "x" * 8_000_000}, overwrite=True)
    assert store.fetch("first") == model and store.fetch_metadata("first") == {"author": "testuser"}
    assert store.delete("first") is None
    assert store.list() == [] and leftovers(store) == NOTHING
    store.store("second", model)
    assert store.fetch("second") == model


def test_many_versions_on_a_full_disk(small_disk: Path) -> None:
    """Each version is deleted in a step of its own, whose journal has its space."""
    store = Storage(small_disk / "models.db")
    for number in range(60):
        store.store("m", os.urandom(100_000), {"number": number}, overwrite=True)
    fill(small_disk)
    store.delete("m")
    assert store.list() == []


def test_ctrl_c(store: Storage) -> None:
    """Ctrl-C during a store clears its parts at once."""
    store.store("first", 1)
    process = start_storing(store)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert store.list() == ["first"]
    assert leftovers(store) == NOTHING


def test_killed(store: Storage) -> None:
    """What a killed store left is invisible, and the next store on that computer clears it."""
    store.store("first", 1)
    process = start_storing(store)
    process.kill()
    process.communicate()
    assert leftovers(store)["uploads"] == 1
    assert store.list() == ["first"] and not store.exists("m")
    store.store("m", 2)
    assert store.fetch("m") == 2
    assert leftovers(store) == NOTHING


def test_killed_on_another_computer(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process elsewhere nothing is known: its upload is cleared when it stood still for long, by our own clock."""
    store.store("first", 1)
    process = start_storing(store)
    process.kill()
    process.communicate()
    monkeypatch.setattr(owners, "has_ended", lambda owner: False)
    store.store("second", 2)
    assert leftovers(store)["uploads"] == 1
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + uploads.STALE - 60)
    store.store("third", 3)
    assert leftovers(store)["uploads"] == 1
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 120)
    store.store("fourth", 4)
    assert leftovers(store) == NOTHING


def test_cleared_while_it_slept(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was taken for dead fails cleanly when it wakes up; a second attempt succeeds."""
    monkeypatch.setattr(owners, "has_ended", lambda owner: True)

    class Sleepy:
        def __reduce__(self) -> object:
            def parts() -> Iterator[bytes]:
                for number in range(30):
                    if number == 20:
                        store.store("meanwhile", 1, overwrite=True)
                    yield os.urandom(PART_SIZE)

            return list, (), None, parts()

    with pytest.raises(UploadLostError, match="cannot store 'm': .* Store the model again"):
        store.store("m", Sleepy())
    assert store.list() == ["meanwhile"]
    assert leftovers(store) == NOTHING


def test_a_living_store_is_left_alone(store: Storage) -> None:
    """Others store and delete beside it, and it ends as if alone."""
    store.store("first", 1)
    process = start_storing(store)
    for number in range(5):
        store.store("beside", number, overwrite=True)
        assert store.fetch("beside") == number
    store.delete("beside")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert len(store.fetch("m")) == LENGTH
    assert leftovers(store) == NOTHING


def test_locked_by_another_program(store: Storage, sql: sqlite3.Connection) -> None:
    """It waits, then names the file and how long it waited; reading and writing alike."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    impatient = Storage(store.path, timeout=0.3)
    for operation in (lambda: impatient.store("n", 1), lambda: impatient.fetch("m"), impatient.list):
        with pytest.raises(StoreBusyError, match=r"kept the file locked; waited \d") as caught:
            operation()
        assert str(store.path) in str(caught.value) and isinstance(caught.value, TimeoutError)
    sql.execute("ROLLBACK")
    assert store.list() == ["m"]


def test_waiting_for_a_lock(store: Storage, sql: sqlite3.Connection) -> None:
    """A lock that is given back in time is no trouble."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    code = "import views_runs.database.connection as connection; connection.PATIENCE = 0.01\n"
    code += f"from views_runs import Storage; print(Storage({str(store.path)!r}).fetch('m'))"
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
    assert process.stderr and process.stderr.readline().endswith("is locked by another program, waiting\n")
    sql.execute("COMMIT")
    assert process.communicate(timeout=60)[0] == "1\n"


def test_a_long_wait_is_logged(
    store: Storage, sql: sqlite3.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits learns what for, once."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("views_runs.database.connection.PATIENCE", 0.05)
    with pytest.raises(StoreBusyError):
        Storage(store.path, timeout=0.3).fetch("m")
    messages = [record.message for record in caplog.records]
    assert messages == [f"{store.path} is locked by another program, waiting"]


@pytest.mark.parametrize("owner", ["", "not json", "{}", '{"pid": 1}', '{"kernel": null, "pid": 999999, "start": 1}'])
def test_an_owner_that_says_nothing(owner: str) -> None:
    """A process that cannot be told is not taken for dead."""
    assert not owners.has_ended(owner)


def test_the_own_process_is_not_gone() -> None:
    """A process is there as long as it runs, and certainly gone afterwards."""
    need(sys.platform == "linux", "only Linux tells which process had an id")
    code = "from views_runs.database import owners; print(owners.this_process()); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    owner = process.stdout.readline()
    assert not owners.has_ended(owner)
    process.communicate("\n")
    assert owners.has_ended(owner)


def test_a_process_that_is_hidden_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc shows only one's own processes, those of others are taken to run."""
    need(sys.platform == "linux", "only Linux tells which process had an id")
    owner = json.dumps({**json.loads(owners.this_process()), "pid": 1, "start": 5})

    def hidden(pid: int) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(owners, "_read_start", hidden)

    def may_not(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", may_not)
    assert not owners.has_ended(owner)


def test_left_by_this_process(store: Storage, sql: sqlite3.Connection) -> None:
    """After a second Ctrl-C during the clearing, the next store of the same process clears what is left."""
    store.store("first", 1)
    sql.execute("INSERT INTO uploads (id, owner, started_at) VALUES (77, ?, 'now')", (owners.this_process(),))
    sql.execute("INSERT INTO model_parts VALUES (77, 1, x'00', x'00')")
    store.store("second", 2)
    assert leftovers(store) == NOTHING


def test_deleted_though_its_space_is_not_given_back(
    store: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A delete that is done does not fail because of what comes after it."""
    store.store("m", os.urandom(3 * PART_SIZE))

    def busy(connection: object, progress: object) -> None:
        raise StoreBusyError("locked")

    monkeypatch.setattr(uploads, "give_back", busy)
    assert store.delete("m") is None
    assert "could not return all its space to the disk: locked" in caplog.text
    assert store.list() == []


@pytest.mark.abridged
def test_forked_while_a_thread_stores(store: Storage) -> None:
    """A child that is forked in the middle of a store of its parent reads and writes as any other process."""
    need(hasattr(os, "fork"), "this system does not fork")
    code = f"""
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from views_runs import Storage
store = Storage({str(store.path)!r}, timeout=20)
store.store("m", b"x" * 3_000_000)
stop = threading.Event()
def storing():
    number = 0
    while not stop.is_set():
        number += 1
        store.store("busy", os.urandom(3_000_000), overwrite=True)
        store.fetch("m")
        store.delete("busy")
thread = threading.Thread(target=storing)
thread.start()
failed = 0
for number in range({FORKS}):
    child = os.fork()
    if not child:
        code = 1
        try:
            assert len(store.fetch("m")) == 3_000_000
            store.store(f"child{{number}}", b"y" * 2_000_000)
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(code)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
print(failed, len(store.list(name="child*")))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (result.stdout, result.stderr) == (f"0 {FORKS}\n", "")
    assert leftovers(store) == NOTHING


def test_an_id_that_was_rolled_back(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first parts of a store fail, its id may be another's by now, who is left alone."""
    store.store("first", 1)
    theirs = owners.this_process("theirs")
    monkeypatch.setattr(owners, "active_tokens", {"theirs": None})
    write = uploads.Upload._write

    def fail(self: uploads.Upload, connection: Connection) -> None:
        write(self, connection)
        raise StoreFullError("full")

    monkeypatch.setattr(uploads.Upload, "_write", fail)
    roll_back = Connection.roll_back

    def then_another_begins(self: Connection) -> None:
        roll_back(self)
        self.change("INSERT INTO uploads (owner, started_at) VALUES (?, 'now')", (theirs,))

    monkeypatch.setattr(Connection, "roll_back", then_another_begins)
    with pytest.raises(StoreFullError):
        store.store("m", os.urandom(8 * PART_SIZE))
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT owner, condemned FROM uploads").fetchall() == [(theirs, 0)]
    connection.close()


#: Each prints the error of an operation for which the memory does not suffice.
SHORT_OF_MEMORY = """
import resource, sys
from views_runs import Storage, StorageError
class Large:
    def __reduce__(self):
        return bytes, (bytes(3_000_000_000),)
store = Storage(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (1_000_000_000, resource.RLIM_INFINITY))
try:
    store.store("large", Large())
except StorageError as error:
    print(error)
print(store.fetch("m"))
"""


def test_too_little_memory(store: Storage) -> None:
    """The error names the operation and the store, which stays whole."""
    need(sys.platform == "linux", "memory is limited with RLIMIT_AS")
    store.store("m", 1)
    lines = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(store.path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    said = f"{store.path}: this process has too little memory. Close other programs, or raise the memory limit"
    assert lines == [f"cannot store 'large': {said}", "1"]
    assert store.list() == ["m"] and store.verify().damaged == ()


def test_metadata_larger_than_any_value(store: Storage) -> None:
    """A text of more than 100 MB is refused: what reads the file would need several times its size in memory."""
    store.store("m", 1, {"note": "short"})
    with pytest.raises(StorageError, match="cannot annotate 'm': .*exceeds the limit of 100 MB .* Store large data in"):
        store.annotate("m", note="x" * 100_000_001)
    assert store.fetch_metadata("m") == {"note": "short"}


def interrupt_later(done: int, total: int) -> None:
    """Ctrl-C, while space is returned."""
    assert 0 < done < total
    raise KeyboardInterrupt


def test_ctrl_c_while_space_is_returned(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Where somebody watches, Ctrl-C means later: the model is gone, and the next deletion returns the space."""
    for name in ("one", "two"):
        store.store(name, os.urandom(10 * PART_SIZE))
    size = store.path.stat().st_size
    assert store.delete("one", progress=interrupt_later) is None
    assert "deleted one; the next delete returns the rest of its space" in caplog.text
    assert store.list() == ["two"] and leftovers(store) == NOTHING
    assert size - 10 * PART_SIZE < store.path.stat().st_size < size
    reported: list[tuple[int, int]] = []
    store.delete("two", progress=lambda done, total: reported.append((done, total)))
    assert reported == sorted(reported) and reported[-1][1] > 18 * PART_SIZE
    assert store.path.stat().st_size < PART_SIZE


def test_ctrl_c_in_a_program_while_space_is_returned(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that did not ask for progress gets the exception."""
    store.store("m", 1)

    def interrupt(connection: Connection, progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uploads, "give_back", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.delete("m")
    assert store.list() == []
