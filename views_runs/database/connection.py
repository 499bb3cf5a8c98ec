"""A connection to the store file: how it is set, how its locks are waited for, and what its errors mean."""

import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from views_runs.files import companion
from views_runs.exceptions import (
    NotAStoreError,
    StorageError,
    StoreAccessError,
    StoreBusyError,
    StoreDamagedError,
    StoreFullError,
    StoreReadOnlyError,
)

T = TypeVar("T")

log = logging.getLogger("views_runs")

#: Of the SQLite library, as in ``3.40.1``.
SQLITE_VERSION = sqlite3.sqlite_version

#: The journal's size, in bytes, that stays beside the file.
JOURNAL_SIZE = 1 << 20

# PERSIST, not DELETE: whether there is a journal to roll back then depends on its bytes, not on whether some
# computer's cache still believes that the file exists; and a journal that has its space already lets a delete
# in small steps work on a full disk. WAL loses acknowledged commits on network file systems.
# secure_delete=FAST, not Debian's default ON, which rewrites every deleted byte and so needs a free disk.
SETTINGS = f"""
PRAGMA mmap_size = 0;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = FAST;
PRAGMA journal_mode = PERSIST;
PRAGMA journal_size_limit = {JOURNAL_SIZE};
"""

#: Bytes of a BLOB that are copied at once. More would be memory that the system takes back and clears each time.
CHUNK_SIZE = 1 << 16

#: Seconds between two tries for a lock. SQLite's own handler sleeps up to 0.1 s, and misses the gaps that
#: a store of a large model leaves for others.
POLL = (0.002, 0.010)

#: The same for whoever writes much in many transactions: those who read come first when another such writer pauses.
BULK_POLL = (0.010, 0.020)

#: Seconds after which a wait is looked into, and logged.
SUSPICION = 1.0
PATIENCE = 3.0

#: What to say when there is another file at the path than the one that was opened, or none.
MOVED = (
    StoreAccessError,
    "the file was deleted, moved or replaced while it was in use, or its share went away. Check the path, and that the "
    "share is mounted, and try again",
)

#: What an SQLite error code means, and what to do about it.
MEANINGS: dict[int, tuple[type[StorageError], str]] = {
    sqlite3.SQLITE_FULL: (
        StoreFullError,
        "the disk is full. Free some space (`viewser model delete` works on a full disk) and try again",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnlyError,
        "it may not be written. Ask for write permission on the file, its -journal and their folder",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreReadOnlyError,
        "it cannot be opened. Check the permissions of the file, its -journal and their folder, and that this program "
        "has not too many files open",
    ),
    sqlite3.SQLITE_PERM: (
        StoreReadOnlyError,
        "permission was denied. Check the permissions of the file, its -journal and their folder",
    ),
    sqlite3.SQLITE_NOTADB: (
        NotAStoreError,
        "the file is not an SQLite database. Check the path; the file was left as it is",
    ),
    sqlite3.SQLITE_READONLY_DBMOVED: MOVED,
    sqlite3.SQLITE_READONLY_ROLLBACK: (
        StoreReadOnlyError,
        "somebody who was writing it has died, and what they left has to be rolled back by someone who may write it: "
        "let them list the models once",
    ),
    sqlite3.SQLITE_IOERR_DELETE: (
        StoreReadOnlyError,
        # Rolling back removes it, and only then is the file as it was.
        "somebody who was writing it has died, and their -journal cannot be removed. Let someone list the models once "
        "who may write the folder (or, where it has a sticky bit, owns the -journal), and try again",
    ),
    sqlite3.SQLITE_ERROR: (
        StoreDamagedError,
        "the file does not have what a store has. Restore it from a copy",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        StoreDamagedError,
        "a row does not keep the rules of its table: it is damaged, or another program wrote it. Restore the file from a "
        "copy",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreDamagedError,
        # SQLite says the same when a read fails with EIO.
        "the file is damaged, or the disk or share failed to read it. Try again; if it stays so, restore the file from "
        "a copy, and save what still reads with `viewser model download`",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreAccessError,
        "the file system failed to read or write it. Check that the disk or share is there, and try again",
    ),
}


