"""The layout of the store file: create it, upgrade it, and refuse other files."""

import logging
import os
from typing import Any

from views_runs.conditions import CURRENT
from views_runs.database.connection import Connection
from views_runs.exceptions import NotAStoreError, StorageError, StoreDamagedError

log = logging.getLogger("views_runs")

#: ``PRAGMA application_id``: "VwRn" in ASCII.
APPLICATION_ID = 0x5677526E

#: ``PRAGMA user_version``: incremented when earlier versions of this package can no longer read or write the file.
SCHEMA_VERSION = 2

#: The first version of this package that can read it.
FIRST_RELEASE = "2.1.0"

# Large pages: a part takes 64 pages to read rather than 256, and a row's metadata is on the same page as the row.
# Both settings must precede the first table.
NEW_FILE = """
PRAGMA page_size = 16384;
PRAGMA auto_vacuum = INCREMENTAL;
"""

# IF NOT EXISTS: if two programs create or upgrade the file at the same time, the second has nothing left to do.
FIRST_TABLES = """
-- One row for each version of each model.
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused; later models have higher ids
    name TEXT NOT NULL,
    version INTEGER NOT NULL,              -- the highest of each name is current, unless another was restored
    stored_at TEXT NOT NULL,               -- UTC, ISO 8601 with microseconds
    stored_by TEXT NOT NULL,               -- user@host
    metadata TEXT                          -- JSON; NULL = no metadata
        CHECK (metadata IS NULL OR json_valid(metadata)),
    datetimes TEXT,                        -- JSON list of the paths in metadata that were datetimes or dates
    environment TEXT NOT NULL,             -- JSON object: type, python, platform, protocol
    size INTEGER NOT NULL,                 -- of the whole pickle, in bytes
    sha256 TEXT NOT NULL,                  -- of the whole pickle
    digest BLOB NOT NULL,                  -- SHA-256 of the first part
    upload INTEGER UNIQUE,                 -- of the parts after the first; NULL = only one part
    pickle BLOB NOT NULL,                  -- the whole pickle, or its first part
    UNIQUE (name, version)
);

-- All columns of a record, so that listing and searching read no pickles.
CREATE INDEX IF NOT EXISTS models_record ON models (
    id, name, version, stored_at, stored_by, metadata, datetimes, environment, size, sha256
);

-- The parts of a pickle after the first; never changed once written.
CREATE TABLE IF NOT EXISTS model_parts (
    upload INTEGER NOT NULL,
    part INTEGER NOT NULL,                 -- 1, 2, ...: the first part, 0, is in models.pickle
    digest BLOB NOT NULL,                  -- SHA-256 of the pickle up to the end of this part
    data BLOB NOT NULL,
    UNIQUE (upload, part)
);

-- Models that are being stored, and uploads that are no longer needed.
CREATE TABLE IF NOT EXISTS uploads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,                   -- JSON object: the process that writes it
    started_at TEXT NOT NULL,
    beat INTEGER NOT NULL DEFAULT 0,       -- incremented by every transaction that writes parts
    condemned INTEGER NOT NULL DEFAULT 0   -- 1 = its parts are being deleted
);

-- Since when, by its own clock, each host has seen an upload make no progress.
CREATE TABLE IF NOT EXISTS watches (
    upload INTEGER NOT NULL,
    host TEXT NOT NULL,
    beat INTEGER NOT NULL,
    since REAL NOT NULL,                   -- seconds since 1970
    PRIMARY KEY (upload, host)
) WITHOUT ROWID;

-- The metadata fields that every model in this file must have.
CREATE TABLE IF NOT EXISTS required_fields (
    field TEXT PRIMARY KEY
) WITHOUT ROWID;
"""

