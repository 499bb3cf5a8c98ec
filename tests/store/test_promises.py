"""What a store promises of its file, of its ids, and of what others do between two of its steps."""

import hashlib
import io
import os
import sqlite3
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.pieces import MIB
from tests.support.watched import between, watched
from views_runs import Storage, StoreDamagedError


def test_the_settings_of_whoever_writes(store: Storage) -> None:
    """Each connection that writes syncs before it acknowledges, and keeps a rollback journal that no share loses."""
    names = ("synchronous", "journal_mode", "mmap_size", "secure_delete", "journal_size_limit", "auto_vacuum")
    seen: dict[str, tuple[object, ...]] = {}

    def before(connection: sqlite3.Connection, statement: str) -> None:
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            values = [sqlite3.Cursor(connection).execute(f"PRAGMA {name}").fetchall() for name in names]
            seen[statement] = tuple(value for [(value,)] in values)

    with watched(store.path, before):
        store.store("m", bytes(2 * MIB), {"author": "testuser"})
        store.annotate("m", note="x")
        store.require("author")
        store.delete("m")
    assert {statement.split()[0] for statement in seen} == {"INSERT", "UPDATE", "DELETE"}
    assert set(seen.values()) == {(2, "persist", 0, 2, 1 << 20, 2)}


def test_ids_are_never_used_again(store: Storage, sql: sqlite3.Connection) -> None:
    """A model or an upload that was deleted leaves its id to nobody, though it was the highest."""
    seen: list[tuple[int, int]] = []
    for number in range(3):
        store.store(f"m{number}", bytes(2 * MIB))
        seen += sql.execute("SELECT id, upload FROM models").fetchall()
        store.delete(f"m{number}")
    models, uploads = zip(*seen)
    assert sorted(set(models)) == list(models) and sorted(set(uploads)) == list(uploads)


@pytest.mark.parametrize(("folder", "bits"), [(0o755, 0), (0o775, 0o060)])
def test_a_new_store_is_the_group_s_if_its_folder_is(tmp_path: Path, folder: int, bits: int) -> None:
    """The group may write a new store and its journal if it may write their folder, and not otherwise."""
    need(os.name == "posix", "there are no mode bits")
    path = tmp_path / "team" / "models.db"
    path.parent.mkdir()
    path.parent.chmod(folder)
    before = os.umask(0o077)
    try:
        Storage(path).store("m", 1)
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o070 for file in path.parent.iterdir()} == {
        "models.db": bits,
        "models.db-journal": bits,
    }


READS: dict[str, Callable[[Storage], object]] = {
    "fetch": lambda store: store.fetch("forest:3"),
    "inspect": lambda store: store.inspect("forest:3"),
    "fetch_metadata": lambda store: store.fetch_metadata("forest", 3),
    "write_pickle": lambda store: store.write_pickle("forest:3", io.BytesIO()),
    "exists": lambda store: store.exists("forest:3"),
    "annotate": lambda store: store.annotate("forest:3", note="x"),
    "store_metadata": lambda store: store.store_metadata("forest:3", {}, overwrite=True),
    "delete": lambda store: store.delete("forest:3"),
    "fetch the current": lambda store: store.fetch("forest"),
    "inspect the current": lambda store: store.inspect("forest"),
    "annotate the current": lambda store: store.annotate("forest", note="x"),
}


@pytest.mark.parametrize("verb", READS)
def test_an_index_that_leads_to_another_version(store: Storage, verb: str) -> None:
    """Where an index leads from a version to another one, that is damage: the other one is not taken for it."""
    for number in (1, 2, 3):
        store.store("forest", number, {"number": number}, overwrite=True)
    # In the index of names and versions these are: name, version, id.
    data = store.path.read_bytes()
    assert data.count(b"forest\x03\x03") == 1
    store.path.write_bytes(data.replace(b"forest\x03\x03", b"forest\x03\x02"))
    with pytest.raises(StoreDamagedError):
        READS[verb](store)
    assert [record.metadata for record in store.versions("forest")] == [{"number": 3}, {"number": 2}, {"number": 1}]
    assert store.fetch("forest:2") == 2


# What others do between two steps.


KINDS = (Counter, Decimal, Fraction, OrderedDict, Path, deque)


def overwriting(store: Storage) -> Callable[[], None]:
    """Return what stores another version at each call, which imports something else than the one before."""

    def store_one() -> None:
        number = len(store.versions("m")) + 1
        store.store("m", KINDS[number % len(KINDS)], {"number": number}, overwrite=True)

    return store_one


def test_a_version_that_is_stored_while_another_is_written(store: Storage) -> None:
    """The bytes that are written are those of the version whose record is returned."""
    store.store("m", 1, {"number": 1})
    file = io.BytesIO()
    with watched(store.path, between(overwriting(store))):
        record = store.write_pickle("m", file)
    assert len(store.versions("m")) > 2
    assert (record.sha256, record.size) == (hashlib.sha256(file.getvalue()).hexdigest(), len(file.getvalue()))
    assert store.inspect("m", record.version).sha256 == record.sha256


def test_a_version_that_is_stored_while_another_is_inspected(store: Storage) -> None:
    """What is said of a version is read from its own bytes."""
    store.store("m", 1, {"number": 1})
    with watched(store.path, between(overwriting(store))):
        record = store.inspect("m")
    again = store.inspect("m", record.version)
    assert record.imports and len(store.versions("m")) > 2
    assert (record.metadata, record.imports, record.sha256) == (again.metadata, again.imports, again.sha256)


def test_a_version_that_is_stored_while_another_is_annotated(store: Storage) -> None:
    """A note goes to the version whose metadata it was added to, and to no other."""
    store.store("m", 1, {"number": 1})
    with watched(store.path, between(overwriting(store))):
        record = store.annotate("m", note="x")
    found = {one.version: one.metadata for one in store.versions("m")}
    assert len(found) > 2 and found == {version: {"number": version} for version in found} | {
        record.version: {"number": record.version, "note": "x"}
    }


def test_two_that_annotate_at_once(store: Storage) -> None:
    """What another annotates between any two steps is kept."""
    store.store("m", 1)
    fields: list[str] = []

    def annotate() -> None:
        fields.append(f"field{len(fields)}")
        store.annotate_fields("m", {fields[-1]: True})

    with watched(store.path, between(annotate)):
        store.annotate("m", note=True)
    assert len(fields) > 2 and {*store.fetch_metadata("m")} == {*fields, "note"}


# What find compares.


@pytest.mark.parametrize("field", ["draft", "tuning.draft"])
def test_true_and_false_are_no_numbers(store: Storage, field: str) -> None:
    """A list of truth values finds these, and one of numbers finds numbers."""
    values: dict[str, Any] = {"true": True, "false": False, "one": 1, "zero": 0, "float": 1.0, "text": "1"}
    for name, value in values.items():
        store.store(name, 1, {"tuning": {"draft": value}} if "." in field else {"draft": value})
    for wanted, names in (
        ([True, False], ["false", "true"]),
        ([True], ["true"]),
        ([0, False], ["zero", "false"]),
        ([1, 0], ["float", "zero", "one"]),
        (["1", True], ["text", "true"]),
    ):
        assert store.list(**{field: wanted}) == names
