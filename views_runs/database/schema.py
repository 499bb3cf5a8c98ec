"""The layout of the store file: how it is made, recognised and refused."""

import logging
import os
import sqlite3
import stat
from collections.abc import Callable
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

#: ``PRAGMA user_version``: raised when an older version of this package could no longer read or write the file.
SCHEMA_VERSION = 1

# Large pages, so that a part is 64 pages to read and not 256, and a row's metadata is on the page of the row.
# Both have to be set before the first table.
NEW_FILE = """
PRAGMA page_size = 16384;
PRAGMA auto_vacuum = INCREMENTAL;
"""

# IF NOT EXISTS: when two programs make the file at once, the second finds everything there.
SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};

-- One row for each version of each model.
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice; a higher one was stored later
    name TEXT NOT NULL,
    version INTEGER NOT NULL,              -- the highest of a name is the current one
    stored_at TEXT NOT NULL,               -- UTC, ISO 8601 with microseconds
    stored_by TEXT NOT NULL,               -- user@host
    metadata TEXT                          -- JSON; NULL = none was given
        CHECK (metadata IS NULL OR json_valid(metadata)),
    datetimes TEXT,                        -- JSON list of the paths in metadata that were datetimes or dates
    environment TEXT NOT NULL,             -- JSON object: type, python, platform, protocol
    size INTEGER NOT NULL,                 -- of the whole pickle, in bytes
    sha256 TEXT NOT NULL,                  -- of the whole pickle
    digest BLOB NOT NULL,                  -- SHA-256 of the first part
    upload INTEGER UNIQUE,                 -- where the parts after the first are; NULL = there are none
    pickle BLOB NOT NULL,                  -- the whole pickle, or its first part
    UNIQUE (name, version)
);

-- All that a record shows, so that listing and finding read no pickle.
CREATE INDEX IF NOT EXISTS models_record ON models (
    id, name, version, stored_at, stored_by, metadata, datetimes, environment, size, sha256
);

-- The parts of a pickle after its first; never changed once written.
CREATE TABLE IF NOT EXISTS model_parts (
    upload INTEGER NOT NULL,
    part INTEGER NOT NULL,                 -- 1, 2, ...: the first part, 0, is in models.pickle
    digest BLOB NOT NULL,                  -- SHA-256 of the pickle up to the end of this part
    data BLOB NOT NULL,
    UNIQUE (upload, part)
);

-- Stores that are under way, and uploads that nobody needs any more.
CREATE TABLE IF NOT EXISTS uploads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,                   -- JSON object: which process this is
    started_at TEXT NOT NULL,
    beat INTEGER NOT NULL DEFAULT 0,       -- raised with every part that is written
    condemned INTEGER NOT NULL DEFAULT 0   -- 1 = its parts are being deleted
);

-- Since when, by its own clock, a host has seen an upload stand still.
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

-- How many versions a name ever had, so that the number of a deleted one is not given again.
CREATE TABLE IF NOT EXISTS names (
    name TEXT PRIMARY KEY,
    versions INTEGER NOT NULL
) WITHOUT ROWID;
COMMIT;
"""


def connect(
    path: Path,
    doing: str,
    timeout: float,
    create: bool = False,
    writers: Callable[[Connection], list[str]] = lambda connection: [],
) -> Connection:
    """Open the store at this absolute path.

    Args:
        path: the file.
        doing: what for, as in ``fetch 'my-model'``; for messages.
        timeout: for how many seconds to wait for a lock.
        create: make the store when there is no file, or an empty one; its folder must be there.
        writers: returns what is known, without waiting, of each who is writing; for messages.

    Raises:
        StoreNotFoundError: there is no file, or no folder.
        NotAStoreError: the file is not a store, or one of a newer version of this package.
        StorageError: it cannot be opened.
    """
    new = _look_at(path, doing, create)
    refuse_foreign_wal(path, doing, timeout)
    connection = Connection(f"{path.as_uri()}?mode={'rwc' if create else 'rw'}", path, doing, timeout, writers)
    try:
        made = _recognise(connection)
        if not made and not create:
            raise connection.failure(
                NotAStoreError,
                "the file is empty (0 bytes): a copy that failed, or a store that was never finished. Restore it, "
                "or store a model to begin anew",
            )
        # Not before it is known to be ours: another program's file stays in its own journal mode.
        connection.script(SETTINGS)
        if not made:
            _create(connection, new)
        if create:
            _reserve(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _look_at(path: Path, doing: str, create: bool) -> bool:
    """Refuse what cannot be a store before SQLite sees it; return whether the file is not there yet.

    Only `os.stat` is used: to open the file and close it again would drop the locks that SQLite holds on it.
    """
    status = _status(path, doing)
    if status is None:
        has_folder = _status(path.parent, doing) is not None
        if create and has_folder:
            return True
        missing = path if has_folder else path.parent
        raise StoreNotFoundError(
            f"cannot {doing}: {missing} is not there. Check the path, and that the share is mounted"
            + ("" if create else "; the first model stored makes the file")
        )
    trouble = not_a_file(status)
    if trouble:
        raise InvalidPathError(f"cannot {doing}: {path} {trouble}")
    return False


def _status(path: Path, doing: str) -> os.stat_result | None:
    """Return what `os.stat` knows of a path; None when there is nothing."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreAccessError(
            f"cannot {doing}: {path}: {getattr(error, 'strerror', None) or error}. Check the path and the permissions "
            "of its folders"
        ) from error


