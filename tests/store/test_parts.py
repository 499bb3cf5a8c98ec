"""Pickles of several parts: cut, verified before they are unpickled, and cleared."""

import hashlib
import io
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.budgets import budget
from tests.support.planted import plant
from tests.support.stores import NOTHING, damage, leftovers
from views_runs import (
    CorruptModelError,
    ModelLoadError,
    ModelNotFoundError,
    ModelPickleError,
    Storage,
    StorageError,
    StoreDamagedError,
)
from views_runs.database import uploads
from views_runs.database.connection import Connection
from views_runs.pickles.parts import PART_SIZE, PickleReader

#: What `Told` objects said when they were unpickled.
told: list[int] = []


def tell(number: int, ballast: bytes) -> "Told":
    told.append(number)
    return Told(number, ballast)


class Told:
    """An object that says when it is unpickled; with a whole part of ballast."""

    def __init__(self, number: int, ballast: bytes) -> None:
        self.number, self.ballast = number, ballast

    def __reduce__(self) -> Any:
        return tell, (self.number, self.ballast)


def telling(parts: int) -> list[Told]:
    """Return a model of so many parts, one object in each."""
    return [Told(number, os.urandom(PART_SIZE - 100)) for number in range(parts)]


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 100, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 20 * PART_SIZE + 7])
def test_any_size_comes_back(store: Storage, sql: sqlite3.Connection, size: int) -> None:
    """A model is there whole, in as many parts as it takes; its last digest is the whole pickle's."""
    model = os.urandom(size)
    record = store.store("m", model, {"size": size})
    assert store.fetch("m") == model
    count, last = sql.execute("SELECT count(*), max(part) FROM model_parts").fetchone()
    assert count == (0 if record.size < PART_SIZE else -(-record.size // PART_SIZE))
    if count:
        (digest,) = sql.execute("SELECT digest FROM model_parts WHERE part = ?", (last,)).fetchone()
        assert digest.hex() == record.sha256
    assert max(sql.execute("SELECT max(length(data)) FROM model_parts").fetchone()[0] or 0, 0) <= PART_SIZE < 1 << 20
    assert leftovers(store) == NOTHING


def test_arrays_in_any_order(store: Storage) -> None:
    """Large arrays reach the parts as buffers; columns first, strided and empty ones too."""
    np = pytest.importorskip("numpy")
    square = np.arange(1_000_000.0).reshape(1000, 1000)
    model = [square, np.asfortranarray(square), square[::2, ::3], square[:0], square.astype("f4").T]
    store.store("m", model)
    back = store.fetch("m")
    assert all((one == two).all() and one.dtype == two.dtype for one, two in zip(model, back, strict=True))


def test_read_without_this_package(store: Storage, sql: sqlite3.Connection) -> None:
    """The parts in their order are a plain pickle."""
    model = os.urandom(3 * PART_SIZE)
    store.store("m", model)
    first, upload = sql.execute("SELECT pickle, upload FROM models").fetchone()
    rest = sql.execute("SELECT data FROM model_parts WHERE upload = ? ORDER BY part", (upload,)).fetchall()
    assert pickle.loads(first + b"".join(data for (data,) in rest)) == model


@pytest.mark.parametrize("part", [0, 1, 2, 3, 6])
def test_nothing_from_the_damage_on_is_unpickled(store: Storage, sql: sqlite3.Connection, part: int) -> None:
    """One flipped byte: what is before it may be unpickled, what is after it never is."""
    store.store("m", telling(7))
    damage(sql, part)
    told.clear()
    with pytest.raises(CorruptModelError) as caught:
        store.fetch("m")
    assert f"part {part} " in str(caught.value) and str(store.path) in str(caught.value) and "'m'" in str(caught.value)
    assert all(number <= part for number in told) and told == list(range(len(told)))
    assert part not in told


def test_a_flipped_byte_in_a_small_model(store: Storage, sql: sqlite3.Connection) -> None:
    """A model of one part is verified before it is unpickled."""
    store.store("m", Told(7, b"x" * 1000))
    damage(sql, 0)
    told.clear()
    with pytest.raises(CorruptModelError, match="is damaged"):
        store.fetch("m")
    assert told == []


@pytest.mark.abridged
def test_any_flipped_byte_of_the_file(store: Storage, tmp_path: Path) -> None:
    """Wherever a byte of the file is flipped: the right model, or an error, and never another model."""
    small, large = [1, "two", 3.0], os.urandom(2 * PART_SIZE + 500)
    store.store("small", small, {"author": "testuser"})
    store.store("large", large)
    whole = store.path.read_bytes()
    right = wrong = 0
    for offset in [*range(0, 300, 300 // budget(100)), *range(300, len(whole), len(whole) // budget(300))]:
        broken = tmp_path / "broken.db"
        broken.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x41]) + whole[offset + 1 :])
        for name, model in (("small", small), ("large", large)):
            try:
                assert Storage(broken, timeout=1).fetch(name) == model
                right += 1
            except StorageError as error:
                assert str(broken) in str(error)
                wrong += 1
    assert right and wrong


@pytest.mark.parametrize(
    "change, said",
    [
        ("DELETE FROM model_parts WHERE part = 2", "part 2 of its pickle"),
        ("UPDATE model_parts SET data = 5 WHERE part = 2", "a part cannot be read"),
        ("UPDATE model_parts SET data = zeroblob(2000000) WHERE part = 2", "more than were stored"),
        ("UPDATE model_parts SET data = x'00' WHERE part = 2", "part 2 of its pickle"),
        ("UPDATE model_parts SET digest = NULL WHERE part = 2", "NOT NULL"),
        ("UPDATE models SET digest = x'00'", "part 0 of its pickle"),
        ("UPDATE model_parts SET digest = x'00' WHERE part = 1", "part 1 of its pickle"),
        ("UPDATE model_parts SET digest = 'text' WHERE part = 2", "part 2 of its pickle"),
        ("UPDATE models SET pickle = x''", "part 0 of its pickle is empty"),
        (
            "INSERT INTO model_parts (upload, part, digest, data) "
            "SELECT upload, 2.5, digest, x'' FROM model_parts WHERE part = 2",
            "part 3 of its pickle is empty",
        ),
        ("UPDATE models SET size = size - 1", "bytes, not"),
        ("UPDATE models SET size = size + 1", "bytes, not"),
        ("UPDATE models SET sha256 = 'other'", "the digest of the whole"),
        ("UPDATE models SET pickle = 'text'", "part 0 of its pickle"),
        ("UPDATE models SET upload = NULL", "is damaged"),
        ("UPDATE models SET upload = 77", "bytes, not"),
    ],
)
def test_rows_that_do_not_fit(store: Storage, sql: sqlite3.Connection, change: str, said: str) -> None:
    """What another program did to the rows is damage too."""
    store.store("m", os.urandom(3 * PART_SIZE))
    try:
        sql.execute(change)
    except sqlite3.IntegrityError as error:
        assert said in str(error)
        return
    with pytest.raises(CorruptModelError, match=said):
        store.fetch("m")


def test_deleted_while_it_is_read(store: Storage) -> None:
    """The reader is told that the model is gone, and does not call it damaged."""
    store.store("m", os.urandom(24 * PART_SIZE))

    class Deleting(io.BytesIO):
        def write(self, data: Any) -> int:
            if store.exists("m"):
                store.delete("m")
            return super().write(data)

    with pytest.raises(ModelNotFoundError, match="deleted while being read"):
        store.write_pickle("m", Deleting())


def test_deleted_and_its_place_taken_while_it_is_read(store: Storage) -> None:
    """The rows of its parts can become those of another model: that is no damage, and nothing of it is returned."""
    model = os.urandom(20 * PART_SIZE)
    store.store("m", model)

    class Replacing(io.BytesIO):
        def write(self, data: Any) -> int:
            if store.exists("m"):
                store.delete("m")
                store.store("n", os.urandom(20 * PART_SIZE))
            return super().write(data)

    file = Replacing()
    with pytest.raises(ModelNotFoundError, match="deleted while being read"):
        store.write_pickle("m", file)
    assert pickle.dumps(model, 5).startswith(file.getvalue())


def test_overwritten_while_it_is_read(store: Storage) -> None:
    """The reader gets the version that it began with."""
    model = os.urandom(24 * PART_SIZE)
    first = store.store("m", model)

    class Overwriting(io.BytesIO):
        def write(self, data: Any) -> int:
            store.store("m", "another", overwrite=True)
            return super().write(data)

    file = Overwriting()
    assert store.write_pickle("m", file) == first
    assert pickle.loads(file.getvalue()) == model


@pytest.mark.parametrize("parts", [0, 3, 15])
def test_what_cannot_be_pickled_leaves_nothing(store: Storage, parts: int) -> None:
    """However much of it was written when that came out."""
    store.store("first", 1)
    with pytest.raises(ModelPickleError, match="a builtins.list cannot be pickled because of") as caught:
        store.store("m", [os.urandom(parts * PART_SIZE), lambda: None])
    assert caught.value.__cause__ is not None
    assert store.list() == ["first"]
    assert leftovers(store) == NOTHING


def test_what_cannot_be_pickled_makes_no_file(store: Storage) -> None:
    """A store that was not there yet is not made for nothing."""
    with pytest.raises(ModelPickleError):
        store.store("m", lambda: None)
    assert not store.path.exists()


def fail() -> None:
    raise RuntimeError("not here")


class Failing:
    def __reduce__(self) -> Any:
        return fail, ()


@pytest.mark.parametrize("size", [0, 20 * PART_SIZE])
def test_what_cannot_be_loaded(store: Storage, size: int) -> None:
    """The error names the model and the file, and carries the reason."""
    store.store("m", [Failing(), os.urandom(size)])
    with pytest.raises(ModelLoadError, match="RuntimeError: not here") as caught:
        store.fetch("m")
    assert str(store.path) in str(caught.value) and "'m'" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x95", b"\x96"])
def test_a_length_beyond_the_end(store: Storage, opcode: bytes) -> None:
    """However long a text, bytes or a frame are said to be, no more memory is filled than there are bytes."""
    plant(store, "m", b"\x80\x05" + opcode + (2**29).to_bytes(8, "little") + b"N" * 3 * PART_SIZE + b".")
    resource = pytest.importorskip("resource", reason="only Unix says how much memory was used")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelLoadError, match="truncated|ran out of input|exhausted"):
        store.fetch("m")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**26 // 1024


