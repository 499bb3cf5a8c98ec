"""A store whose tables are not as this package creates them is refused before anything is read from them."""

import sqlite3

import pytest

from tests.support.refusal import refused
from tests.support.stores import COLUMNS, OWN_TABLES
from views_runs import Storage
from views_runs.exceptions import StoreDamagedError

#: Never ends, and takes more and more memory.
ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION SELECT x + 1 FROM r) SELECT"



@pytest.mark.parametrize("name", OWN_TABLES)
def test_views_that_never_end(store: Storage, sql: sqlite3.Connection, name: str) -> None:
    """Nothing is read from a view in the place of a table, whatever the case of its name."""
    store.store("m", 1)
    sql.execute(f"DROP TABLE {name}")
    columns = ", ".join(f"x AS {column}" for column in COLUMNS[name])
    sql.execute(f"CREATE VIEW {name.title()} AS {ENDLESS} {columns} FROM r")
    refused(store, StoreDamagedError, f"'{name.title()}' is a view")
    findings = [finding for finding in store.doctor() if finding.state == "failure"]
    assert [finding.topic for finding in findings] == ["file"] and name.title() in findings[0].text


@pytest.mark.parametrize("name", OWN_TABLES)
def test_generated_columns(store: Storage, sql: sqlite3.Connection, name: str) -> None:
    """A column that is computed when it is read can be of any size."""
    store.store("m", 1)
    *first, last = COLUMNS[name]
    sql.execute(f"DROP TABLE {name}")
    sql.execute(f"CREATE TABLE {name} ({', '.join([*first, 'more'])}, {last} AS (zeroblob(1000000000)))")
    refused(store, StoreDamagedError, rf"the table '{name}' has the columns .*{last}  GENERATED")


@pytest.mark.parametrize("name", OWN_TABLES)
def test_triggers(store: Storage, sql: sqlite3.Connection, name: str) -> None:
    """A trigger can change what a statement does."""
    store.store("m", 1)
    sql.execute(f"CREATE TRIGGER other AFTER DELETE ON {name} BEGIN DELETE FROM models; END")
    refused(store, StoreDamagedError, "'other' is a trigger")


@pytest.mark.parametrize("name", OWN_TABLES)
def test_tables_and_columns_that_are_missing(store: Storage, sql: sqlite3.Connection, name: str) -> None:
    """The message names the table."""
    store.store("m", 1)
    sql.execute(f"DROP TABLE {name}")
    refused(store, StoreDamagedError, f"the file lacks the table '{name}'")
    sql.execute(f"CREATE TABLE {name} (only_this)")
    refused(store, StoreDamagedError, f"the table '{name}' has the columns only_this ")


def test_virtual_tables(store: Storage, sql: sqlite3.Connection) -> None:
    """A virtual table runs code when it is read."""
    store.store("m", 1)
    sql.execute("DROP TABLE required_fields")
    try:
        sql.execute("CREATE VIRTUAL TABLE required_fields USING fts5(field)")
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite has no FTS5: {error}")
    refused(store, StoreDamagedError, "'required_fields' is a virtual table")


def test_what_a_team_adds(store: Storage, sql: sqlite3.Connection) -> None:
    """Other tables, views, indexes and statistics are left alone, and never read."""
    store.store("m", 1, {"author": "testuser"})
    sql.executescript(
        f"""
        CREATE TABLE team (note, doubled AS (note || note));
        CREATE VIEW endless AS {ENDLESS} x FROM r;
        CREATE VIEW broken AS SELECT * FROM missing;
        CREATE INDEX by_author ON models (json_extract(metadata, '$.author'));
        CREATE TRIGGER on_team AFTER INSERT ON team BEGIN DELETE FROM team; END;
        ANALYZE models;
        """
    )
    assert store.store("n", 2).version == 1 and store.list(sort="name") == ["m", "n"]
    assert store.fetch("m") == 1 and store.verify().damaged == ()
    store.delete("n")
    assert {finding.state for finding in store.doctor() if finding.topic == "file"} == {"ok"}
