"""Connections to the store file: settings, transactions, and waiting for locks."""

import logging
import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PureWindowsPath
from types import TracebackType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from views_runs import beside, signals
from views_runs.database.failures import explain, primary_code
from views_runs.exceptions import StorageError, StoreAccessError, StoreBusyError, StoreDamagedError
from views_runs.files import companion
from views_runs.texts import shell_line

log = logging.getLogger("views_runs")

#: The version of the SQLite library, as in ``3.40.1``.
SQLITE_VERSION = sqlite3.sqlite_version

#: Bytes that stay allocated for the journal beside the file.
JOURNAL_SIZE = 1 << 20

# PERSIST, not DELETE: whether a journal needs to be rolled back then depends on its contents, not on whether some
# computer's cache still believes that the file exists; and because the journal's space is already allocated, models
# can be deleted in small steps on a full disk. WAL loses acknowledged commits on network file systems.
# fullfsync: on macOS, fsync alone leaves a commit in the disk's cache.
# secure_delete=FAST, not Debian's default ON, which overwrites every deleted byte and so needs free disk space.
SETTINGS = f"""
PRAGMA mmap_size = 0;
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA secure_delete = FAST;
PRAGMA journal_mode = PERSIST;
PRAGMA journal_size_limit = {JOURNAL_SIZE};
"""

#: The size in bytes of the largest text or BLOB in a row. An expression in a file that is meant to do harm could
#: otherwise make one of 1 GB.
MAX_VALUE = 100_000_000

#: The shortest and longest sleep between two attempts to get a lock, in seconds. SQLite's own handler sleeps for up to
#: 0.1 s, and so misses the pauses that the storing of a large model leaves for others.
POLL = (0.002, 0.010)

#: The same for bulk writers: longer, so that readers get in first when another bulk writer pauses.
BULK_POLL = (0.010, 0.020)

#: Seconds of waiting after which the cause is investigated, and after which the wait is logged.
SUSPICION = 1.0
PATIENCE = 3.0

#: Steps of SQLite's virtual machine, some milliseconds, after which a long statement lets signal handlers run.
STEPS = 100_000

#: Seconds that `os.fork` waits for another thread to leave SQLite.
FORK_PATIENCE = 10.0

Parameters = tuple[Any, ...] | dict[str, Any]

class Gate:
    """Keeps `os.fork` out while a connection is inside SQLite, from the first statement of a transaction to the last.

    A child process inherits SQLite's list of locks and the state of its mutexes: it could wait for mutexes that nobody
    will release, and read under locks that it does not hold.

    Any number of threads can be inside. An RLock would be shorter, but while one thread waits for another process with
    a transaction open, all the others would wait for it, whatever their timeouts. There is no lock here that a signal
    handler could leave held. A count that one leaves too high delays forks until the connection is closed.
    """

    #: The gates of all connections, and the threads that are about to fork.
    _all: "ClassVar[WeakValueDictionary[int, Gate]]" = WeakValueDictionary()
    _forking: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        #: The number of nested uses, and the thread of the last one.
        self._depth = 0
        self._thread = threading.get_ident()
        #: Held by the thread that uses the connection. No thread waits for it.
        self._use = threading.Lock()
        Gate._all[id(self)] = self

    def __enter__(self) -> None:
        if not self._depth or self._thread != threading.get_ident():
            self._take_over()
        # Enter first and look second. The forking thread does the same, so at least one of the two sees the other.
        self._depth += 1
        while self._forking and self._must_wait():
            self._depth -= 1
            time.sleep(0.001)
            self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth and self._use.locked():
            self._use.release()

    def leave(self) -> None:
        """Leave for good: the connection is closed."""
        self._depth = 0
        self._use = threading.Lock()
        Gate._all.pop(id(self), None)

    def _take_over(self) -> None:
        """Use the connection in this thread, unless another thread is using it.

        A worker thread uses the connection of its caller, which waits for it. It can still be using the connection only
        if signal handlers interrupted that wait several times; then the connection remains the worker's.
        """
        thread = threading.get_ident()
        if not self._use.acquire(blocking=False) and self._thread != thread:
            raise InUseError("the connection is in use in another thread", "Try again")
        self._thread = thread

    def _must_wait(self) -> bool:
        """Return whether another thread is about to fork, and this one was not inside before."""
        return bool(self._forking - {self._thread}) and list_inside({self._thread}) == [self] and self._depth == 1


