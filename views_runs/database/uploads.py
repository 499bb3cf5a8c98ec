"""Pickles of several parts: written where no reader sees them, published at once, cleared when nobody needs them.

A row in ``uploads`` is a fence. Every transaction that writes parts raises its ``beat``, and publishing deletes
it; either one stops when the row is gone or condemned. Whoever clears leftovers condemns the row first. So it
does no harm to clear what is still being written: that store fails, and says so.
"""

import getpass
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any

from views_runs.database.connection import Connection
from views_runs.exceptions import StorageError, StoreFullError, UploadLostError
from views_runs.pickles.pickling import Part

#: Seconds that a transaction may take before the next one is made smaller: so long may a reader have to wait.
SHORT = 0.1

#: Seconds between two transactions, in which others get their turn: longer than they sleep between two tries.
PAUSE = 0.012

#: The most parts that are kept in memory and written in one transaction.
MOST_PARTS = 12

#: The most parts, and pages, that one transaction deletes or gives back: their journal fits in what is reserved.
MOST_DELETED = 32
FEWEST_PAGES = 64
MOST_PAGES = 4096

#: The tokens of the uploads that this process is writing.
_under_way: set[str] = set()

#: Seconds for which an upload must stand still, by the clock of whoever looks, before it is a leftover.
STALE = 600.0


class Upload:
    """The parts of one pickle on their way into the file.

    As a context manager it clears what it wrote when the block raises.

    Args:
        connect: opens the store. Called when it is first needed: a model that cannot be pickled leaves no file.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        #: The part that goes into the model's own row.
        self.first: Part | None = None
        #: Its row in ``uploads``; None while the pickle has one part.
        self.id: int | None = None
        self._connect = connect
        self._connection: Connection | None = None
        self._waiting: list[Part] = []
        self._parts = 0
        self._token = os.urandom(8).hex()
        self._owner = this_process(self._token)
        self._pace = Pace(first=4, most=MOST_PARTS)

    @property
    def connection(self) -> Connection:
        """The connection, opened when it is first asked for."""
        if self._connection is None:
            self._connection = self._connect()
            clear_leftovers(self._connection)
        return self._connection

    def add(self, part: Part) -> None:
        """Take the next part; it may stay in memory for a while."""
        if self.first is None:
            self.first = part
            return
        self._waiting.append(part)
        if len(self._waiting) >= self._pace.count:
            self.flush()

    def flush(self) -> None:
        """Write the parts that are still in memory."""
        if not self._waiting:
            return
        with self._pace.step(), self.connection.transaction(bulk=True):
            self._pace.begin()
            if self.id is None:
                _under_way.add(self._token)
                self.id = self._begin()
            self._beat()
            for part in self._waiting:
                self._parts += 1
                self.connection.change(
                    "INSERT INTO model_parts (upload, part, digest, data) VALUES (?, ?, ?, ?)",
                    (self.id, self._parts, part.digest, part.data),
                )
        self._waiting.clear()

    def publish(self) -> None:
        """Pass the fence; to be called in the transaction that makes the model's row."""
        if self.id is None:
            return
        if not self.connection.change("DELETE FROM uploads WHERE id = ? AND NOT condemned", (self.id,)):
            raise self._lost()
        self.connection.change("DELETE FROM watches WHERE upload = ?", (self.id,))

    def __enter__(self) -> "Upload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is None:
            return
        try:
            if kind is not None and self.id is not None:
                # Held to the owner too: when the transaction that made the row was rolled back, another has its id.
                self._connection.change(
                    "UPDATE uploads SET condemned = 1 WHERE id = ? AND owner = ?", (self.id, self._owner)
                )
                clear_condemned(self._connection)
        except StorageError:
            # The error that brought us here matters more; the next store clears what is left.
            pass
        finally:
            _under_way.discard(self._token)
            self._connection.close()

    def _begin(self) -> int:
        started_at = datetime.now(UTC).isoformat(timespec="microseconds")
        return int(
            self.connection.value(
                "INSERT INTO uploads (owner, started_at) VALUES (?, ?) RETURNING id",
                (self._owner, started_at),
            )
        )

    def _beat(self) -> None:
        if not self.connection.change("UPDATE uploads SET beat = beat + 1 WHERE id = ? AND NOT condemned", (self.id,)):
            raise self._lost()

    def _lost(self) -> StorageError:
        return self.connection.failure(
            UploadLostError,
            "nothing was written for so long that another computer took this for a store that had died, and "
            "cleared it. Store the model again; nothing was stored",
        )