class Gate:
    """Keeps a fork out while SQLite is at work in another thread.

    The child would inherit SQLite's own list of the locks that this process holds, and its mutexes as they are: it would
    wait for locks that nobody holds, and read under some that it does not have. What is between two statements, or two
    transactions, may be forked.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: The threads that are inside, and how deep.
        self._inside: dict[int, int] = {}
        self._closing = False

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            # Whoever is inside may go deeper: the fork waits for them to come out.
            self._changed.wait_for(lambda: not self._closing or thread in self._inside)
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = threading.get_ident()
        with self._changed:
            # In a child that was forked in here, by a signal's handler for one, nobody is inside.
            depth = self._inside.pop(thread, 1) - 1
            if depth:
                self._inside[thread] = depth
            else:
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in, and wait until nobody is inside; transactions are short, so this gives up after a while."""
        self._changed.acquire()
        self._closing = True
        self._changed.wait_for(self._is_empty, timeout=10)

    def open(self) -> None:
        """Let others in again."""
        self._closing = False
        self._changed.notify_all()
        self._changed.release()

    def begin_anew(self) -> None:
        """Forget, in a forked child, the threads that it does not have."""
        self.__init__()  # type: ignore[misc]

    def _is_empty(self) -> bool:
        # A thread that was interrupted on its way in or out, or has ended, keeps nobody waiting; nor does the forking one.
        alive = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return not alive & self._inside.keys()