def test_reading_across_parts() -> None:
    """A reader returns what it is asked for from any number of parts, and less at the end."""
    reader = PickleReader(iter(map(memoryview, (b"ab", b"cde\nf", b"g"))))
    assert [reader.read(1), reader.read(0), reader.read(3), reader.readline()] == [b"a", b"", b"bcd", b"e\n"]
    buffer = bytearray(5)
    assert (reader.readinto(buffer), buffer, reader.read(9)) == (2, b"fg\0\0\0", b"")
    assert PickleReader(iter([memoryview(b"abc")])).read(2**62) == b"abc"


def test_space_is_used_again_and_given_back(store: Storage) -> None:
    """A deleted model leaves a file as small as before it, and its parts are gone."""
    store.store("small", 1)
    before = store.path.stat().st_size
    for name in ("one", "two", "three"):
        store.store(name, os.urandom(10 * PART_SIZE))
    large = store.path.stat().st_size
    store.delete("two")
    assert store.path.stat().st_size < large - 9 * PART_SIZE
    assert len(store.fetch("one")) == len(store.fetch("three")) == 10 * PART_SIZE
    store.delete("one")
    store.delete("three")
    assert store.path.stat().st_size <= before + 2 * 16384
    assert leftovers(store) == NOTHING
    journal = store.path.with_name("models.db-journal")
    assert journal.stat().st_size == 1 << 20


