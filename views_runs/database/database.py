"""An open store: a connection and the models. Opens the file, creates it, and refuses what cannot be one."""

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from views_runs import filesystems, signals
from views_runs.database import schema, uploads
from views_runs.database.connection import JOURNAL_SIZE, POLL, SETTINGS, Connection
from views_runs.database.events import check_why
from views_runs.database.models import Models
from views_runs.exceptions import (
    InvalidPathError,
    ModelNotFoundError,
    NotAStoreError,
    StorageError,
    StoreAccessError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UnsafeShareError,
)
from views_runs.files import companion, sync
from views_runs.records import Reference

log = logging.getLogger("views_runs")

#: The first bytes of a journal whose transaction has begun to change the file.
HOT = bytes.fromhex("d9d505f920a163d7")

#: Seconds to wait on Windows for others to roll back a change; they do so at their next statement.
ROLLBACK_PATIENCE = 5.0

#: The major number in a device's number: Linux gives one to disks, and none to shares.
BLOCK_DEVICE = 0xFFF00


class Database:
    """A store that is open for one operation; use it as a context manager.

    A file that exists is opened when the block is entered. A new file is created by `open`, so that a model that cannot
    be pickled does not leave an empty file. The operation and the path are added to any `StorageError` that leaves the
    block, so that the message names both.

    Args:
        path: the file, as an absolute path.
        timeout: seconds to wait for a lock.
        operation, reference: what is done, as in ``fetch``, and to which model, for messages.
        create: create the file if it does not exist.
        change: the operation changes the store, which therefore gets the newest layout.
        lenient: treat a missing file as an empty store, and log a warning; the folder must exist.
        is_default: this is the default store: its folder is created if necessary, and no warning is logged.
        why: the user's reason for a change.
        run: the run that the operation is part of.
        allow_unsafe_share: also write to a store on an SMB share.
    """

    #: Known when the store is open.
    connection: Connection
    models: Models

    def __init__(
        self,
        path: Path,
        timeout: float,
        operation: str,
        reference: Reference | None = None,
        *,
        create: bool = False,
        change: bool = False,
        lenient: bool = False,
        is_default: bool = False,
        why: str | None = None,
        run: str | None = None,
        allow_unsafe_share: bool = False,
    ) -> None:
        self.path = path
        self._operation = operation
        self._reference = reference
        self._timeout = timeout
        self._create = create
        self._change = create or change
        self._lenient = lenient
        self._is_default = is_default
        self._why = why
        self._run = run
        self._allow_unsafe_share = allow_unsafe_share
        #: Whether the file existed, and whether it was non-empty, when the block was entered.
        self.exists = self.has_content = False
        self.is_open = False
        #: Called while space is returned to the disk, with the number of bytes so far, and the total.
        self.progress: Callable[[int, int], object] | None = None

    def __enter__(self) -> "Database":
        try:
            if self._why is not None:
                check_why(self._why)
            status = get_status(self.path)
            self.exists = status is not None
            self.has_content = status is not None and status.st_size > 0
            if self._create and not self.has_content:
                self.refuse_unsafe_share()
            if not self.exists:
                self._handle_missing()
            elif self.has_content or not self._create:
                self.open()
        except StorageError as error:
            self._locate(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.connection.close()
        if isinstance(error, StorageError):
            self._locate(error)
        elif isinstance(error, MemoryError):
            advice = "Close other programs, or raise the memory limit"
            failure = StorageError("this process has too little memory", advice)
            self._locate(failure)
            raise failure from error

    def _locate(self, error: StorageError) -> None:
        # A handler may have raised an OSError, which was then taken for one of the system's.
        signals.let_through(error)
        subject = "" if self._reference is None else f" {str(self._reference)!r}"
        error.locate(self._operation + subject, self.path)

    def open(self) -> None:
        """Open the file, and create it if need be, unless it is open."""
        if self.is_open:
            return
        if self._create and self._is_default:
            _create_folder(self.path.parent)
        self.connection = connect(self.path, self._timeout, self._create, self._change, self._allow_unsafe_share)
        self.models = Models(self.connection, self._why, self._run)
        self.is_open = True
        if not self._change and self.connection.layout < schema.SCHEMA_VERSION:
            _recommend_backup(self.path)

    def refuse_unsafe_share(self, copy: Path | None = None) -> None:
        """Raise an error if the store, or a copy of it, is on a share that must not be written to."""
        if refusal := find_refusal(copy or self.path, self._allow_unsafe_share):
            raise refusal.locate(path=copy)

    def _handle_missing(self) -> None:
        # A missing folder may be a share that is not mounted, which must not be mistaken for an empty store.
        folder = self.path.parent
        with suppress(OSError):
            # Windows cannot resolve every path, for example a long one.
            folder = Path(os.path.realpath(self.path)).parent
        status = get_status(folder)
        if not self._is_default and (status is None or not stat.S_ISDIR(status.st_mode)):
            advice = "Check the path, and that the share is mounted"
            raise StoreNotFoundError("the folder does not exist", advice).locate(path=folder)
        if not self._create and not self._lenient:
            raise ModelNotFoundError("the store does not exist yet", "Check the path; storing a model creates the file")
        if self._lenient and not self._is_default:
            log.warning("%s does not exist yet; storing a model creates it", self.path)

    def clear(self, deleted: str) -> None:
        """Return the space of deleted models to the disk; a failure is logged.

        With `progress`, a user is watching, and Ctrl-C leaves the rest to the next deletion.
        """
        try:
            uploads.clear_leftovers(self.connection)
            uploads.give_back(self.connection, self.progress)
        except KeyboardInterrupt:
            if self.progress is None:
                raise
            log.warning("deleted %s; the next delete returns the rest of its space", deleted)
        except StorageError as error:
            # The models are gone; the next store or delete removes what is left of them.
            log.warning("deleted %s, but could not return all its space to the disk: %s", deleted, error)


def connect(
    path: Path, timeout: float, create: bool = False, change: bool = False, allow_unsafe_share: bool = False
) -> Connection:
    """Open the store at this absolute path; with `create`, a missing or empty file becomes a store.

    A file with an earlier layout is upgraded if the operation is to `change` it; otherwise it is read as it is.
    """
    # Until SQLite has the file open, only `os.stat` is used: closing the file would drop the locks SQLite holds on it.
    status = get_status(path)
    refusal = find_refusal(path, allow_unsafe_share, 0 if change or status is None else status.st_dev)
    if status is not None:
        refuse_unusable(status)
    elif not create:
        raise StoreNotFoundError("the file does not exist", "Check the path, and that the share is mounted")
    if sqlite3.sqlite_version_info < (3, 38):
        raise StorageError(
            f"views_runs needs SQLite 3.38 or later, but this Python has {sqlite3.sqlite_version}", "Use a newer Python"
        )
    refuse_foreign_wal(path, timeout)
    journal = companion(path, "-journal") if create else path
    if os.name == "nt":
        _warn_of_share(path)
    connection = Connection(path, timeout, "rwc" if create else "rw", refusal)
    try:
        if os.name == "nt":
            _wait_for_rollback(connection)
        layout = _read_layout(connection)
        if not layout and not create:
            raise NotAStoreError(
                "the file is empty (0 bytes): an incomplete copy, or a store that was never finished",
                "Restore it from a backup, or store a model to start a new store",
            )
        # Only now that the file is known to be a store: another program's file keeps its own journal mode.
        connection.script(SETTINGS)
        if not layout:
            if status is None:
                share_with_group(path)
            schema.lay_out(connection)
            log.info("created a new store, %s", path)
        connection.layout = layout or schema.SCHEMA_VERSION
        if connection.layout < schema.SCHEMA_VERSION:
            _adapt(connection, change)
        if create:
            _reserve_journal(connection, journal)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_layout(connection: Connection) -> int:
    """Return the number of the file's layout, or 0 if the file is empty; refuse what is not a store."""
    with connection.snapshot():
        application = connection.value("PRAGMA application_id")
        version = int(connection.value("PRAGMA user_version"))
        if application != schema.APPLICATION_ID or not 1 <= version <= schema.SCHEMA_VERSION:
            schema.refuse_other(connection, application, version)
            return 0
        # This also has SQLite read the schema under the same lock; the settings would take another lock for it.
        if (found := (version, *connection.rows(schema.EVERYTHING))) not in schema.accepted:
            schema.refuse_odd_tables(connection, version)
            schema.accepted.add(found)
        return version


def _adapt(connection: Connection, change: bool) -> None:
    """Upgrade a file with an earlier layout, or let the connection read it as if it were upgraded."""
    if change:
        try:
            _upgrade(connection)
            connection.layout = schema.SCHEMA_VERSION
            return
        except StoreReadOnlyError:
            # Operations that need no change still work, such as fetching a model that need not be trained.
            pass
    schema.stand_in(connection, change)


def _upgrade(connection: Connection) -> None:
    """Upgrade a file, on a full disk with the space that is reserved for the journal: a delete must still work."""
    try:
        schema.upgrade(connection)
    except StoreFullError:
        connection.script("PRAGMA journal_size_limit = 0")
        # At its end, SQLite cuts the journal, which nobody else may do.
        with connection.transaction():
            connection.change(f"PRAGMA user_version = {connection.value('PRAGMA user_version')}")
        schema.upgrade(connection)
        connection.script(f"PRAGMA journal_size_limit = {JOURNAL_SIZE}")


@cache
def _recommend_backup(path: Path) -> None:
    log.warning(
        "%s has an earlier layout, and the next change upgrades it; make a copy first, with `views-runs model backup`",
        path,
    )


def is_hot(journal: Path) -> bool:
    """Return whether a journal contains changes that must be rolled back, unless a process is still writing."""
    try:
        with journal.open("rb") as file:
            return file.read(len(HOT)) == HOT
    except FileNotFoundError:
        return False


def _wait_for_rollback(connection: Connection) -> None:
    """On Windows, wait until the change of a killed process is rolled back, if others have its journal open.

    A new connection would roll it back by removing the journal, which Windows refuses while the journal is open. The
    processes that have it open roll back without removing it, at their next statement.
    """
    journal, until = companion(connection.path, "-journal"), time.monotonic() + ROLLBACK_PATIENCE
    with suppress(OSError):
        while is_hot(journal) and not connection.glance("PRAGMA schema_version") and time.monotonic() < until:
            time.sleep(POLL[1])


@cache
def _warn_of_share(path: Path) -> None:
    if filesystems.is_share(path):
        log.warning("%s is on a network drive: stores on Windows shares were not tested, and may lose models", path)


def find_refusal(path: Path, allowed: bool = False, device: int = 0) -> UnsafeShareError | None:
    """Return the error for a file that must not be written to because it is on an SMB share, or None.

    If writing is `allowed`, it is refused only if the share refuses locks. Nothing is cached: a share can be mounted
    differently while this process runs. If the `device` is known to be a disk, nothing is looked up, which would take a
    tenth of the time of a small fetch.
    """
    if device & BLOCK_DEVICE:
        return None
    try:
        # Most computers have no such share, and this check takes a tenth of the time of finding the mount.
        with open(filesystems.MOUNTS, "rb") as file:
            share = filesystems.find_smb(path) if filesystems.SMB_LINE.search(file.read()) else None
    except OSError as error:
        signals.let_through(error)
        return None
    if share is None or (allowed and not _refuses_locks(path.parent, share)):
        return None
    why = filesystems.describe_smb(share)
    trouble = f"on this SMB share ({share.kind} at {share.point}), {why}; nothing was changed"
    advice = filesystems.SMB_ADVICE
    if allowed:
        advice += ". If no other computer uses the file, the mount option nobrl makes writing possible"
    elif "nobrl" in share.options:
        advice += ". If no other computer uses the file, set VIEWS_RUNS_ALLOW_UNSAFE_SHARE=1"
    return UnsafeShareError(trouble, advice)


def _refuses_locks(folder: Path, share: filesystems.Mount) -> bool:
    from views_runs.database import locks

    try:
        return "nobrl" not in share.options and locks.find_trouble(folder, processes=1) is not None
    except OSError as error:
        signals.let_through(error)
        # This cannot be determined.
        return False


def get_status(path: Path) -> os.stat_result | None:
    """Return the result of `os.stat` for a path, or None if the path does not exist."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreAccessError(
            str(getattr(error, "strerror", None) or error), "Check the path and the permissions of its folders"
        ) from error


def refuse_unusable(status: os.stat_result) -> None:
    """Refuse what cannot be a store: anything but a regular file with one hard link."""
    if stat.S_ISDIR(status.st_mode):
        raise InvalidPathError("this is a folder", "Give a file in it, such as models.db")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidPathError("this is not a regular file", "Give another path")
    if status.st_nlink > 1:
        # The journal is named after one of the links; a program that opens the file by another does not find it.
        raise InvalidPathError(
            "the file has several hard links, which SQLite cannot use safely", "Keep one of them, or make a copy"
        )


def refuse_foreign_wal(path: Path, timeout: float) -> None:
    """Refuse another program's database in WAL mode without touching it: opening and closing it could change it."""
    if companion(path, "-wal").exists():
        with Connection(path, timeout, "ro&immutable=1") as connection:
            if connection.value("PRAGMA application_id") != schema.APPLICATION_ID:
                raise schema.explain_foreign()


def share_with_group(path: Path) -> None:
    """Make a file group-writable if its folder is; the journal gets the file's mode."""
    with suppress(OSError):
        if path.parent.stat().st_mode & stat.S_IWGRP:
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IWGRP)


def _reserve_journal(connection: Connection, journal: Path) -> None:
    """Allocate the journal, which may have been removed, so that it can still be written when the disk is full."""
    with suppress(OSError, StorageError):
        if journal.exists() and journal.stat().st_size >= JOURNAL_SIZE:
            return
        # In this transaction nobody else writes to the journal, and SQLite reads only the bytes that it wrote itself.
        with connection.transaction(), journal.open("ab") as file:
            with suppress(OSError):
                journal.chmod(connection.path.stat().st_mode & 0o666)
            file.write(bytes(max(0, JOURNAL_SIZE - file.tell())))
            file.flush()
            sync(file.fileno())


def find_default_path() -> Path:
    """Return the path of the default store."""
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


def _create_folder(folder: Path) -> None:
    """Create the folder of the default store."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnlyError(
            f"the folder cannot be created ({error.strerror})",
            "Give another path, as in Storage('models.db') or --store models.db, or set VIEWS_RUNS_STORE",
        ).locate(path=folder) from error
