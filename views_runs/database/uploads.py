"""Pickles of several parts: write them where no reader sees them, publish them atomically, and clear leftovers.

A row in ``uploads`` is a fence. Every transaction that writes parts increments its ``beat``, and publishing deletes it;
both fail if the row is missing or condemned. A process that clears leftovers condemns the row first. Clearing an upload
that is still being written therefore does no harm: storing that model fails with a clear error.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
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

#: Seconds that a transaction may take before the next is made smaller; readers may have to wait that long.
SHORT = 0.07

#: Seconds between two transactions, so that others get a turn: longer than they sleep between two attempts.
PAUSE = 0.012

#: The maximum total duration, in seconds, of transactions without a pause between them. Other writers that wait are not
#: noticed, so they may wait this long. With a pause after each transaction, storing took 1.7 times as long, and
#: deleting 1.3 times.
UNDISTURBED = 0.15

#: The maximum number of parts to write in one transaction. Larger transactions were not faster.
MOST_PARTS = 8

#: KiB of SQLite's cache of pages, enough for these parts: if it were full, SQLite would write pages, and keep readers
#: out, long before the commit.
CACHE_SIZE = (MOST_PARTS + 1) * 1024

#: The maximum number of parts to delete, and the limits on pages to free, in one transaction, so that its journal fits
#: in the reserved space.
MOST_DELETED = 32
FEWEST_PAGES = 64
MOST_PAGES = 4096

#: A published model has no row in ``uploads``; where damage left it one, its parts are not taken for leftovers.
UNPUBLISHED = "NOT EXISTS (SELECT 1 FROM models WHERE upload = uploads.id)"

#: Seconds without progress, by the clock of the observing process, after which an upload is considered a leftover.
STALE = 600.0


class Pace:
    """Chooses the size of transactions, in parts or pages, so that each stays short, and pauses between them.

    It pauses when another transaction would probably exceed `UNDISTURBED`, and after each that had to wait for a lock.
    """

    def __init__(self, count: int, most: int, fewest: int = 1) -> None:
        self.count, self.most, self.fewest = count, most, fewest
        #: The seconds that are left until the next pause, and those that the last transaction took.
        self._left = self._took = 0.0
        #: The minimum duration of a transaction in seconds, as far as is known, however little it does.
        self._least = 0.0
        self._ended = float("-inf")

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """Pause, execute the block as one of many transactions, and choose the size of the next by its duration."""
        if self._left <= self._took:
            # The time since the last transaction counts towards the pause.
            time.sleep(max(0.0, self._ended + PAUSE - time.monotonic()))
            self._left = UNDISTURBED
        waits = connection.waits
        with connection.transaction(bulk=True):
            # Start timing here: waiting for the lock does not delay others.
            started = time.monotonic()
            yield
        self._ended = time.monotonic()
        self._took = self._ended - started
        self.adapt(self._took)
        self._left -= self._took
        if connection.waits != waits:
            self._left = 0.0

    def adapt(self, took: float) -> None:
        """Choose the size of the next transaction by the seconds that the last one took."""
        # On a disk with slow commits, smaller transactions would not help others: they would wait just as long, and
        # many times more often.
        self._least = took if self.count <= self.fewest else min(self._least, took)
        self.count = max(self.fewest, min(int(self.count * max(SHORT, 2 * self._least) / max(took, 1e-6)), self.most))


class Upload:
    """Writes the parts of one pickle after the first to the file, which is opened when the first are written.

    Used as a context manager, it first clears what others have left, and deletes what it has written if the block
    raises.
    """

    def __init__(self, database: "Database") -> None:
        #: The id of its row in ``uploads``; None until something is written.
        self.id: int | None = None
        self._database = database
        self._waiting: deque[Part] = deque()
        self._written = 0
        self._token = os.urandom(8).hex()
        self._owner = ""
        self._process = os.getpid()
        self._pace = Pace(count=4, most=MOST_PARTS)

    def add(self, part: "Part") -> None:
        """Add the next part, which may stay in memory for a while; after the first, also in another thread."""
        if not self._database.is_open:
            self._database.open()
        self._waiting.append(part)
        if len(self._waiting) >= self._pace.count:
            with self._pace.transaction(self._database.connection):
                self._write(self._database.connection)

    def publish(self, entry: Entry, pickled: "Pickled") -> ModelRecord:
        """Write the remaining parts, pass the fence, and add the model's row, in one small transaction."""
        if not self._database.is_open:
            self._database.open()
        connection, models = self._database.connection, self._database.models
        with self._pace.transaction(connection) if self._waiting else connection.transaction():
            models.refuse(entry)
            if self._waiting:
                self._write(connection)
            if self.id is not None:
                if not connection.change("DELETE FROM uploads WHERE id = ? AND NOT condemned", (self.id,)):
                    raise _explain_loss()
                connection.change("DELETE FROM watches WHERE upload = ?", (self.id,))
            return models.add(entry, pickled, self.id)

    def _write(self, connection: Connection) -> None:
        """Write the parts in memory behind the fence; call this in a transaction."""
        if self.id is None:
            owners.active_tokens[self._token] = self
            self._owner = owners.this_process(self._token)
            started_at = datetime.now(UTC).isoformat(timespec="microseconds")
            connection.rows(f"PRAGMA cache_size = -{CACHE_SIZE}")
            insert = "INSERT INTO uploads (owner, started_at) VALUES (?, ?) RETURNING id"
            self.id = int(connection.value(insert, (self._owner, started_at)))
        elif not connection.change("UPDATE uploads SET beat = beat + 1 WHERE id = ? AND NOT condemned", (self.id,)):
            raise _explain_loss()
        while self._waiting:
            part = self._waiting.popleft()
            self._written += 1
            # As a parameter, the data would be copied twice more: storing took a tenth longer.
            rowid = connection.value(
                "INSERT INTO model_parts (upload, part, digest, data) VALUES (?, ?, ?, zeroblob(?)) RETURNING rowid",
                (self.id, self._written, part.digest, len(part.data)),
            )
            connection.write_blob("model_parts", "data", rowid, part.data)

    def __enter__(self) -> "Upload":
        if self._database.is_open:
            clear_leftovers(self._database.connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self.id is None or self._process != os.getpid():
            # In a forked child, the upload is its parent's.
            owners.active_tokens.pop(self._token, None)
            return
        try:
            # The owner must match too: if the transaction that inserted the row was rolled back, another upload may
            # have its id.
            connection = self._database.connection
            connection.change("UPDATE uploads SET condemned = 1 WHERE id = ? AND owner = ?", (self.id, self._owner))
            clear_condemned(connection)
        except StorageError:
            # The original error matters more; the next store or delete clears the leftovers.
            pass
        finally:
            owners.active_tokens.pop(self._token, None)


def _explain_loss() -> UploadLostError:
    return UploadLostError(
        "storing made no progress for so long that another computer assumed it had died and removed its parts",
        "Store the model again; nothing was stored",
    )


def condemn_published(connection: Connection, upload: int) -> None:
    """Mark the upload of a deleted model for clearing; call this in the transaction that deletes its row."""
    connection.change(
        "INSERT INTO uploads (id, owner, started_at, condemned) VALUES (?, ?, ?, 1) "
        "ON CONFLICT (id) DO UPDATE SET condemned = 1, owner = excluded.owner",
        (upload, owners.this_process(), datetime.now(UTC).isoformat(timespec="microseconds")),
    )


def clear_leftovers(connection: Connection) -> None:
    """Condemn interrupted uploads, and clear all condemned ones."""
    if not connection.value("SELECT count(*) FROM uploads"):
        return
    with connection.transaction():
        select = f"SELECT id, owner, beat FROM uploads WHERE NOT condemned AND {UNPUBLISHED}"
        for upload, owner, beat in connection.rows(select):
            if owners.has_ended(owner) or _is_stale(connection, upload, beat):
                connection.change("UPDATE uploads SET condemned = 1 WHERE id = ?", (upload,))
    clear_condemned(connection)


def _is_stale(connection: Connection, upload: int, beat: int) -> bool:
    """Return whether this host has seen the same beat for `STALE` seconds by its own clock; if not, record the beat."""
    host, now = owners.this_host(), time.time()
    seen = connection.row("SELECT beat, CAST(since AS REAL) FROM watches WHERE upload = ? AND host = ?", (upload, host))
    if seen and seen[0] == beat and seen[1] <= now:
        return bool(now - seen[1] >= STALE)
    connection.change(
        "INSERT INTO watches (upload, host, beat, since) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (upload, host) DO UPDATE SET beat = excluded.beat, since = excluded.since",
        (upload, host, beat, now),
    )
    return False


def clear_condemned(connection: Connection) -> None:
    """Delete the parts of condemned uploads in short transactions; their space can be reused immediately."""
    pace = Pace(count=4, most=MOST_DELETED)
    for (upload,) in connection.rows(f"SELECT id FROM uploads WHERE condemned AND {UNPUBLISHED}"):
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
        # The journal of this transaction outgrew its reserved space, and the disk is full.
        if pace.most == 1:
            raise
        pace.count = pace.most = pace.fewest = 1
        return True


def give_back(connection: Connection, progress: Callable[[int, int], object] | None = None) -> None:
    """Return the file's free pages to the disk in short transactions.

    After each but the last, `progress` is called with the number of bytes returned so far, and the total.
    """
    pace = Pace(count=FEWEST_PAGES, most=MOST_PAGES, fewest=FEWEST_PAGES)
    # Pages are moved: if the cache were full, SQLite would write them, and keep readers out, before the commit.
    connection.rows(f"PRAGMA cache_size = -{CACHE_SIZE}")
    size = connection.value("PRAGMA page_size")
    total = left = connection.value("PRAGMA freelist_count")
    while left:
        try:
            # In a transaction, which waits for readers once its work is done; the statement alone would start again
            # with each attempt. Executed from Python, it frees one page, whatever its argument.
            with pace.transaction(connection):
                connection.repeat("PRAGMA incremental_vacuum(1)", min(pace.count, left))
        except StoreFullError:
            # Moving pages needs more journal space than the full disk has; they stay in the file and will be reused.
            return
        before, left = left, connection.value("PRAGMA freelist_count")
        if left >= before:
            # Other processes free pages faster than this one returns them, and will return the rest.
            return
        if left and progress is not None:
            progress((total - left) * size, total * size)