class InUseError(StorageError):
    """Raised when another thread is using the connection."""


def list_inside(threads: set[int | None]) -> list[Gate]:
    """Return the gates of these threads whose connections are inside."""
    gates = [ref() for ref in Gate._all.valuerefs()]
    return [gate for gate in gates if gate and gate._depth > 0 and gate._thread in threads]


def wait_to_fork() -> None:
    """Keep other threads out and wait until they have left, within limits: one may hang on a share that is gone."""
    thread = threading.get_ident()
    Gate._forking.add(thread)
    until = time.monotonic() + FORK_PATIENCE
    # Threads that have ended are not waited for.
    while list_inside({other.ident for other in threading.enumerate()} - {thread}) and time.monotonic() < until:
        time.sleep(0.001)


def go_on() -> None:
    """Let other threads in again."""
    Gate._forking.discard(threading.get_ident())


def forget_others() -> None:
    """In a child process, forget the threads that it lacks; one that forked while inside is still inside."""
    thread = threading.get_ident()
    for gate in [ref() for ref in Gate._all.valuerefs()]:
        if gate and gate._thread != thread:
            gate.leave()
    Gate._forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_to_fork, after_in_parent=go_on, after_in_child=forget_others)


def _watch_signals(raised: list[BaseException]) -> Generator[int, None, None]:
    """Yield 1 to interrupt a long statement if a signal handler has raised an exception or if the work of the thread
    is unwanted, and otherwise 0.

    SQLite calls this as a progress handler. A handler for signals runs when the generator is resumed, inside the `try`;
    it would run before the first line of a function, and `sqlite3` would discard what it raised.
    """
    while True:
        try:
            yield len(raised) or beside.is_unwanted()
        except GeneratorExit:
            return
        except BaseException as error:
            raised.append(error)


class Wait:
    """Waits for a lock: enforces the timeout, investigates the cause, and logs long waits."""

    def __init__(self, connection: "Connection", poll: tuple[float, float]) -> None:
        self._connection = connection
        self._poll = poll
        self._started = time.monotonic()
        self._has_probed = self._has_logged = False

    def sleep(self, error: sqlite3.Error) -> None:
        """Sleep until the next attempt, or raise an error: the timeout has expired, or waiting would not help."""
        if self._connection.raised:
            raise self._connection.raised.pop() from None
        beside.check()
        if primary_code(error) != sqlite3.SQLITE_BUSY:
            raise explain(error, self._connection.path) from error
        waited, timeout = time.monotonic() - self._started, self._connection.timeout
        if not self._has_probed and waited >= min(SUSPICION, timeout):
            self._has_probed = True
            self._refuse_wal()
            self._probe_locks()
        if not self._has_logged and waited > PATIENCE:
            self._has_logged = True
            log.warning(
                "%s is locked by another program, waiting%s", self._connection.path, self._describe_writers()
            )
        if waited >= timeout:
            raise StoreBusyError(
                f"another program has kept the file locked; waited {waited:.1f} s{self._describe_writers()}",
                "Try again later, or wait longer with Storage(..., timeout=SECONDS)",
            ) from error
        self._connection.waits += 1
        time.sleep(random.uniform(*self._poll))

    def _describe_writers(self) -> str:
        from views_runs.database import owners

        return "".join(f"; {writer}" for writer in owners.describe_writers(self._connection))

    def _refuse_wal(self) -> None:
        """Give up if another program uses the file in WAL mode: it may do so for hours."""
        path = self._connection.path
        if companion(path, "-wal").exists():
            raise StoreBusyError(
                "another program has the file open in WAL mode, which can lose data on a network share",
                f"Close that program, and run `{shell_line('sqlite3', str(path), 'PRAGMA journal_mode = DELETE')}`",
            )

    def _probe_locks(self) -> None:
        """Check whether the file system supports locks: if not, SQLite also reports the file as locked."""
        # Imported here because it needs `subprocess`, and most connections never wait.
        from views_runs.database import locks

        try:
            refusal = locks.find_trouble(self._connection.path.parent, processes=1)
        except OSError as error:
            signals.let_through(error)
            # This cannot be determined: the folder may be read-only, or the share may not be responding.
            return
        if refusal:
            raise StoreAccessError(
                f"the file system does not support locks ({refusal}), without which the store would be damaged",
                "Mount the share with locks (NFS: version 4, never nolock), or keep the store elsewhere",
            )


