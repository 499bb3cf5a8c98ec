"""The layout of the store file: create it, recognise it, and refuse other files."""

import logging
import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path

from views_runs.database.connection import JOURNAL_SIZE, SETTINGS, Connection
from views_runs.files import companion
from views_runs.exceptions import (
    InvalidPathError,
    NotAStoreError,
    StorageError,
    StoreAccessError,
    StoreNotFoundError,
    StoreReadOnlyError,
)

log = logging.getLogger("views_runs")

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


def connect(path: Path, timeout: float, create: bool = False) -> Connection:
    """Open the store at this absolute path.

    Args:
        path: the file.
        timeout: seconds to wait for a lock.
        create: create the store if the file does not exist or is empty; the folder must exist.

    Raises:
        StoreNotFoundError: the file or its folder does not exist.
        NotAStoreError: the file is not a store, or has a newer layout.
        StorageError: the file cannot be opened.
    """
    is_new = _check_file(path, create)
    refuse_foreign_wal(path, timeout)
    connection = Connection(path, timeout, "rwc" if create else "rw")
    try:
        is_store = _recognise(connection)
        if not is_store and not create:
            raise NotAStoreError(
                "the file is empty (0 bytes): an incomplete copy, or a store that was never finished",
                "Restore it from a backup, or store a model to start a new store",
            )
        # Only now that the file is known to be a store: another program's file keeps its own journal mode.
        connection.script(SETTINGS)
        if not is_store:
            if is_new:
                share_with_group(path)
            lay_out(connection)
            log.info("created a new store, %s", path)
        if create:
            _reserve_journal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_file(path: Path, create: bool) -> bool:
    """Refuse what cannot be a store before SQLite opens it; return whether the file does not exist yet.

    Only `os.stat` is used: opening and closing the file would drop the locks that SQLite holds on it.
    """
    status = get_status(path)
    if status is None:
        if create:
            return True
        raise StoreNotFoundError("the file does not exist", "Check the path, and that the share is mounted")
    refuse_unusable(status)
    return False


def refuse_unusable(status: os.stat_result) -> None:
    """Refuse what cannot be a store.

    Raises:
        InvalidPathError: it is not a regular file, or has several hard links.
    """
    if stat.S_ISDIR(status.st_mode):
        raise InvalidPathError("this is a folder", "Give a file in it, such as models.db")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidPathError("this is not a regular file", "Give another path")
    if status.st_nlink > 1:
        # The journal is named after one of the links; a program that opens the file by another does not find it.
        raise InvalidPathError(
            "the file has several hard links, which SQLite cannot use safely", "Keep one of them, or make a copy"
        )


def get_status(path: Path) -> os.stat_result | None:
    """Return the result of `os.stat` for a path, or None if the path does not exist.

    Raises:
        StoreAccessError: this cannot be determined.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreAccessError(
            str(getattr(error, "strerror", None) or error), "Check the path and the permissions of its folders"
        ) from error


def refuse_foreign_wal(path: Path, timeout: float) -> None:
    """Refuse another program's database in WAL mode without touching it: opening and closing it could change it.

    Raises:
        NotAStoreError: the file is such a database.
    """
    if not companion(path, "-wal").exists():
        return
    with Connection(path, timeout, "ro&immutable=1") as connection:
        if connection.value("PRAGMA application_id") != APPLICATION_ID:
            raise _explain_foreign()


def _explain_foreign() -> NotAStoreError:
    return NotAStoreError("the file belongs to another program", "Check the path; nothing was changed")


def _recognise(connection: Connection) -> bool:
    """Return True for a store and False for an empty file; refuse anything else."""
    if sqlite3.sqlite_version_info < (3, 38):
        raise StorageError(
            f"views_runs needs SQLite 3.38 or later, but this Python has {sqlite3.sqlite_version}", "Use a newer Python"
        )
    with connection.snapshot():
        application = connection.value("PRAGMA application_id")
        version = connection.value("PRAGMA user_version")
        is_empty = application == version == 0 and _is_empty(connection)
        if application == APPLICATION_ID:
            # Have SQLite read the schema now, under the same lock; the settings would take another lock for it.
            connection.value("SELECT 1 FROM sqlite_schema LIMIT 1")
    if application == APPLICATION_ID and version == SCHEMA_VERSION:
        return True
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise NotAStoreError(
            f"the file has layout {version}, but this version of views_runs supports layout {SCHEMA_VERSION}",
            "A newer version created it: upgrade views_runs; nothing was changed",
        )
    if is_empty:
        return False
    raise _explain_foreign()


def _is_empty(connection: Connection) -> bool:
    """Return whether the file has no bytes, or is a store whose creation was interrupted."""
    # SQLite has read the file by now, and rolled back any unfinished change of a killed process.
    status = get_status(connection.path)
    if status is None or status.st_size == 0:
        return True
    # NEW_FILE writes a first page before the transaction that creates the tables.
    settings = [connection.value(f"PRAGMA {name}") for name in ("page_size", "auto_vacuum")]
    return settings == [16384, 2] and not connection.value("SELECT count(*) FROM sqlite_schema")


def lay_out(connection: Connection) -> None:
    """Turn an empty file into a store."""
    connection.script(NEW_FILE)
    try:
        connection.script(SCHEMA)
    except BaseException:
        connection.roll_back()
        raise


def share_with_group(path: Path) -> None:
    """Make a file group-writable if its folder is; the journal gets the file's mode."""
    with suppress(OSError):
        if path.parent.stat().st_mode & stat.S_IWGRP:
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IWGRP)


def _reserve_journal(connection: Connection) -> None:
    """Allocate the journal, which may have been removed, so that it can still be written when the disk is full."""
    journal = companion(connection.path, "-journal")
    with suppress(OSError, StorageError):
        if journal.exists() and journal.stat().st_size >= JOURNAL_SIZE:
            return
        # In this transaction nobody else writes to the journal, and SQLite reads only the bytes that it wrote itself.
        with connection.transaction(), journal.open("ab") as file:
            with suppress(OSError):
                journal.chmod(connection.path.stat().st_mode & 0o666)
            file.write(bytes(max(0, JOURNAL_SIZE - file.tell())))
            file.flush()
            os.fsync(file.fileno())


def find_default_path() -> Path:
    """Return the path of the default store.

    Raises:
        StorageError: there is no home folder.
    """
    from platformdirs import user_data_path

    try:
        path = user_data_path("views_runs", appauthor=False) / "models.db"
    except RuntimeError:
        path = Path("~")
    if not path.is_absolute():
        raise StorageError(
            "there is no home folder for the default store",
            "Give a path, as in Storage('models.db') or --store models.db, or set VIEWS_RUNS_STORE",
        )
    return path


def create_folder(folder: Path) -> None:
    """Create the folder of the default store.

    Raises:
        StoreReadOnlyError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnlyError(
            f"the folder cannot be created ({error.strerror})",
            "Give another path, as in Storage('models.db') or --store models.db, or set VIEWS_RUNS_STORE",
        ).locate(path=folder) from error
