"""Rows whose columns hold what this package does not write: they are reported, and the others are shown."""

import json
import os
import sqlite3
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.support.stores import NOTHING, behind_the_index, leftovers
from views_runs import Damage, Storage, StorageError
from views_runs.exceptions import RunNotFoundError

#: A column, a value in SQL that its type does not exclude, and what is said of it.
ODD = {
    "a text as size": ("size", "'abc'", "'abc' is not of the type int"),
    "a float as size": ("size", "1.5", "1.5 is not of the type int"),
    "bytes as user": ("stored_by", "x'61'", "b'a' is not of the type str"),
    "bytes as digest": ("sha256", "x'61'", "b'a' is not of the type str"),
    "a text as version": ("version", "'two'", "'two' is not of the type int"),
    "bytes as time": ("stored_at", "x'61'", "TypeError"),
    "no time": ("stored_at", "'yesterday'", "Invalid isoformat string"),
    "the year 0": ("stored_at", "'0000-01-01T00:00:00+00:00'", "year"),
    "the year 1": ("stored_at", "'0001-01-01T00:00:00+00:00'", "is out of range"),
    "the last year": ("stored_at", "'9999-12-31T23:59:59+00:00'", "is out of range"),
    "no environment": ("environment", "'[]'", "is not a JSON object"),
    "bytes as environment": ("environment", "x'00ff'", "cannot be read"),
}


@pytest.fixture
def others(store: Storage) -> Storage:
    """A store of three models, of which the second will be changed."""
    for name in ("first", "odd", "last"):
        store.store(name, name, {"author": "testuser"})
    return store


@pytest.mark.parametrize("column, value, said", ODD.values(), ids=ODD)
def test_odd_columns(
    others: Storage, sql: sqlite3.Connection, column: str, value: str, said: str, viewser: Callable[..., Result]
) -> None:
    """Each operation on the row is an error that says what is wrong; lists show the other rows."""
    sql.execute(f"UPDATE models SET {column} = {value} WHERE name = 'odd'")
    damaged: list[Damage] = []
    assert [record.name for record in others.find(sort="name", on_damage=damaged.append)] == ["first", "last"]
    [damage] = damaged
    assert damage.name == "odd" and said in damage.trouble
    listed = viewser("model", "list", exit_code=1)
    assert "first" in listed.stdout and "last" in listed.stdout and "odd" in listed.stderr
    assert "Traceback" not in listed.output
    for operation in (
        lambda: others.inspect("odd"),
        lambda: others.diff("odd", "first"),
        lambda: others.check("odd"),
        lambda: others.annotate("odd", note="x"),
        lambda: others.store("odd", 1),
        lambda: others.fetch_metadata("odd"),
        lambda: others.versions("odd"),
    ):
        with pytest.raises(StorageError):
            operation()
    assert [record.name for record, _ in others.check(on_damage=damaged.append)] == ["last", "first"]
    assert [found.name for found in others.verify().damaged] == ["odd"]
    assert others.fetch("first") == "first"
    assert others.delete("odd") is None
    assert others.list(sort="name") == ["first", "last"]


def test_a_time_without_an_offset(others: Storage, sql: sqlite3.Connection) -> None:
    """Times in the file are in UTC."""
    sql.execute("UPDATE models SET stored_at = '2026-01-31T12:00:00' WHERE name = 'odd'")
    assert others.inspect("odd").stored_at.isoformat() == "2026-01-31T12:00:00+00:00"


def test_odd_rows_of_the_other_tables(others: Storage, sql: sqlite3.Connection) -> None:
    """What is not the model's own row stops nothing."""
    sql.execute("INSERT INTO required_fields VALUES (x'617574686f72')")
    sql.execute("INSERT INTO uploads (owner, started_at, beat) VALUES (x'00', 5, 'many')")
    sql.execute("INSERT INTO watches VALUES ('no upload', x'00', 'no beat', 'long ago')")
    assert others.required() == ["author"]
    assert others.store("new", 1, {"author": "testuser"}).version == 1
    with pytest.raises(StorageError, match="requires author"):
        others.store("newer", 1)
    assert len(others.list()) == 4 and others.doctor()
    others.delete("first")


def test_odd_rows_of_runs(others: Storage, sql: sqlite3.Connection) -> None:
    """Bytes are neither the id of a run nor a time."""
    with others.run("2026-11") as run:
        run.add("first")
    sql.execute("INSERT INTO run_processes VALUES ('2026-11', '{}', x'00')")
    assert others.runs()[0].state == "running"
    sql.execute("UPDATE run_models SET version = 1000, number = x'00'")
    assert run.models()[0].version == 0
    sql.execute("UPDATE runs SET id = x'ff'")
    with pytest.raises(RunNotFoundError):
        others.run("2026-12").models()
    with pytest.raises(StorageError, match="the run b'.xff' cannot be read"):
        others.runs()