# In layout 1, `names` had only the columns name and versions; the other tables did not exist.
LATER_TABLES = """
-- One row for each name that a model ever had, or that a run expects. Its id is the number of the model with that name,
-- also after it is renamed.
CREATE TABLE IF NOT EXISTS names (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,                      -- NULL = a deleted model whose name another one was given
    versions INTEGER NOT NULL,             -- the highest version ever given, so that no number is given again
    renamed_to INTEGER                     -- names.id of the model that had this name
);

-- The models whose current version is not the highest.
CREATE TABLE IF NOT EXISTS restored (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,              -- models.id of the current version
    highest INTEGER NOT NULL               -- the highest version then; a higher one is current instead
) WITHOUT ROWID;

-- Aliases of versions.
CREATE TABLE IF NOT EXISTS aliases (
    model INTEGER NOT NULL,                -- names.id
    alias TEXT NOT NULL,
    version INTEGER NOT NULL,              -- models.id
    PRIMARY KEY (model, alias)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS aliases_version ON aliases (version);

-- The log, in the order of the changes, even if clocks were wrong. Rows are only added.
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,                      -- UTC, ISO 8601 with microseconds
    by TEXT NOT NULL,                      -- user@host
    action TEXT NOT NULL,                  -- stored, annotated, restored, deleted, ...
    model INTEGER,                         -- names.id; NULL = it concerns the whole store, or a run
    version INTEGER,                       -- models.id; NULL = it concerns all versions
    number INTEGER,                        -- models.version at that time
    run TEXT,                              -- runs.id
    changes TEXT,                          -- JSON object, depending on the action
    why TEXT
);

CREATE INDEX IF NOT EXISTS events_model ON events (model);

-- Runs: sets of versions, at most one of each model.
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    started_by TEXT NOT NULL,
    ended_at TEXT,                         -- when a process last left it; NULL = none has
    succeeded INTEGER                      -- whether that process left without an error, 0 or 1
) WITHOUT ROWID;

-- The processes that are in a run.
CREATE TABLE IF NOT EXISTS run_processes (
    run TEXT NOT NULL,                     -- runs.id
    owner TEXT NOT NULL,                   -- JSON object: the process
    entered_at TEXT NOT NULL,
    PRIMARY KEY (run, owner)
) WITHOUT ROWID;

-- The models of runs: those that a run used, and those that it should use.

CREATE TABLE IF NOT EXISTS run_models (
    run TEXT NOT NULL,                     -- runs.id
    model INTEGER NOT NULL,                -- names.id
    version INTEGER,                       -- models.id, also of a version that was deleted since; NULL = none yet
    number INTEGER,                        -- models.version at that time
    trained INTEGER,                       -- 1 = trained in the run, 0 = reused by it
    expected INTEGER NOT NULL DEFAULT 0,   -- 1 = the run is not complete without this model
    PRIMARY KEY (run, model)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS run_models_version ON run_models (version);
"""

# For people with an SQL tool, which would read whole pickles from `models`. Nothing in this package reads it.
VIEW = f"""
CREATE VIEW IF NOT EXISTS model_records AS
SELECT name, version, {CURRENT} AS current,
    (SELECT group_concat(alias, ' ') FROM aliases WHERE aliases.version = models.id) AS aliases,
    stored_at, stored_by, environment ->> '$.type' AS type, size, sha256, metadata
FROM models INDEXED BY models_record
"""

#: What creates the tables of each layout. The first is for copies of files that have it.
SCHEMAS = {
    1: f"{FIRST_TABLES}CREATE TABLE names (name TEXT PRIMARY KEY, versions INTEGER NOT NULL) WITHOUT ROWID",
    2: f"{FIRST_TABLES}{LATER_TABLES}{VIEW}",
}