def test_space_is_given_back_though_others_read(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step has done is not done again because a reader is there when it commits."""
    store.store("m", os.urandom(4 * PART_SIZE))
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    give_back = uploads.give_back

    def beside_a_reader(connection: Connection, progress: object) -> None:
        reader = connect(store.path, isolation_level=None, check_same_thread=False)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM models").fetchall()
        timer = threading.Timer(0.5, reader.close)
        timer.start()
        give_back(connection)
        timer.join()

    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(uploads, "give_back", beside_a_reader)
    store.delete("m")
    pages = 4 * PART_SIZE // 16384
    moved = sum("incremental_vacuum" in statement for statement in statements)
    assert pages / 2 < moved < 2 * pages, moved


@pytest.mark.parametrize("size", [0, -1, "NULL + 5", "'text'"])
def test_a_size_that_cannot_be(store: Storage, sql: sqlite3.Connection, size: object) -> None:
    """A damaged size is damage: nothing is written, and nothing is called whole."""
    store.store("small", [1])
    store.store("large", os.urandom(3 * PART_SIZE))
    try:
        sql.execute(f"UPDATE models SET size = {size}")
    except sqlite3.IntegrityError:
        return
    for name in ("small", "large"):
        with pytest.raises(CorruptModelError, match="is damaged"):
            store.fetch(name)
        with pytest.raises((CorruptModelError, StoreDamagedError), match="is damaged"):
            store.download(name)
    assert os.listdir() == []


def test_an_index_that_leads_to_another_model(store: Storage) -> None:
    """What an index says is held against the row: never another model, and never another one deleted."""
    for name in ("zero", "aaaa", "bbbb"):
        store.store(name, name)
    whole = store.path.read_bytes()
    # An entry of the unique index: its header, the name, and the row's id.
    entries = [b"\x04\x15\x09\x01aaaa\x02", b"\x04\x15\x09\x01bbbb\x03"]
    assert [whole.count(entry) for entry in entries] == [1, 1]
    for entry, other in zip(entries, (b"\x03", b"\x02")):
        whole = whole.replace(entry, entry[:-1] + other)
    store.path.write_bytes(whole)
    for operation in (store.fetch, store.inspect, store.delete, store.download, store.exists):
        with pytest.raises(StoreDamagedError, match="leads from 'aaaa:1' to another model"):
            operation("aaaa")
    assert sorted(record.name for record in store.find()) == ["aaaa", "bbbb", "zero"]


def test_fetched_while_the_interpreter_ends(store: Storage) -> None:
    """No thread can be started then; the digests are taken without."""
    store.store("m", os.urandom(20 * PART_SIZE))
    code = f"""
import atexit
from views_runs import Storage
atexit.register(lambda: print(len(Storage({str(store.path)!r}).fetch("m"))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (f"{20 * PART_SIZE}\n", "")


def test_a_file_that_takes_less_than_it_is_given(store: Storage) -> None:
    """A raw file may; the rest is written again."""

    class Reluctant(io.RawIOBase):
        data = b""

        def write(self, data: Any) -> int:
            self.data += bytes(data[:100_000])
            return min(len(data), 100_000)

    record = store.store("m", os.urandom(3 * PART_SIZE))
    file = Reluctant()
    store.write_pickle("m", file)  # type: ignore[arg-type]
    assert hashlib.sha256(file.data).hexdigest() == record.sha256


def test_a_page_of_another_row(store: Storage, tmp_path: Path) -> None:
    """A row that continues on a page which a torn copy has from an older row is damaged: its digests are that row's."""
    metadata = {"note": "x" * 20_000}
    store.store("old", "the old model", metadata)
    older = store.path.read_bytes()
    store.delete("old")
    store.store("new", "the new model", metadata)
    newer = store.path.read_bytes()
    answers = set()
    for start in range(0, len(older), 16384):
        page = slice(start, start + 16384)
        if older[page] != newer[page]:
            store.path.write_bytes(newer[: page.start] + older[page] + newer[page.stop :])
            try:
                answers.add(store.fetch("new"))
            except StorageError:
                answers.add("an error")
            with suppress(StorageError):
                assert store.verify().damaged or store.fetch("new") == "the new model"
                copy = store.backup(tmp_path / f"{start}.db")
                assert copy.damaged or Storage(copy.path).fetch("new") == "the new model"
    assert answers == {"the new model", "an error"}


def test_a_damaged_digest(store: Storage, sql: sqlite3.Connection) -> None:
    """The bytes are intact, and the model can be fetched; `verify` finds the digest of each part."""
    store.store("m", b"x" * 9_000_000)
    for part in range(1, 9):
        [(digest,)] = sql.execute("SELECT digest FROM model_parts WHERE part = ?", (part,)).fetchall()
        sql.execute("UPDATE model_parts SET digest = ? WHERE part = ?", (digest[::-1], part))
        assert [damage.name for damage in store.verify().damaged] == ["m"]
        sql.execute("UPDATE model_parts SET digest = ? WHERE part = ?", (digest, part))
    assert store.verify().damaged == () and store.fetch("m") == b"x" * 9_000_000