def exists(path: Path, doing: str) -> bool:
    """Whether there is anything at the path.

    Raises:
        StoreAccessError: that cannot be known.
    """
    return _status(path, doing) is not None


def refuse_foreign_wal(path: Path, doing: str, timeout: float) -> None:
    """Refuse another program's database in WAL mode, untouched: to open and close it could change it.

    Raises:
        NotAStoreError: it is one.
    """
    if not companion(path, "-wal").exists():
        return
    with Connection(f"{path.as_uri()}?mode=ro&immutable=1", path, doing, timeout) as connection:
        if connection.value("PRAGMA application_id") != APPLICATION_ID:
            raise _foreign(connection)


def _foreign(connection: Connection) -> StorageError:
    return connection.failure(
        NotAStoreError, "the file is of another program. Check the path; the file was left as it is"
    )


def not_a_file(status: os.stat_result) -> str:
    """Return why what is there cannot be a store, or nothing."""
    if stat.S_ISDIR(status.st_mode):
        return "is a folder: give the file in it, as in models.db"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_nlink > 1:
        # The journal lies beside one of its names; whoever opens another does not see it.
        return "has several names (hard links), which SQLite cannot share safely: keep one, or make a copy"
    return ""


def _recognise(connection: Connection) -> bool:
    """Return True for a store and False for an empty file; refuse anything else."""
    _need_json()
    with connection.snapshot():
        application = connection.value("PRAGMA application_id")
        version = connection.value("PRAGMA user_version")
        is_empty = application == version == 0 and _is_empty(connection)
        if application == APPLICATION_ID:
            # SQLite reads the schema now, under the same lock: for the settings it would take another.
            connection.value("SELECT 1 FROM sqlite_schema LIMIT 1")
    if application == APPLICATION_ID and version == SCHEMA_VERSION:
        return True
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise connection.failure(
            NotAStoreError,
            f"the file has layout {version}, and this version of views_runs knows {SCHEMA_VERSION}: a newer one "
            "made it. Upgrade with `pip install --upgrade views_runs`; the file was left as it is",
        )
    if is_empty:
        return False
    raise _foreign(connection)


def _is_empty(connection: Connection) -> bool:
    """Whether the file has no bytes, or is a store that somebody has only begun to make."""
    # SQLite has read the file by now, and rolled back what a program that died had begun.
    status = _status(connection.path, connection.doing)
    if status is None or status.st_size == 0:
        return True
    # NEW_FILE writes a first page of its own accord, before the transaction that makes the tables.
    settings = [connection.value(f"PRAGMA {name}") for name in ("page_size", "auto_vacuum")]
    return settings == [16384, 2] and not connection.value("SELECT count(*) FROM sqlite_schema")


def _need_json() -> None:
    if sqlite3.sqlite_version_info < (3, 38):
        raise StorageError(
            f"views_runs needs SQLite 3.38 or newer, and this Python has {sqlite3.sqlite_version}: use a newer Python"
        )


def _create(connection: Connection, new: bool) -> None:
    path = connection.path
    if new:
        open_to_group(path)
    lay_out(connection)
    log.info("made a new store, %s", path)


def lay_out(connection: Connection) -> None:
    """Make an empty file a store."""
    connection.script(NEW_FILE)
    try:
        connection.script(SCHEMA)
    except BaseException:
        connection.roll_back()
        raise


def open_to_group(path: Path) -> None:
    """Let the group write what lies in a folder that the group may write; the journal gets the file's mode."""
    with suppress(OSError):
        if path.parent.stat().st_mode & stat.S_IWGRP:
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IWGRP)


def _reserve(connection: Connection) -> None:
    """Give the journal its space now, so that a full disk later has it; other programs may have taken it away."""
    journal = companion(connection.path, "-journal")
    with suppress(OSError, StorageError):
        if journal.exists() and journal.stat().st_size >= JOURNAL_SIZE:
            return
        # Nobody else writes to the journal now, and SQLite reads none of what is beyond its own bytes.
        with connection.transaction(), journal.open("ab") as file:
            with suppress(OSError):
                journal.chmod(connection.path.stat().st_mode & 0o666)
            file.write(bytes(max(0, JOURNAL_SIZE - file.tell())))
            file.flush()
            os.fsync(file.fileno())


def default_path() -> Path:
    """Return the path of the store that is used when none is given.

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
            "there is no home folder to keep a store in: give a path, as in Storage('models.db') or "
            "--store models.db, or set VIEWS_RUNS_STORE"
        )
    return path


def make_folder(folder: Path, doing: str) -> None:
    """Make the folder of the default store.

    Raises:
        StoreReadOnlyError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnlyError(
            f"cannot {doing}: the folder {folder} cannot be made ({error.strerror}): give another path, as in "
            "Storage('models.db') or --store models.db, or set VIEWS_RUNS_STORE"
        ) from error