class Wait:
    """One wait for a lock: until when, and what is found out and said meanwhile."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._started = time.monotonic()
        self._has_asked = self._has_told = False

    def go_on(self, timeout: float, poll: tuple[float, float], error: sqlite3.Error) -> None:
        """Sleep until the next try, for as long as `poll` says.

        Raises:
            StoreBusyError: the time is up.
            StoreAccessError: the file system gives no locks.
        """
        waited = time.monotonic() - self._started
        if not self._has_asked and waited >= min(SUSPICION, timeout):
            self._has_asked = True
            self._ask_for_locks()
        if not self._has_told and waited > PATIENCE:
            self._has_told = True
            log.warning("waiting to %s", self._trouble(" is locked by another program"))
        if waited >= timeout:
            trouble = self._trouble(f": another program has kept the file locked; waited {waited:.1f} s")
            advice = "Try again when it is done, or wait longer with Storage(..., timeout=SECONDS)"
            raise StoreBusyError(f"cannot {trouble}. {advice}") from error
        time.sleep(random.uniform(*poll))

    def _trouble(self, what: str) -> str:
        connection = self._connection
        return "; ".join([f"{connection.doing}: {connection.path}{what}", *connection.writers()])

    def _ask_for_locks(self) -> None:
        """Find out whether the file system has locks: SQLite says "locked" too where it has none."""
        # It starts processes, and what that takes is not needed by whoever does not wait.
        from views_runs.database import locks

        connection = self._connection
        try:
            refused = locks.find_trouble(connection.path.parent, processes=1)
        except OSError:
            # That cannot be known: the folder may not be written, or the share does not answer now.
            return
        if refused:
            raise connection.failure(
                StoreAccessError,
                f"its file system refuses locks ({refused}), and without them a store would be damaged. Mount the share "
                "with locks (NFS: version 4, never nolock), or keep the store elsewhere",
            )


_gate = Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.close, after_in_parent=_gate.open, after_in_child=_gate.begin_anew)


class Connection:
    """One connection, for one operation; close it, or use it as a context manager.

    Args:
        uri: the file, as SQLite's URI.
        path: the same file, for messages.
        doing: what for, as in ``fetch 'my-model'``; for messages.
        timeout: for how many seconds to wait for a lock.
        writers: returns what is known, without waiting, of each who is writing; for messages.

    Raises:
        StorageError: the file cannot be opened, or is not an SQLite database.
    """

    def __init__(
        self,
        uri: str,
        path: Path,
        doing: str,
        timeout: float,
        writers: "Callable[[Connection], list[str]]" = lambda connection: [],
    ) -> None:
        self.path = path
        self.doing = doing
        self._writers = writers
        self._timeout = timeout
        self._sqlite = self._patiently(lambda: sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back."""
        with _gate:
            self._sqlite.close()

    def rows(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement and return all its rows: no lock is held afterwards."""
        return self._patiently(lambda: self._sqlite.execute(sql, parameters).fetchall())

    def row(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> tuple[Any, ...] | None:
        """Execute one statement and return its first row, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def value(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> Any:
        """Execute one statement and return the first column of its first row, or None."""
        row = self.row(sql, parameters)
        return row[0] if row else None

    def glance(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows, or none if it cannot be done at once."""
        try:
            with _gate:
                return self._sqlite.execute(sql).fetchall()
        except (sqlite3.Error, AttributeError):
            # There is no connection yet, or the file is locked.
            return []

    def writers(self) -> list[str]:
        """Return what is known, without waiting, of each who is writing."""
        return self._writers(self)

    def change(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        return self._patiently(lambda: self._sqlite.execute(sql, parameters).rowcount)

    def function(self, function: Callable[..., Any], parameters: int) -> None:
        """Let SQL call a function by its name."""
        self._sqlite.create_function(function.__name__, parameters, function, deterministic=True)

    def read_blob(self, table: str, column: str, rowid: int, memory: memoryview) -> int:
        """Read a BLOB into memory, and return its size in bytes.

        To select it would take twice its size in new memory each time.

        Raises:
            StorageError: it is not there, is no BLOB, or is larger than the memory.
        """
        return self._patiently(lambda: self._read_blob(table, column, rowid, memory))

    def script(self, sql: str) -> None:
        """Execute statements whose rows nobody needs, again from the first if one finds a lock."""
        self._patiently(lambda: self._sqlite.executescript(sql))

    @contextmanager
    def transaction(self, bulk: bool = False) -> Iterator[None]:
        """Take the write lock, then commit, or roll back when the block raises.

        Args:
            bulk: this is one of many, and lets others go first.
        """
        # A deferred transaction that turns into a writing one fails at once, whatever the timeout.
        with self._locked("BEGIN IMMEDIATE", BULK_POLL if bulk else POLL):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read several things as they were at one moment; keep it short, since nobody can commit meanwhile."""
        with self._locked("BEGIN", POLL):
            yield

    @contextmanager
    def _locked(self, begin: str, poll: tuple[float, float]) -> Iterator[None]:
        with self._patiently(lambda: self._begun(begin), poll):
            try:
                yield
                self.rows("COMMIT")
            except BaseException:
                self.roll_back()
                raise

    def _begun(self, begin: str) -> ExitStack:
        """Begin a transaction; return what leaves the gate when it has ended."""
        with ExitStack() as stack:
            stack.enter_context(_gate)
            self._sqlite.execute(begin).fetchall()
            return stack.pop_all()

    def failure(self, kind: type[StorageError], trouble: str) -> StorageError:
        """Return an error of this kind that names the operation and the file."""
        return kind(f"cannot {self.doing}: {self.path}: {trouble}")

    def roll_back(self) -> None:
        """End the transaction under way, if there is one, as if it had not been."""
        try:
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has rolled back by itself, or the next to open the file will: the journal is there.
            pass

    def _read_blob(self, table: str, column: str, rowid: int, memory: memoryview) -> int:
        with self._sqlite.blobopen(table, column, rowid, readonly=True) as blob:
            size = len(blob)
            if size > len(memory):
                raise self.failure(StoreDamagedError, f"{table}.{column} has {size:,} bytes, and fewer were stored")
            for start in range(0, size, CHUNK_SIZE):
                piece = blob.read(CHUNK_SIZE)
                memory[start : start + len(piece)] = piece
            return size

    def _patiently(self, action: Callable[[], T], poll: tuple[float, float] = POLL) -> T:
        """Try until the file is not locked, or the time is up: the one place where a lock is waited for."""
        wait: Wait | None = None
        while True:
            try:
                with _gate:
                    return action()
            except UnicodeError as error:
                # SQLite's own message about a damaged schema, or half of a character in a text that was given.
                raise self.failure(StorageError, f"a text is no Unicode: {error}") from error
            except sqlite3.Error as error:
                if _primary(error) != sqlite3.SQLITE_BUSY:
                    raise self._meaning(error) from error
                wait = wait or Wait(self)
                wait.go_on(self._timeout, poll, error)

    def _meaning(self, error: sqlite3.Error) -> StorageError:
        code = getattr(error, "sqlite_errorcode", 0)
        kind, trouble = MEANINGS.get(code) or MEANINGS.get(_primary(error), (StorageError, "SQLite failed"))
        if str(error).startswith("Could not decode to UTF-8"):
            # Python says this, and SQLite has no code for it.
            kind, trouble = StoreDamagedError, "a text in it is damaged. Restore the file from a copy"
        journal = companion(self.path, "-journal")
        # A file that cannot be made is not there either; its folder is.
        needed = self.path if kind is StoreAccessError else self.path.parent
        if kind in (StoreAccessError, StoreReadOnlyError) and not os.path.exists(needed):
            kind, trouble = MOVED
        elif code == sqlite3.SQLITE_IOERR_WRITE and not os.access(self.path, os.W_OK):
            # It might be written when it was opened.
            kind, trouble = MEANINGS[sqlite3.SQLITE_READONLY]
        elif (
            kind in (StoreAccessError, StoreReadOnlyError) and os.access(self.path, os.W_OK) and _may_not_write(journal)
        ):
            # SQLite calls this a "disk I/O error".
            kind = StoreReadOnlyError
            trouble = f"{journal.name} may not be written. Give it the mode of the file itself, as with chmod g+w"
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return self.failure(kind, f"{trouble} ({name}: {error})")


def _may_not_write(path: Path) -> bool:
    return os.path.exists(path) and not os.access(path, os.W_OK)


def _primary(error: sqlite3.Error) -> int:
    """Return the error's primary code; the low byte of SQLite's extended codes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