class Pace:
    """How much to do in one transaction so that it stays short, and the pause between two of them.

    Args:
        first: how much to begin with.
        most: how much at most.
        fewest: how much at least, unless it is to `slow_down`.
    """

    def __init__(self, first: int, most: int, fewest: int = 1) -> None:
        #: How many parts or pages the next transaction should take.
        self.count = first
        self._most = most
        self._fewest = fewest
        #: Seconds that a transaction takes however little it does, as far as is known.
        self._least = 0.0
        self._ended = float("-inf")

    def step(self) -> "Pace":
        """Return the context manager for one transaction."""
        return self

    def __enter__(self) -> None:
        # What the caller did since the last transaction counts as pause.
        time.sleep(max(0.0, self._ended + PAUSE - time.monotonic()))
        self.begin()

    def begin(self) -> None:
        """Note that the lock is there: to wait for it is not what makes others wait."""
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = time.monotonic()
        took = self._ended - self._started
        # On a disk that is slow to write anything, to do less at once would not help those who wait: they would wait
        # as long, and many times more often.
        self._least = took if self.count <= self._fewest else min(self._least, took)
        if took > max(SHORT, 2 * self._least):
            self.count = max(self._fewest, self.count // 2)
        elif took < max(SHORT / 2, 1.5 * self._least):
            self.count = min(self._most, self.count * 2)

    def slow_down(self) -> bool:
        """Take the least from now on; return False when that was done before."""
        if self.count == self._most == 1:
            return False
        self.count = self._most = self._fewest = 1
        return True


def condemn(connection: Connection, upload: int) -> None:
    """Note that nobody needs this upload; in the transaction that found it dead."""
    connection.change("UPDATE uploads SET condemned = 1 WHERE id = ?", (upload,))


def condemn_published(connection: Connection, upload: int) -> None:
    """Note that no model refers to this upload any more; in the transaction that deletes the last."""
    connection.change(
        "INSERT INTO uploads (id, owner, started_at, condemned) VALUES (?, ?, ?, 1)",
        (upload, this_process(), datetime.now(UTC).isoformat(timespec="microseconds")),
    )


def clear_leftovers(connection: Connection) -> None:
    """Condemn the uploads of stores that died, and clear what is condemned."""
    if not connection.value("SELECT count(*) FROM uploads"):
        return
    with connection.transaction():
        for upload in list(_dead(connection)):
            condemn(connection, upload)
    clear_condemned(connection)


def clear_condemned(connection: Connection) -> None:
    """Delete the parts of condemned uploads, in short transactions; their space can be used again at once."""
    pace = Pace(first=4, most=MOST_DELETED)
    for (upload,) in connection.rows("SELECT id FROM uploads WHERE condemned"):
        while _delete_parts(connection, upload, pace):
            pass
        with pace.step(), connection.transaction(bulk=True):
            connection.change("DELETE FROM uploads WHERE id = ?", (upload,))
            connection.change("DELETE FROM watches WHERE upload = ?", (upload,))


def give_back(connection: Connection) -> None:
    """Return the free pages of the file to the disk, in short transactions."""
    pace = Pace(first=FEWEST_PAGES, most=MOST_PAGES, fewest=FEWEST_PAGES)
    left = connection.value("PRAGMA freelist_count")
    while left:
        try:
            # In a transaction, which waits for readers when its work is done: the statement alone would begin anew at each
            # try. However many pages it is told to free, executed by Python it frees one.
            with pace.step(), connection.transaction(bulk=True):
                pace.begin()
                for _ in range(min(pace.count, left)):
                    connection.rows("PRAGMA incremental_vacuum(1)")
        except StoreFullError:
            # Moving pages takes more journal than the full disk has: they stay in the file, to be used again.
            return
        before, left = left, connection.value("PRAGMA freelist_count")
        if left >= before:
            # Others free pages faster than we give them back: they will do it.
            return


def _delete_parts(connection: Connection, upload: int, pace: Pace) -> bool:
    """Delete some parts of an upload; return whether there may be more."""
    try:
        with pace.step(), connection.transaction(bulk=True):
            pace.begin()
            return bool(
                connection.change(
                    "DELETE FROM model_parts WHERE rowid IN (SELECT rowid FROM model_parts WHERE upload = ? LIMIT ?)",
                    (upload, pace.count),
                )
            )
    except StoreFullError:
        # The journal of this step outgrew what is reserved for it, and the disk has no more.
        if not pace.slow_down():
            raise
        return True


def _dead(connection: Connection) -> Iterator[int]:
    """Yield the uploads that died, and note since when the others stand still."""
    # Two computers may have one name, and their clocks may differ.
    host, now = f"{platform.node()} {_kernel() or ''}", time.time()
    for upload, owner, beat, condemned in connection.rows("SELECT id, owner, beat, condemned FROM uploads"):
        if not condemned and (is_gone(owner) or _stands_still(connection, upload, beat, host, now)):
            yield upload


def _stands_still(connection: Connection, upload: int, beat: int, host: str, now: float) -> bool:
    """Whether this host has seen the same beat for `STALE` seconds of its own clock."""
    seen = connection.row("SELECT beat, since FROM watches WHERE upload = ? AND host = ?", (upload, host))
    if seen and seen[0] == beat and seen[1] <= now:
        return bool(now - seen[1] >= STALE)
    connection.change(
        "INSERT INTO watches (upload, host, beat, since) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (upload, host) DO UPDATE SET beat = excluded.beat, since = excluded.since",
        (upload, host, beat, now),
    )
    return False


def writers(connection: Connection) -> list[str]:
    """Return who else is writing a model of several parts, and since when, as far as that can be read at once."""
    found = connection.glance("SELECT owner, started_at FROM uploads WHERE NOT condemned ORDER BY id")
    shown = ((_about(owner, started_at), owner) for owner, started_at in found)
    return [
        f"{about[0]} has been storing a model since {about[1]}" for about, owner in shown if about and not is_own(owner)
    ]


def dead_and_alive(connection: Connection) -> tuple[list[str], list[str]]:
    """Return, in words, the uploads that nobody will go on with, and those that somebody may."""
    dead, alive = [], []
    for owner, started_at, condemned in connection.rows("SELECT owner, started_at, condemned FROM uploads ORDER BY id"):
        who, since = _about(owner, started_at) or ("somebody", "an unknown time")
        if condemned or is_gone(owner):
            dead.append(f"{who}, {since}")
        else:
            alive.append(f"{who} has been storing a model since {since}, or died on another computer")
    return dead, alive


def is_own(owner: str) -> bool:
    """Whether this very process is writing the upload."""
    try:
        return json.loads(owner)["token"] in _under_way
    except (ValueError, TypeError, LookupError):
        return False


def _about(owner: str, started_at: str) -> tuple[str, str] | None:
    try:
        process = json.loads(owner)
        since = datetime.fromisoformat(started_at).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{process['user']} (process {process['pid']})", since
    except (ValueError, TypeError, LookupError):
        return None


def this_user() -> str:
    """Return ``user@host``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        # Python 3.13 raises OSError, older ones KeyError, for a user id without a name.
        user = str(os.getuid()) if hasattr(os, "getuid") else "?"
    # A name that is not UTF-8 must not lose a model that was trained for hours.
    return f"{user}@{platform.node()}".encode("utf-8", "backslashreplace").decode()


def this_process(token: str = "") -> str:
    """Return the identity of this process as JSON: user and host, process id and, on Linux, what makes them unique.

    Args:
        token: which of its uploads this is about.
    """
    process = {"user": this_user(), "pid": os.getpid(), "kernel": _kernel(), "start": _start(os.getpid())}
    return json.dumps({**process, "token": token})


def is_gone(owner: str) -> bool:
    """Whether the process certainly ended: it ran under this kernel, among these process ids, and is not there.

    An upload of this very process that it is no longer writing counts as ended too. Of a process elsewhere, and on systems that cannot tell, nothing is certain.
    """
    try:
        process: dict[str, Any] = json.loads(owner)
        here = process["kernel"] is not None and process["kernel"] == _kernel()
        if not here or process["start"] is None:
            return False
        if (process["pid"], process["start"]) == (os.getpid(), _start(os.getpid())):
            return process["token"] not in _under_way
        return _has_ended(process["pid"], process["start"])
    except (ValueError, TypeError, LookupError):
        return False


def _has_ended(pid: int, start: int) -> bool:
    found = _start(pid)
    if found is not None:
        return found != start
    try:
        # Where /proc hides the processes of others, a process that is there is one that may not be signalled.
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return os.path.exists(f"/proc/{pid}")


@cache
def _kernel() -> str | None:
    """Return what names this boot of this kernel and this set of process ids; None where nothing does."""
    try:
        return f"{boot()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def boot() -> str:
    """Return what names this boot of this kernel, whatever the container.

    Raises:
        OSError: nothing does.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _start(pid: int) -> int | None:
    """Return when the process started, in clock ticks since the boot; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in brackets may hold spaces and brackets; what follows does not.
            fields = file.read().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError):
        return None
