"""What keeps uploads safe: the fence, the bounds on transactions and memory, and which leftovers are cleared when."""

import json
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.pieces import MIB, Pieces
from tests.support.stores import NOTHING, leftovers
from tests.support.watched import watched
from views_runs import Storage, UploadLostError

CONDEMN = "UPDATE uploads SET condemned = 1"
PARTS = "SELECT count(*) FROM model_parts"


def condemn(sql: sqlite3.Connection) -> None:
    """Condemn the one upload that is under way, as another computer does that takes it for dead."""
    assert sql.execute(CONDEMN).rowcount == 1


def test_condemned_between_parts(store: Storage, sql: sqlite3.Connection) -> None:
    """A store whose upload is condemned while it pickles fails, and no model appears."""
    store.store("first", 1)

    def on_piece(number: int) -> None:
        if number == 12:
            condemn(sql)

    with pytest.raises(UploadLostError):
        store.store("m", Pieces(14, on_piece))
    assert not store.exists("m") and leftovers(store) == NOTHING


def test_condemned_after_the_last_part(store: Storage, sql: sqlite3.Connection) -> None:
    """A store whose upload is condemned between its last part and its publication fails, and no model appears."""
    model = b"x" * 3 * MIB
    store.store("first", model)
    [(parts,)] = sql.execute(PARTS).fetchall()
    condemned: list[str] = []

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if not condemned and not connection.in_transaction and sql.execute(PARTS).fetchone() == (2 * parts,):
            condemned.append(statement)
            condemn(sql)

    with watched(store.path, before), pytest.raises(UploadLostError):
        store.store("m", model)
    assert condemned and store.list() == ["first"] and leftovers(store) == NOTHING


def test_a_condemned_upload_gets_no_more_parts(store: Storage, sql: sqlite3.Connection) -> None:
    """A store whose upload is condemned writes no further part: nobody would clear it."""
    store.store("first", 1)
    later: list[str] = []
    condemned = False

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if condemned and "INTO model_parts" in statement:
            later.append(statement)

    def on_piece(number: int) -> None:
        nonlocal condemned
        if number == 7:
            condemn(sql)
            condemned = True

    with watched(store.path, before), pytest.raises(UploadLostError):
        store.store("m", Pieces(9, on_piece))
    assert condemned and later == []


def test_what_was_seen_of_an_upload(store: Storage, sql: sqlite3.Connection) -> None:
    """What other computers noted of an upload goes with it when it is published."""
    store.store("first", 1)

    def on_piece(number: int) -> None:
        if number == 7:
            sql.execute("INSERT INTO watches SELECT id, 'another', beat, 1 FROM uploads")

    store.store("m", Pieces(8, on_piece))
    assert sql.execute("SELECT * FROM watches").fetchall() == [] and leftovers(store) == NOTHING


