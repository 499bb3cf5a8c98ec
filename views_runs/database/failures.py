"""Translate SQLite's errors to exceptions that say what happened and what to do about it."""

import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from views_runs import filesystems
from views_runs.exceptions import (
    NotAStoreError,
    StorageError,
    StoreAccessError,
    StoreDamagedError,
    StoreFullError,
    StoreReadOnlyError,
)
from views_runs.files import companion


class Meaning(NamedTuple):
    """The meaning of an SQLite error code."""

    kind: type[StorageError]
    trouble: str
    advice: str


#: The file at the path was replaced after it was opened, or no longer exists.
MOVED = Meaning(
    StoreAccessError,
    "the file was deleted, moved or replaced while it was in use, or its share was disconnected",
    "Check the path, and that the share is mounted, and try again",
)

#: An SMB share mounted with nobrl does not show whether a process still writes: playing its journal back would damage
#: the file, which is therefore opened for reading only.
UNFINISHED = Meaning(
    StoreReadOnlyError,
    "another computer is writing, or was killed while writing",
    "Try again; if the error persists, run `views-runs model list` once where the file is on a local disk or mounted "
    "over NFS",
)

DAMAGED = Meaning(StoreDamagedError, "a string in the file is damaged", "Restore the file from a backup")

MEANINGS = {
    sqlite3.SQLITE_FULL: Meaning(
        StoreFullError,
        "the disk is full",
        "Free some space (`views-runs model delete` works on a full disk) and try again",
    ),
    sqlite3.SQLITE_READONLY: Meaning(
        StoreReadOnlyError,
        "write permission was denied",
        "Ask for write permission on the file, its -journal and their folder",
    ),
    sqlite3.SQLITE_CANTOPEN: Meaning(
        StoreReadOnlyError,
        "the file cannot be opened",
        "Check the permissions of the file, its -journal and their folder, and that this program does not have too "
        "many files open",
    ),
    sqlite3.SQLITE_PERM: Meaning(
        StoreReadOnlyError,
        "permission was denied",
        "Check the permissions of the file, its -journal and their folder",
    ),
    sqlite3.SQLITE_NOTADB: Meaning(
        NotAStoreError,
        "the file is not an SQLite database",
        "Check the path; nothing was changed",
    ),
    sqlite3.SQLITE_READONLY_DBMOVED: MOVED,
    sqlite3.SQLITE_READONLY_ROLLBACK: Meaning(
        StoreReadOnlyError,
        "a process was killed while writing",
        "Ask someone with write permission to run `views-runs model list` once; that rolls the unfinished change back",
    ),
    # Removing the journal completes the rollback.
    sqlite3.SQLITE_IOERR_DELETE: Meaning(
        StoreReadOnlyError,
        "a process was killed while writing, and its journal cannot be removed",
        "Ask someone who can write to the folder (in a sticky folder: the journal's owner) to run `views-runs model "
        "list` once, and try again",
    ),
    sqlite3.SQLITE_ERROR: Meaning(
        StoreDamagedError,
        "the file lacks one of a store's tables or columns",
        "Restore the file from a backup",
    ),
    sqlite3.SQLITE_TOOBIG: Meaning(
        StorageError,
        "a text or a BLOB exceeds the limit of 100 MB",
        "Store large data in the model, not in its metadata",
    ),
    sqlite3.SQLITE_CONSTRAINT: Meaning(
        StoreDamagedError,
        "a row violates its table's constraints: it is damaged, or another program wrote it",
        "Restore the file from a backup",
    ),
    # SQLite reports the same code when a read fails with EIO.
    sqlite3.SQLITE_CORRUPT: Meaning(
        StoreDamagedError,
        "the file is damaged, or the disk or share failed to read it",
        "Try again; if the error persists, restore the file from a backup, and save what can still be read with "
        "`views-runs model download`",
    ),
    sqlite3.SQLITE_IOERR: Meaning(
        StoreAccessError,
        "the file system failed to read or write the file",
        "Check that the disk or share is connected, and try again",
    ),
}


def primary_code(error: sqlite3.Error) -> int:
    """Return an error's primary code, the low byte of SQLite's extended code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def explain(error: sqlite3.Error, path: Path) -> StorageError:
    """Return the exception that explains an SQLite error on this file to a user."""
    kind, trouble, advice = _find_meaning(error, path)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return kind(f"{trouble} ({name}: {error})", advice).locate(path=path)


def _find_meaning(error: sqlite3.Error, path: Path) -> Meaning:
    if str(error).startswith("Could not decode to UTF-8"):
        # This error is Python's own and has no SQLite code.
        return DAMAGED
    code = getattr(error, "sqlite_errorcode", 0)
    unknown = Meaning(StorageError, "SQLite failed", "")
    if code == sqlite3.SQLITE_READONLY_ROLLBACK and filesystems.find_smb(path):
        return UNFINISHED
    meaning = MEANINGS.get(code) or MEANINGS.get(primary_code(error), unknown)
    if meaning.kind not in (StoreAccessError, StoreReadOnlyError):
        return meaning
    # A file that could not be created does not exist either, so check its folder instead.
    if not os.path.exists(path if meaning.kind is StoreAccessError else path.parent):
        return MOVED
    if not os.access(path, os.W_OK):
        # A permission may have been revoked since the file was opened; SQLite reports a "disk I/O error" then.
        return MEANINGS[sqlite3.SQLITE_READONLY] if code == sqlite3.SQLITE_IOERR_WRITE else meaning
    journal = companion(path, "-journal")
    if os.path.exists(journal) and not os.access(journal, os.W_OK):
        trouble = f"write permission on {journal.name} was denied"
        return Meaning(StoreReadOnlyError, trouble, "Give it the mode of the store file, for example with chmod g+w")
    return meaning