def format_uri(path: PurePath, mode: str) -> str:
    r"""Return the URI of a file for SQLite, in which the server of a Windows share is a part of the path.

    >>> format_uri(PureWindowsPath(r"\\server\share\models.db"), "rw")
    'file:////server/share/models.db?mode=rw'
    """
    return f"{re.sub('^file://(?!/)', 'file:////', path.as_uri())}?mode={mode}"


class Connection:
    """One connection, for one operation; close it, or use it as a context manager.

    `mode` is the mode parameter of SQLite's URI. With a `refusal`, the file is opened for reading only, so that not
    even the journal of an unfinished change is played back, and a write transaction raises the refusal.
    """

    def __init__(self, path: Path, timeout: float, mode: str = "rw", refusal: StorageError | None = None) -> None:
        self.path = path
        self.timeout = timeout
        #: Why nothing may be written; None if it may.
        self.refusal = refusal
        #: The layout of the file, once it is known to be a store.
        self.layout = 0
        self._gate = Gate()
        #: How often it has waited for a lock.
        self.waits = 0
        #: What signal handlers raised during the current statement.
        self.raised: list[BaseException] = []
        watch = _watch_signals(self.raised)
        next(watch)
        try:
            with self._gate:
                uri = format_uri(path, "ro" if refusal else mode)
                self._sqlite = sqlite3.connect(
                    uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False
                )
                self._sqlite.set_progress_handler(watch.__next__, STEPS)
                self._sqlite.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        except sqlite3.Error as error:
            raise explain(error, path) from error

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and roll back an open transaction."""
        try:
            with self._gate:
                self._sqlite.close()
            self._gate.leave()
        except InUseError:
            # It is closed when that thread ends, with the last reference to it.
            pass

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Execute one statement and return all its rows; outside transactions, no lock is held afterwards."""
        found: list[tuple[Any, ...]] = self._wait_for(self._execute, sql, parameters)
        return found

    def row(self, sql: str, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        """Execute one statement and return its first row, or None."""
        return next(iter(self.rows(sql, parameters)), None)

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Execute one statement and return the first column of its first row, or None."""
        found = self.rows(sql, parameters)
        return found[0][0] if found else None

    def change(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        before = self._sqlite.total_changes
        self._wait_for(self._execute, sql, parameters)
        return self._sqlite.total_changes - before

    def repeat(self, sql: str, times: int) -> None:
        """Execute a statement several times, and discard its rows; call this in a transaction."""
        self._wait_for(self._execute_repeatedly, sql, times)

    def script(self, sql: str) -> None:
        """Execute several statements and discard their rows; if the file is locked, start again with the first."""
        self._wait_for(self._execute_script, sql)

    def glance(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute one statement without waiting; return no rows if the file is locked."""
        try:
            with self._gate:
                return self._sqlite.execute(sql).fetchall()
        except sqlite3.Error:
            if self.raised:
                raise self.raised.pop() from None
            return []

    def add_function(self, function: Callable[..., Any], parameters: int) -> None:
        """Make a function available in SQL under its own name."""
        raised = self.raised

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except BaseException as error:
                # `sqlite3` would discard it.
                raised.extend(filter(None, [signals.find_interruption(error)]))
                raise

        self._sqlite.create_function(function.__name__, parameters, call, deterministic=True)

    def read_blob(self, table: str, column: str, rowid: int, most: int) -> bytes:
        """Return a BLOB; one of more than `most` bytes is an error. A SELECT would allocate twice its size."""
        data: bytes = self._wait_for(self._copy_blob, table, column, rowid, most)
        return data

    def write_blob(self, table: str, column: str, rowid: int, data: bytes | bytearray) -> None:
        """Write data to a BLOB of the same size; call this in a transaction."""
        self._wait_for(self._fill_blob, table, column, rowid, data)

    @contextmanager
    def transaction(self, bulk: bool = False) -> Iterator[None]:
        """Execute the block in a write transaction: commit at the end, or roll back if the block raises.

        If it is one of many in a row (`bulk`), it gives way to other processes.
        """
        if self.refusal:
            raise self.refusal.with_traceback(None)
        # A deferred transaction cannot wait: its first write fails at once if the file is locked, whatever the timeout.
        with self._locked(["BEGIN IMMEDIATE"], BULK_POLL if bulk else POLL):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Execute the block in a read transaction; keep it short, because nobody can commit in the meantime.

        Inside a transaction, it is part of that transaction.
        """
        if self._sqlite.in_transaction:
            yield
            return
        # The second statement takes the lock. Waiting for it later, inside the gate, would block `os.fork`.
        with self._locked(["BEGIN", "PRAGMA schema_version"], POLL):
            yield

    def roll_back(self) -> None:
        """Roll back the open transaction, if any."""
        try:
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has rolled back by itself, or the next program to open the file will, from the journal.
            pass

    @contextmanager
    def _locked(self, begin: list[str], poll: tuple[float, float]) -> Iterator[None]:
        wait: Wait | None = None
        while True:
            with self._gate:
                try:
                    for statement in begin:
                        self._sqlite.execute(statement).fetchall()
                except sqlite3.Error as error:
                    self.roll_back()
                    refusal = error
                else:
                    try:
                        yield
                        self.rows("COMMIT")
                    except BaseException:
                        self.roll_back()
                        raise
                    return
            wait = wait or Wait(self, poll)
            wait.sleep(refusal)

    def _wait_for(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Retry a method until the file is not locked or the timeout expires, and return its result."""
        wait: Wait | None = None
        while True:
            try:
                with self._gate:
                    return action(*arguments)
            except UnicodeError as error:
                # Either SQLite's own message about a damaged schema, or an unpaired surrogate in a parameter.
                raise StorageError(f"a string is not valid Unicode: {error}") from error
            except sqlite3.Error as error:
                wait = wait or Wait(self, POLL)
                wait.sleep(error)

    # No variable holds a cursor: the traceback of an exception would keep it, and so keep the file locked.

    def _execute(self, sql: str, parameters: Parameters) -> list[tuple[Any, ...]]:
        return self._sqlite.execute(sql, parameters).fetchall()

    def _execute_repeatedly(self, sql: str, times: int) -> None:
        for _ in range(times):
            self._sqlite.execute(sql).fetchall()

    def _execute_script(self, sql: str) -> None:
        self._sqlite.executescript(sql).close()

    def _copy_blob(self, table: str, column: str, rowid: int, most: int) -> bytes:
        with self._sqlite.blobopen(table, column, rowid, readonly=True) as blob:
            if len(blob) > most:
                raise StoreDamagedError(
                    f"{table}.{column} contains {len(blob):,} bytes, more than were stored",
                    "Restore the file from a backup",
                )
            return blob.read()

    def _fill_blob(self, table: str, column: str, rowid: int, data: bytes | bytearray) -> None:
        with self._sqlite.blobopen(table, column, rowid) as blob:
            blob.write(data)
