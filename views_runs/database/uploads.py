"""Pickles of several parts: written where no reader sees them, published at once, cleared when no longer needed.

A row in ``uploads`` is a fence. Every transaction that writes parts raises its ``beat``, and publishing deletes
it; either one stops when the row is gone or condemned. A process that clears leftovers condemns the row first. So it
does no harm to clear an upload that is still being written: that store fails, and says so.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING

from views_runs.database import owners
from views_runs.database.connection import Connection
from views_runs.exceptions import StorageError, StoreFullError, UploadLostError
from views_runs.records import Entry, ModelRecord

if TYPE_CHECKING:
    from views_runs.database.database import Database
    from views_runs.pickles.parts import Part, Pickled

#: Seconds that a transaction may take before the next one gets smaller: readers may have to wait that long.
SHORT = 0.1

#: Seconds between two transactions, in which others get their turn: longer than they sleep between two attempts.
PAUSE = 0.012

#: Parts that are kept in memory and written in one transaction, at most.
MOST_PARTS = 12

#: Parts that one transaction deletes, and pages that it gives back, at most: their journal fits in what is reserved.
MOST_DELETED = 32
FEWEST_PAGES = 64
MOST_PAGES = 4096

#: Seconds for which an upload must make no progress, by the clock of the process that looks, before it is a leftover.
STALE = 600.0


class Pace:
    """How much to do in one transaction so that it stays short, and the pause between two of them.

    Args:
        count: parts or pages of the first transaction.
        most, fewest: of any transaction.
    """

    def __init__(self, count: int, most: int, fewest: int = 1) -> None:
        self.count, self.most, self.fewest = count, most, fewest
        #: Seconds that a transaction takes however little it does, as far as is known.
        self._least = 0.0
        self._ended = float("-inf")

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """Pause, execute the block as one of many transactions, and choose the size of the next from its time."""
        # What the caller did since the last transaction counts as pause.
        time.sleep(max(0.0, self._ended + PAUSE - time.monotonic()))
        with connection.transaction(bulk=True):
            # Waiting for the lock is not what makes others wait.
            started = time.monotonic()
            yield
        self._ended = time.monotonic()
        self.adapt(self._ended - started)

    def adapt(self, took: float) -> None:
        """Choose the size of the next transaction by the seconds that the last one took."""
        # On a disk that is slow to write anything, doing less at once would not help those who wait: they would wait
        # as long, and many times more often.
        self._least = took if self.count <= self.fewest else min(self._least, took)
        self.count = max(self.fewest, min(int(self.count * max(SHORT, 2 * self._least) / max(took, 1e-6)), self.most))


class Upload:
    """The parts of one pickle after its first, on their way into the file.

    As a context manager it clears what it wrote when the block raises.

    Args:
        database: the store. It is opened when the first parts are written.
    """

    def __init__(self, database: "Database") -> None:
        #: Its row in ``uploads``; None while nothing was written.
        self.id: int | None = None
        self._database = database
        self._waiting: list[Part] = []
        self._written = 0
        self._token = os.urandom(8).hex()
        self._owner = ""
        self._pace = Pace(count=4, most=MOST_PARTS)

    def add(self, part: "Part") -> None:
        """Take the next part; it may stay in memory for a while."""
        self._waiting.append(part)
        if len(self._waiting) >= self._pace.count:
            self._database.open()
            with self._pace.transaction(self._database.connection):
                self._write(self._database.connection)
            self._waiting.clear()

    def publish(self, entry: Entry, pickled: "Pickled") -> ModelRecord:
        """Write what is left, pass the fence, and add the model's row, in one small transaction; return its record.

        Raises:
            UploadLostError: another process has taken this upload for a leftover.
            StorageError: what `Models.refuse` raises.
        """
        self._database.open()
        connection, models = self._database.connection, self._database.models
        with self._pace.transaction(connection) if self._waiting else connection.transaction():
            models.refuse(entry)
            if self._waiting:
                self._write(connection)
            if self.id is not None:
                if not connection.change("DELETE FROM uploads WHERE id = ? AND NOT condemned", (self.id,)):
                    raise _lost()
                connection.change("DELETE FROM watches WHERE upload = ?", (self.id,))
            return models.add(entry, pickled, self.id)

    def _write(self, connection: Connection) -> None:
        """Write the parts in memory behind the fence; in a transaction."""
        if self.id is None:
            owners.active_tokens.add(self._token)
            self._owner = owners.this_process(self._token)
            started_at = datetime.now(UTC).isoformat(timespec="microseconds")
            insert = "INSERT INTO uploads (owner, started_at) VALUES (?, ?) RETURNING id"
            self.id = int(connection.value(insert, (self._owner, started_at)))
        elif not connection.change("UPDATE uploads SET beat = beat + 1 WHERE id = ? AND NOT condemned", (self.id,)):
            raise _lost()
        for number, part in enumerate(self._waiting, self._written + 1):
            connection.change(
                "INSERT INTO model_parts (upload, part, digest, data) VALUES (?, ?, ?, ?)",
                (self.id, number, part.digest, part.data),
            )
        self._written += len(self._waiting)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self.id is None:
            owners.active_tokens.discard(self._token)
            return
        try:
            # Held to the owner too: when the transaction that made the row was rolled back, another upload has its id.
            connection = self._database.connection
            connection.change("UPDATE uploads SET condemned = 1 WHERE id = ? AND owner = ?", (self.id, self._owner))
            clear_condemned(connection)
        except StorageError:
            # The error that brought us here matters more; the next store clears what is left.
            pass
        finally:
            owners.active_tokens.discard(self._token)


def _lost() -> UploadLostError:
    return UploadLostError(
        "this store made no progress for so long that another computer assumed it had died and removed its parts",
        "Store the model again; nothing was stored",
    )


def condemn_published(connection: Connection, upload: int) -> None:
    """Note that no model refers to this upload any more; in the transaction that deletes the last."""
    connection.change(
        "INSERT INTO uploads (id, owner, started_at, condemned) VALUES (?, ?, ?, 1)",
        (upload, owners.this_process(), datetime.now(UTC).isoformat(timespec="microseconds")),
    )


def clear_leftovers(connection: Connection) -> None:
    """Condemn the uploads of stores that died, and clear what is condemned."""
    if not connection.value("SELECT count(*) FROM uploads"):
        return
    with connection.transaction():
        for upload, owner, beat in connection.rows("SELECT id, owner, beat FROM uploads WHERE NOT condemned"):
            if owners.has_ended(owner) or _is_stale(connection, upload, beat):
                connection.change("UPDATE uploads SET condemned = 1 WHERE id = ?", (upload,))
    clear_condemned(connection)


def _is_stale(connection: Connection, upload: int, beat: int) -> bool:
    """Return whether this host has seen the same beat for `STALE` seconds of its own clock; note it otherwise."""
    host, now = owners.this_host(), time.time()
    seen = connection.row("SELECT beat, since FROM watches WHERE upload = ? AND host = ?", (upload, host))
    if seen and seen[0] == beat and seen[1] <= now:
        return bool(now - seen[1] >= STALE)
    connection.change(
        "INSERT INTO watches (upload, host, beat, since) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (upload, host) DO UPDATE SET beat = excluded.beat, since = excluded.since",
        (upload, host, beat, now),
    )
    return False


def clear_condemned(connection: Connection) -> None:
    """Delete the parts of condemned uploads, in short transactions; their space can be used again at once."""
    pace = Pace(count=4, most=MOST_DELETED)
    for (upload,) in connection.rows("SELECT id FROM uploads WHERE condemned"):
        while _delete_parts(connection, upload, pace):
            pass
        with pace.transaction(connection):
            connection.change("DELETE FROM uploads WHERE id = ?", (upload,))
            connection.change("DELETE FROM watches WHERE upload = ?", (upload,))


def _delete_parts(connection: Connection, upload: int, pace: Pace) -> bool:
    """Delete some parts of an upload; return whether there may be more."""
    delete = "DELETE FROM model_parts WHERE rowid IN (SELECT rowid FROM model_parts WHERE upload = ? LIMIT ?)"
    try:
        with pace.transaction(connection):
            return bool(connection.change(delete, (upload, pace.count)))
    except StoreFullError:
        # The journal of this step outgrew what is reserved for it, and the disk has no more.
        if pace.most == 1:
            raise
        pace.count = pace.most = pace.fewest = 1
        return True


def give_back(connection: Connection) -> None:
    """Return the free pages of the file to the disk, in short transactions."""
    pace = Pace(count=FEWEST_PAGES, most=MOST_PAGES, fewest=FEWEST_PAGES)
    left = connection.value("PRAGMA freelist_count")
    while left:
        try:
            # In a transaction, which waits for readers when its work is done: the statement alone would start again at
            # each attempt. However many pages it is told to free, executed by Python it frees one.
            with pace.transaction(connection):
                for _ in range(min(pace.count, left)):
                    connection.rows("PRAGMA incremental_vacuum(1)")
        except StoreFullError:
            # Moving pages takes more journal than the full disk has: they stay in the file, and are used again.
            return
        before, left = left, connection.value("PRAGMA freelist_count")
        if left >= before:
            # Others free pages faster than we give them back: they will do it.
            return