#: What `LAYOUT` returns for a store: the name, type and columns of each table.
TABLES = [
    ("aliases", "table", "model INTEGER PRIMARY KEY, alias TEXT PRIMARY KEY, version INTEGER"),
    (
        "events",
        "table",
        "id INTEGER PRIMARY KEY, at TEXT, by TEXT, action TEXT, model INTEGER, version INTEGER, number INTEGER, "
        "run TEXT, changes TEXT, why TEXT",
    ),
    ("model_parts", "table", "upload INTEGER, part INTEGER, digest BLOB, data BLOB"),
    (
        "models",
        "table",
        "id INTEGER PRIMARY KEY, name TEXT, version INTEGER, stored_at TEXT, stored_by TEXT, metadata TEXT, "
        "datetimes TEXT, environment TEXT, size INTEGER, sha256 TEXT, digest BLOB, upload INTEGER, pickle BLOB",
    ),
    ("names", "table", "id INTEGER PRIMARY KEY, name TEXT, versions INTEGER, renamed_to INTEGER"),
    ("required_fields", "table", "field TEXT PRIMARY KEY"),
    ("restored", "table", "name TEXT PRIMARY KEY, version INTEGER, highest INTEGER"),
    (
        "run_models",
        "table",
        "run TEXT PRIMARY KEY, model INTEGER PRIMARY KEY, version INTEGER, number INTEGER, trained INTEGER, "
        "expected INTEGER",
    ),
    ("run_processes", "table", "run TEXT PRIMARY KEY, owner TEXT PRIMARY KEY, entered_at TEXT"),
    ("runs", "table", "id TEXT PRIMARY KEY, started_at TEXT, started_by TEXT, ended_at TEXT, succeeded INTEGER"),
    ("sqlite_sequence", "table", "name , seq "),
    ("uploads", "table", "id INTEGER PRIMARY KEY, owner TEXT, started_at TEXT, beat INTEGER, condemned INTEGER"),
    ("watches", "table", "upload INTEGER PRIMARY KEY, host TEXT PRIMARY KEY, beat INTEGER, since REAL"),
]

#: The tables that layout 1 lacks, and its table `names`.
LATER = {"aliases", "events", "restored", "run_models", "run_processes", "runs"}
FIRST_NAMES = ("names", "table", "name TEXT PRIMARY KEY, versions INTEGER")

# A view or a generated column in the place of one of these can run for ever and fill the memory, and a trigger can
# change what a statement does. What else is in the file is not ours, and is never read.
LAYOUT = f"""
SELECT s.name, iif(s.type = 'table' AND s.rootpage = 0, 'virtual table', s.type),
    (
        SELECT group_concat(
            c.name || ' ' || c.type || iif(c.pk, ' PRIMARY KEY', '') || iif(c.hidden, ' GENERATED', ''), ', '
        ) FROM pragma_table_xinfo(s.name, 'main') AS c
    )
FROM main.sqlite_schema AS s
WHERE lower(iif(s.type = 'trigger', s.tbl_name, s.name)) IN {tuple(name for name, *_ in TABLES)} ORDER BY s.name
"""


#: All that is in a schema, and what this process has found to be in order: `LAYOUT` takes a tenth of a fetch.
EVERYTHING = "SELECT type, name, tbl_name, rootpage = 0, sql FROM sqlite_schema"
accepted: set[tuple[Any, ...]] = set()


def refuse_odd_tables(connection: Connection, version: int) -> None:
    """Refuse a store whose tables are not as this package creates them in a layout."""
    expected, found = TABLES, connection.rows(LAYOUT)
    if version == 1:
        expected = [FIRST_NAMES if row[0] == "names" else row for row in TABLES if row[0] not in LATER]
        # Another program may have a table with such a name; the upgrade refuses it.
        found = [row for row in found if row[0].lower() not in LATER]
        if "required_fields" not in {name for name, *_ in found}:
            # The first stores did not have it yet.
            expected = [row for row in expected if row[0] != "required_fields"]
    if found == expected:
        return
    odd = next((row for row in found if row not in expected), None)
    if odd is None:
        lost = next(name for name, *_ in expected if name not in {name for name, *_ in found})
        raise StoreDamagedError(f"the file lacks the table {lost!r}", "Restore the file from a backup")
    name, type, columns = odd
    what = f"the table {name!r} has the columns {columns}" if type == "table" else f"{name!r} is a {type}"
    raise StoreDamagedError(
        f"the tables are not as views_runs creates them: {what}",
        "Another program changed the file, possibly with malicious intent. Restore the file from a backup",
    )


# The tables of layout 2, empty, for reading a file with layout 1: temporary tables hide those of the file.
_STAND_INS = f"""
PRAGMA temp_store = MEMORY;
{LATER_TABLES.replace(" IF NOT EXISTS", "").replace("CREATE TABLE", "CREATE TEMP TABLE")}
"""
_NAMES = """
DROP TABLE temp.names;
CREATE TEMP VIEW names AS SELECT NULL AS id, name, versions, NULL AS renamed_to FROM main.names;
"""
#: The metadata fields that had an index of their own, which slowed down storing and did not speed up searching.
_ONCE_INDEXED = (
    *("author", "run_id", "queryset_name", "level_of_analysis", "outcome", "steps"),
    *("train_start", "train_end", "training_date"),
)

