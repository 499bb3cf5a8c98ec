"""The layout of the store file: create it, and refuse other files."""

import os
from typing import Any

from views_runs.database.connection import Connection
from views_runs.exceptions import NotAStoreError, StoreDamagedError

#: ``PRAGMA application_id``: "VwRn" in ASCII.
APPLICATION_ID = 0x5677526E

#: ``PRAGMA user_version``: incremented when earlier versions of this package can no longer read or write the file.
SCHEMA_VERSION = 1

# Large pages: a part takes 64 pages to read rather than 256, and a row's metadata is on the same page as the row.
# Both settings must precede the first table.
NEW_FILE = """
PRAGMA page_size = 16384;
PRAGMA auto_vacuum = INCREMENTAL;
"""

# IF NOT EXISTS: if two programs create the file at the same time, the second has nothing left to do.
SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};

-- One row for each version of each model.
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused; later models have higher ids
    name TEXT NOT NULL,
    version INTEGER NOT NULL,              -- the highest of each name is current
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

-- Stores in progress, and uploads that are no longer needed.
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

-- How many versions a name has ever had, so that the numbers of deleted versions are not reused.
CREATE TABLE IF NOT EXISTS names (
    name TEXT PRIMARY KEY,
    versions INTEGER NOT NULL
) WITHOUT ROWID;
COMMIT;
"""


#: What `LAYOUT` returns for a store: the name, type and columns of each table.
TABLES = [
    ("model_parts", "table", "upload INTEGER, part INTEGER, digest BLOB, data BLOB"),
    (
        "models",
        "table",
        "id INTEGER PRIMARY KEY, name TEXT, version INTEGER, stored_at TEXT, stored_by TEXT, metadata TEXT, "
        "datetimes TEXT, environment TEXT, size INTEGER, sha256 TEXT, digest BLOB, upload INTEGER, pickle BLOB",
    ),
    ("names", "table", "name TEXT PRIMARY KEY, versions INTEGER"),
    ("required_fields", "table", "field TEXT PRIMARY KEY"),
    ("sqlite_sequence", "table", "name , seq "),
    (
        "uploads",
        "table",
        "id INTEGER PRIMARY KEY, owner TEXT, started_at TEXT, beat INTEGER, condemned INTEGER",
    ),
    ("watches", "table", "upload INTEGER PRIMARY KEY, host TEXT PRIMARY KEY, beat INTEGER, since REAL"),
]

# A view or a generated column in the place of one of these can run for ever and fill the memory, and a trigger can
# change what a statement does. What else is in the file is not ours, and is never read.
LAYOUT = f"""
SELECT s.name, iif(s.type = 'table' AND s.rootpage = 0, 'virtual table', s.type),
    (
        SELECT group_concat(
            c.name || ' ' || c.type || iif(c.pk, ' PRIMARY KEY', '') || iif(c.hidden, ' GENERATED', ''), ', '
        ) FROM pragma_table_xinfo(s.name) AS c
    )
FROM sqlite_schema AS s
WHERE lower(iif(s.type = 'trigger', s.tbl_name, s.name)) IN {tuple(name for name, *_ in TABLES)} ORDER BY s.name
"""


#: All that is in a schema, and what this process has found to be in order: `LAYOUT` takes a tenth of a fetch.
EVERYTHING = "SELECT type, name, tbl_name, rootpage = 0, sql FROM sqlite_schema"
accepted: set[tuple[tuple[Any, ...], ...]] = set()


def refuse_odd_tables(connection: Connection) -> None:
    """Refuse a store whose tables are not as this package creates them."""
    found = connection.rows(LAYOUT)
    if found == TABLES:
        return
    odd = next((row for row in found if row not in TABLES), None)
    if odd is None:
        lost = next(name for name, *_ in TABLES if name not in {name for name, *_ in found})
        raise StoreDamagedError(f"the file lacks the table {lost!r}", "Restore the file from a backup")
    name, type, columns = odd
    what = f"the table {name!r} has the columns {columns}" if type == "table" else f"{name!r} is a {type}"
    raise StoreDamagedError(
        f"the tables are not as views_runs creates them: {what}",
        "Another program changed the file, possibly with malicious intent. Restore the file from a backup",
    )


def lay_out(connection: Connection) -> None:
    """Turn an empty file into a store."""
    connection.script(NEW_FILE)
    try:
        connection.script(SCHEMA)
    except BaseException:
        connection.roll_back()
        raise


def refuse_other(connection: Connection, application: int, version: int) -> None:
    """Refuse a file that is neither empty nor a store with this layout; call this in a snapshot."""
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise NotAStoreError(
            f"the file has layout {version}, but this version of views_runs supports layout {SCHEMA_VERSION}",
            "A newer version created it: upgrade views_runs; nothing was changed",
        )
    is_store = application == APPLICATION_ID and version == SCHEMA_VERSION
    if not is_store and not (application == version == 0 and _is_empty(connection)):
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