@pytest.mark.parametrize("changes", ['{"fields": [5]}', '{"fields": [[1, 2]]}', '{"models": 5}'])
def test_odd_changes(others: Storage, sql: sqlite3.Connection, viewser: Callable[..., Result], changes: str) -> None:
    """What an event says without words for it."""
    sql.execute("UPDATE events SET action = 'annotated', changes = ? WHERE id = 1", (changes,))
    assert "annotated first:1" in viewser("model", "log").stdout


@pytest.mark.parametrize("condemned", [0, 1])
def test_a_published_model_among_the_uploads(others: Storage, sql: sqlite3.Connection, condemned: int) -> None:
    """A row that says that its upload is to be cleared does not destroy a model."""
    model = os.urandom(2_500_000)
    others.store("large", model)
    owner = '{"user": "x", "pid": 1, "kernel": "another", "start": 1, "token": ""}'
    sql.execute(
        "INSERT INTO uploads (id, owner, started_at, condemned) SELECT upload, ?, stored_at, ? FROM models "
        "WHERE upload NOT NULL",
        (owner, condemned),
    )
    others.store("other", os.urandom(2_500_000))
    others.delete("other")
    assert others.fetch("large") == model and others.verify().damaged == ()


def test_a_published_model_among_the_uploads_is_deleted(others: Storage, sql: sqlite3.Connection) -> None:
    """Such a row does not stop the model from being deleted."""
    others.store("large", os.urandom(2_500_000))
    sql.execute("INSERT INTO uploads (id, owner, started_at) SELECT upload, '{}', '' FROM models WHERE upload NOT NULL")
    others.delete("large")
    assert leftovers(others) == NOTHING


def test_lines_are_not_forged(others: Storage, sql: sqlite3.Connection) -> None:
    """What others wrote into the file does not begin a line of its own in a message."""
    sql.execute("UPDATE models SET stored_by = 'x' || char(10) || 'FORGED', metadata = '{\"a\\nFORGED\": 1}'")
    sql.execute("INSERT INTO required_fields VALUES ('a' || char(10) || 'FORGED')")
    for operation in (
        lambda: others.store("new", 1),
        lambda: others.store("odd", 1, {"a\nFORGED": 1}),
        lambda: others.annotate("odd", unset=["missing"]),
    ):
        with pytest.raises(StorageError) as caught:
            operation()
        assert "FORGED" in str(caught.value) and "\nFORGED" not in str(caught.value)


def test_a_row_that_cannot_be_inspected(others: Storage, sql: sqlite3.Connection) -> None:
    """A model whose row and index differ does not keep the others from being checked."""
    right = others.inspect("odd").sha256
    sql.execute("UPDATE models SET environment = '{}', sha256 = 'x' WHERE name = 'odd'")
    behind_the_index(others.path, "models_record", f"UPDATE models SET sha256 = '{right}' WHERE name = 'odd'")
    verdicts = {record.name: verdict.verdict for record, verdict in others.check()}
    assert verdicts == {"first": "loads", "odd": "will not load", "last": "loads"}
    [damage] = others.verify().damaged
    assert "the digest of 'odd' differs between its row and the index. Restore the file from a backup" in damage.trouble


def test_rows_with_odd_ids(others: Storage, sql: sqlite3.Connection) -> None:
    """A row is read whatever its id is."""
    for id in (0, -5, -(2**63), 2**63 - 1):
        sql.execute("UPDATE models SET id = ?, pickle = x'00' WHERE name = 'odd'", (id,))
        assert [damage.name for damage in others.verify().damaged] == ["odd"]
        assert others.verify("odd").versions == 1


def test_names_and_versions_that_are_no_texts(
    others: Storage, sql: sqlite3.Connection, viewser: Callable[..., Result]
) -> None:
    """What cannot be shown as it is stops neither verify nor backup."""
    sql.execute("UPDATE models SET name = x'ff00', version = x'7b7d' WHERE name = 'odd'")
    result = viewser("model", "verify", "--json", exit_code=1)
    assert json.loads(result.stdout)["damaged"][0]["version"] == 0
    assert "b'\\xff" in viewser("model", "backup", "copy.db", exit_code=1).output
    assert [record.name for record in Storage("copy.db").find(sort="name")] == ["first", "last"]


def test_metadata_that_is_nested_too_deeply(others: Storage, sql: sqlite3.Connection) -> None:
    """What another program nested deeper than this package stores counts as no object, and stops nothing."""
    deep = '{"a":' * 900 + "1" + "}" * 900
    sql.execute("UPDATE models SET metadata = ? WHERE name = 'odd'", (deep,))
    assert [record.as_json()["metadata"] for record in others.find(sort="name")][2] is None
    with pytest.raises(StorageError, match="not a JSON object"):
        others.annotate("odd", note="x")