_NO_REQUIRED_FIELDS = "CREATE TEMP TABLE required_fields (field TEXT PRIMARY KEY)"


def lay_out(connection: Connection, layout: int = SCHEMA_VERSION) -> None:
    """Turn an empty file into a store."""
    connection.script(NEW_FILE)
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {layout}"
    try:
        connection.script(f"BEGIN IMMEDIATE; {marks}; {SCHEMAS[layout]}; COMMIT;")
    except BaseException:
        connection.roll_back()
        raise


def stand_in(connection: Connection, change: bool) -> None:
    """Let this connection read a file with layout 1 as if it were upgraded; a `change` fails as in a read-only file."""
    connection.script(_STAND_INS if change else _STAND_INS + _NAMES)
    if not connection.value("SELECT 1 FROM main.sqlite_schema WHERE name = 'required_fields'"):
        connection.script(_NO_REQUIRED_FIELDS)
    # Otherwise, an alias could be written to a temporary table, and the change be acknowledged.
    connection.script("PRAGMA query_only = ON")


def upgrade(connection: Connection) -> None:
    """Upgrade a file with layout 1 in one transaction, unless another program has just done so."""
    with connection.transaction():
        if connection.value("PRAGMA user_version") == SCHEMA_VERSION:
            return
        _refuse_taken_names(connection)
        # Not ALTER TABLE, which fails if any view in the file, even another program's, cannot be read.
        earlier = connection.rows("SELECT name, versions FROM names")
        connection.change("DROP TABLE names")
        for field in _ONCE_INDEXED:
            connection.change(f"DROP INDEX IF EXISTS models_{field}")
        for statement in SCHEMAS[SCHEMA_VERSION].split(";\n"):
            connection.change(statement)
        for row in earlier:
            connection.change("INSERT INTO names (name, versions) VALUES (?, ?)", row)
        connection.change(f"PRAGMA user_version = {SCHEMA_VERSION}")
    log.warning(
        "upgraded %s from layout 1 to layout %s; versions of views_runs before %s can no longer read it",
        connection.path,
        SCHEMA_VERSION,
        FIRST_RELEASE,
    )


def _refuse_taken_names(connection: Connection) -> None:
    """Refuse an upgrade that would need the name of another program's table."""
    needed = (*LATER, "model_records", "aliases_version", "events_model", "run_models_version")
    taken = connection.value(f"SELECT name FROM sqlite_schema WHERE lower(name) IN {needed}")
    if taken is not None:
        raise StorageError(
            f"another program has added {taken!r} to the file, a name that layout {SCHEMA_VERSION} needs",
            "Rename or drop it with sqlite3; nothing was changed",
        )


def refuse_other(connection: Connection, application: int, version: int) -> None:
    """Refuse a file that is not a store with a known layout, unless it is empty; call this in a snapshot."""
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise NotAStoreError(
            f"the file has layout {version}, but this version of views_runs supports layout {SCHEMA_VERSION}",
            "A newer version created it: upgrade views_runs; nothing was changed",
        )
    if application or version or not _is_empty(connection):
        raise explain_foreign()


def explain_foreign() -> NotAStoreError:
    """Return the error for a file of another program."""
    return NotAStoreError("the file belongs to another program", "Check the path; nothing was changed")


def _is_empty(connection: Connection) -> bool:
    """Return whether the file has no bytes, or is a store whose creation was interrupted."""
    # SQLite has read the file by now, and rolled back any unfinished change of a killed process.
    try:
        if not os.stat(connection.path).st_size:
            return True
    except FileNotFoundError:
        return True
    # NEW_FILE writes a first page before the transaction that creates the tables.
    settings = [connection.value(f"PRAGMA {name}") for name in ("page_size", "auto_vacuum")]
    return settings == [16384, 2] and not connection.value("SELECT count(*) FROM sqlite_schema")