def test_parts_in_a_transaction(store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction writes more than 12 parts of at most 1 MiB, however fast the disk is."""
    counts = [0]

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if statement.startswith("BEGIN"):
            counts.append(0)
        counts[-1] += "INTO model_parts" in statement

    store.store("first", 1)
    # A disk on which everything takes no time.
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with watched(store.path, before):
        store.store("m", bytes(31 * MIB))
    [(parts, largest)] = sql.execute("SELECT count(*), max(length(data)) FROM model_parts").fetchall()
    assert sum(counts) == parts and max(counts) <= 12 and largest <= MIB


def test_parts_that_are_deleted_in_a_transaction(
    store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction deletes more than 32 parts, so that its journal fits in what is reserved on a full disk."""
    store.store("m", 1)
    upload = leave(sql, {})
    sql.executemany("INSERT INTO model_parts VALUES (?, ?, x'00', x'00')", [(upload, part) for part in range(2, 201)])
    sql.execute(CONDEMN)
    left: list[int] = []

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if not connection.in_transaction:
            left.extend(sql.execute(PARTS).fetchone())

    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with watched(store.path, before):
        store.delete("m")
    assert leftovers(store) == NOTHING and left[0] == 200
    assert max(one - other for one, other in zip(left, left[1:])) <= 32


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A store with a model of 32 MiB."""
    store = Storage(tmp_path_factory.mktemp("large") / "models.db")
    store.store("m", bytes(32 * MIB))
    store.download("m", store.path.with_name("m.pickle"))
    return store


@pytest.mark.parametrize("verb", ["store", "upload", "download", "verify", "backup", "inspect"])
def test_memory_is_bounded(large: Storage, tmp_path: Path, verb: str) -> None:
    """However large a model is, storing it takes the memory of 12 parts and a few, and reading it about as much."""
    model, other = bytes(32 * MIB), Storage(tmp_path / "other.db")
    run: dict[str, Callable[[], object]] = {
        "store": lambda: other.store("m", model),
        "upload": lambda: other.upload(large.path.with_name("m.pickle"), "m"),
        "download": lambda: large.download("m", tmp_path / "m.pickle"),
        "verify": lambda: large.verify("m:1"),
        "backup": lambda: large.backup(tmp_path / "copy.db"),
        "inspect": lambda: large.inspect("m"),
    }
    tracemalloc.start()
    try:
        run[verb]()
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


# Which leftovers are cleared.


def owner(store: Storage) -> dict[str, Any]:
    """Return what a store of this process notes of itself while it writes parts."""
    found = []

    def on_piece(number: int) -> None:
        if number == 7:
            connection = sqlite3.connect(store.path)
            found.extend(connection.execute("SELECT owner FROM uploads").fetchall())
            connection.close()

    store.store("owned", Pieces(8, on_piece))
    store.delete("owned")
    [(text,)] = found
    return dict(json.loads(text))


def leave(sql: sqlite3.Connection, owner: dict[str, Any]) -> int:
    """Leave an upload with a part in the file, and return its id."""
    sql.execute("INSERT INTO uploads (owner, started_at) VALUES (?, '2026-11-23T08:00:00')", (json.dumps(owner),))
    [(upload,)] = sql.execute("SELECT max(id) FROM uploads").fetchall()
    sql.execute("INSERT INTO model_parts VALUES (?, 1, x'00', x'00')", (upload,))
    return int(upload)


def is_left(store: Storage, sql: sqlite3.Connection) -> bool:
    """Whether the upload is still there after somebody else has stored a model of several parts."""
    store.store("other", bytes(2 * MIB), overwrite=True)
    [(uploads,)] = sql.execute("SELECT count(*) FROM uploads").fetchall()
    [(watches,)] = sql.execute("SELECT count(DISTINCT upload) FROM watches").fetchall()
    assert leftovers(store)["parts"] == uploads >= watches
    return bool(uploads)


def stat_of(pid: int) -> tuple[str, int]:
    """Return the state of a process, and when it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


@pytest.fixture
def process() -> "Iterator[subprocess.Popen[bytes]]":
    """Another process, which ends when its input does."""
    need(sys.platform == "linux", "only Linux tells which process had an id")
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert child.stdin
    yield child
    child.stdin.close()
    child.wait(30)


def test_a_process_id_that_is_used_again(
    store: Storage, sql: sqlite3.Connection, process: "subprocess.Popen[bytes]"
) -> None:
    """The upload of a process that ended is cleared though another process has its id by now."""
    _, start = stat_of(process.pid)
    own = owner(store)
    leave(sql, {**own, "pid": process.pid, "start": start})
    assert is_left(store, sql)
    sql.execute(CONDEMN)
    assert not is_left(store, sql)
    leave(sql, {**own, "pid": process.pid, "start": start - 1})
    assert not is_left(store, sql)


def test_a_process_that_ended_and_was_not_waited_for(
    store: Storage, sql: sqlite3.Connection, process: "subprocess.Popen[bytes]"
) -> None:
    """The upload of a zombie is cleared."""
    assert process.stdin
    _, start = stat_of(process.pid)
    leave(sql, {**owner(store), "pid": process.pid, "start": start})
    assert is_left(store, sql)
    process.stdin.close()
    while stat_of(process.pid)[0] != "Z":
        time.sleep(0.001)
    assert not is_left(store, sql)


#: What a process of another computer notes of itself.
ELSEWHERE = {"user": "ines@elsewhere", "pid": 1, "kernel": "another", "start": 1, "token": "x"}

#: Seconds for which an upload from elsewhere must stand still.
STALE = 600


def test_a_clock_that_is_set_back(store: Storage, sql: sqlite3.Connection) -> None:
    """An upload from elsewhere that was seen in the future is watched anew, and cleared ten minutes later."""
    leave_elsewhere(store, sql)
    sql.execute("UPDATE watches SET since = since + 3600")
    assert is_left(store, sql)
    sql.execute("UPDATE watches SET since = since - ?", (STALE - 60,))
    assert is_left(store, sql)
    sql.execute("UPDATE watches SET since = since - 61")
    assert not is_left(store, sql)


@pytest.mark.parametrize("change", ["UPDATE watches SET host = 'another'", "UPDATE uploads SET beat = beat + 1"])
def test_what_stands_still(store: Storage, sql: sqlite3.Connection, change: str) -> None:
    """An upload is not cleared by another computer's clock, nor when it has gone on since it was seen."""
    leave_elsewhere(store, sql)
    sql.execute("UPDATE watches SET since = since - ?", (2 * STALE,))
    sql.execute(change)
    assert is_left(store, sql)
    assert sql.execute("SELECT count(*) FROM watches WHERE host <> 'another'").fetchall() == [(1,)]


def leave_elsewhere(store: Storage, sql: sqlite3.Connection) -> None:
    """Leave an upload from elsewhere in the file, and see it for the first time."""
    store.store("first", 1)
    leave(sql, ELSEWHERE)
    assert is_left(store, sql)
