"""Test whether a share loses data when two computers commit to it at the same time.

The first to create the file `HOST` is the host, the second creates `GUEST`, and a third is turned away. Each repeatedly
rewrites its file with an increasing counter, so neither needs the other's address, and no clocks are compared: a
computer whose counter has stopped is considered dead, and its file is replaced. Both commit to a scratch database as to
a store, and count how many of the acknowledged commits have arrived: an integrity check would not notice a lost one.
"""

import json
import os
import platform
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from views_runs.database import owners, uploads
from views_runs.database.connection import SETTINGS, Connection
from views_runs.database.database import find_refusal, share_with_group
from views_runs.database.schema import NEW_FILE
from views_runs.exceptions import StorageError, StoreAccessError, StoreDamagedError
from views_runs.files import remove
from views_runs.records import Encounter

#: The prefix of all files created here, and the files of the two roles.
PROBE = ".views_runs-peer"
HOST, GUEST = f"{PROBE}.json", f"{PROBE}-guest.json"

#: Seconds between two announcements. Each also changes the folder, so that a network file system rereads it.
INTERVAL = 0.2

#: The maximum number of seconds to linger after finishing, so that the peer can read the result. On a busy share with a
#: cache, one attempt may not be enough.
LINGER = 20.0

#: Consecutive commits through one connection, as a store opens one for each operation.
BATCH = 5

#: The maximum number of commits by which one computer may be ahead, so that both write at the same time.
LEAD = 2 * BATCH

#: The number of errors after which to stop, because the share does not work.
MOST_ERRORS = 5

# Two B-trees, and rows that soon need new pages: the first thing to go wrong is each computer's view of the file size.
SCHEMA = f"""
{NEW_FILE}
CREATE TABLE commits (token INTEGER NOT NULL, number INTEGER NOT NULL, filling BLOB NOT NULL, UNIQUE (token, number));
"""
FILLING = 6000

#: The stages of a meeting.
COMMITTING, DONE, COUNTED, PARTING = range(4)


@dataclass
class Announcement:
    """What a computer announces in the file of its role."""

    #: Identifies the computer; 0 for none. The database is named after it, and a number cannot lead to another folder.
    token: int = 0
    host: str = "an unknown computer"
    #: Equal for two processes that share a kernel and a mount, and so a cache.
    computer: str = ""
    beat: int = 0
    #: The token of its partner; 0 until it has one.
    partner: int = 0
    stage: int = COMMITTING
    #: The number of its commits that returned without an error.
    acknowledged: int = 0
    #: The number of acknowledged commits that it found at the end: its own, and its partner's.
    arrived: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def meet(folder: Path, say: Callable[[str], object], patience: float = 60.0, commits: int = 50) -> Encounter:
    """Wait for another computer that runs this, commit at the same time, and count the commits that arrive.

    Nothing is left in the folder. A computer is waited for, and commits, for at most `patience` seconds; one whose
    counter stops for half as long is considered dead: no step takes that long.
    """
    if refusal := find_refusal(folder):
        raise refusal
    return Meeting(folder.absolute(), say, patience).hold(commits)


class Meeting:
    """One side of a meeting."""

    def __init__(self, folder: Path, say: Callable[[str], object], patience: float) -> None:
        self._folder = folder
        self._say = say
        self._patience = patience
        self._began = self._announced = self._changed = time.monotonic()
        #: The files of this side's role and the other role, and the scratch database; set once this side has a role.
        self._file = self._other_file = self._database = folder / PROBE
        self._mine = Announcement(int.from_bytes(os.urandom(7)), platform.node(), identify_computer(folder))
        #: The other computer's latest announcement, and when its counter was last seen to increase.
        self._other = Announcement()
        #: Why contact with it was lost; empty if it was not.
        self._lost = ""
        self._failed = 0
        #: The number of reads that missed commits acknowledged earlier, and the maximum number of commits missed.
        self._stale = self._behind = 0

    def hold(self, commits: int) -> Encounter:
        """Run the whole meeting, and leave nothing in the folder."""
        try:
            if self.find():
                self.commit(commits)
                self.count()
                self.part()
            return self.summarize()
        finally:
            self.clear()

    def find(self) -> bool:
        """Take a role and wait for the other computer; return False if none joins."""
        mine = self._mine
        host = self._take(HOST, GUEST)
        mine.partner = host.token if host else 0
        if host and (host.partner or self._take(GUEST, HOST)):
            trouble = f"two computers are already running this test, one of them {host.host}"
            raise StorageError(trouble, "Try again when they are done")
        self._database = self._folder / f"{PROBE}-{(host or mine).token:014x}.db"
        if not host:
            return self._wait_for_guest()
        self._other, self._changed = host, time.monotonic()
        self._wait_until(lambda: self._other.partner == mine.token)
        return not self._lost

    def commit(self, commits: int) -> None:
        """Commit as a store does until all commits are acknowledged, there are too many errors, or time runs out."""
        mine = self._mine
        self._say(f"found {self._other.host}; both commit {commits} times")
        ends = time.monotonic() + self._patience
        while mine.acknowledged < commits and self._failed < MOST_ERRORS and not self._lost and time.monotonic() < ends:
            self._wait_until(
                lambda: self._other.acknowledged + LEAD >= mine.acknowledged or self._other.stage >= DONE
            )
            batch = min(BATCH, commits - mine.acknowledged)
            self._use_database(lambda connection: self._commit_batch(connection, batch))
        mine.stage = DONE
        self._wait_until(lambda: self._other.stage >= DONE)

    def count(self) -> None:
        """Count the commits that arrived, and wait until the other computer has counted too."""
        mine = self._mine
        self._say("counting the commits that arrived")
        if self._stale:
            missed = f"{self._stale} reads missed commits that had been acknowledged earlier"
            mine.errors.append(f"{missed}, up to {self._behind} of them")
        self._use_database(self._count_commits)
        mine.stage = COUNTED
        self._wait_until(lambda: self._other.stage >= COUNTED)

    def part(self) -> None:
        """Linger until the other computer has read the counts or has left."""
        self._mine.stage = PARTING
        ends = time.monotonic() + LINGER
        self._wait_until(
            lambda: self._other.stage >= PARTING
            or read(self._other_file).token != self._other.token
            or time.monotonic() > ends
        )

    def summarize(self) -> Encounter:
        """Return the result of both sides."""
        mine, other = self._mine, self._other
        errors = [*mine.errors, *(f"{other.host}: {error}" for error in other.errors), *filter(None, [self._lost])]
        if other.arrived and other.arrived != mine.arrived[::-1]:
            there, here = other.arrived
            errors.append(f"{other.host} found {there} of its own commits and {here} of those from {mine.host}")
        arrived_here, arrived_there = mine.arrived or (0, 0)
        return Encounter(
            host=mine.host,
            other_host=other.host if other.token else None,
            acknowledged_here=mine.acknowledged,
            acknowledged_there=other.acknowledged,
            arrived_here=arrived_here,
            arrived_there=arrived_there,
            errors=tuple(errors),
            same_computer=mine.computer == other.computer,
            took=time.monotonic() - self._began,
        )

    def clear(self) -> None:
        """Delete the scratch database and this side's file, and the other side's file if contact with it was lost."""
        remove(self._database)
        for file, said in [(self._file, self._mine), *([(self._other_file, self._other)] if self._lost else [])]:
            # By now a third computer may have taken the file.
            if read(file).token in (0, said.token):
                remove(file)
                remove(file.with_name(f"{file.name}.tmp"))

    def _take(self, role: str, other_role: str) -> Announcement | None:
        """Create the file of a role; if a live computer already has the role, return its announcement."""
        file, until = self._folder / role, time.monotonic() + self._patience / 2
        first = read(file)
        if first.token:
            self._say(f"found a file from {first.host}; waiting for a sign of life from it")
        try:
            while True:
                with suppress(FileExistsError), file.open("x", encoding="utf-8") as opened:
                    self._file, self._other_file = file, self._folder / other_role
                    json.dump(asdict(self._mine), opened)
                    return None
                said = read(file)
                if said.token and said != first:
                    return said
                if time.monotonic() > until:
                    file.unlink(missing_ok=True)
                time.sleep(INTERVAL)
        except OSError as error:
            trouble = f"{file} cannot be created or replaced: {error.strerror}"
            advice = "Check that the folder is writable and has free space. Remove the file if this test is not running"
            raise StoreAccessError(trouble, advice) from error

    def _wait_for_guest(self) -> bool:
        """Wait for a guest, and create the database."""
        for file in self._folder.glob(f"{PROBE}-*.db*"):
            # Left behind by a host that died.
            remove(file)
        within = f"within {self._patience:.0f} s"
        command = "`views-runs model doctor --peer`"
        self._say(f"waiting for another computer: run {command} there, on the same store, {within}")
        ends = time.monotonic() + self._patience
        while not self._other.token and not self._lost and time.monotonic() < ends:
            self._turn()
        if self._other.token:
            self._use_database(self._create_tables, "rwc")
        self._mine.partner = self._other.token
        return self._mine.partner != 0

    def _turn(self) -> None:
        """Write this side's announcement, then read the other side's."""
        with suppress(OSError):
            # This test expects shares that fail occasionally; a lasting failure is noticed because the counter stops.
            self._announce()
        time.sleep(INTERVAL * random.uniform(0.5, 1))
        said, other = read(self._other_file), self._other
        is_guest = not other.token and said.partner == self._mine.token
        # A cache may show an older announcement.
        if is_guest or (said.token == other.token and said.beat > other.beat):
            self._other, self._changed = said, time.monotonic()

    def _announce(self) -> None:
        if read(self._file).token not in (0, self._mine.token):
            self._lost = "this process was suspended for so long that another computer took its place"
            return
        self._mine.beat += 1
        temporary = self._file.with_name(f"{self._file.name}.tmp")
        temporary.write_text(json.dumps(asdict(self._mine)), "utf-8")
        with suppress(OSError):
            # Others must be able to read it, whatever the umask.
            temporary.chmod(0o644)
        temporary.replace(self._file)
        self._announced = time.monotonic()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the other computer fulfils a condition, unless its counter stops for too long."""
        silence = self._patience / 2
        while not self._lost:
            self._turn()
            if condition():
                return
            if time.monotonic() > self._changed + silence:
                nothing = f"no sign of life from {self._other.host} for {silence:.0f} s"
                self._lost = f"{nothing}: it was stopped or lost the share"

    def _use_database(self, action: Callable[[Connection], object], mode: str = "rw") -> None:
        """Open the scratch database as a store is opened, and call `action` with the connection; record errors."""
        try:
            # Three waits in a row must not exceed the silence after which this side would be considered dead.
            with Connection(self._database, self._patience / 6, mode) as connection:
                connection.script(SETTINGS)
                action(connection)
        except StorageError as error:
            self._failed += 1
            # The advice about damaged stores does not apply here.
            text = error.trouble
            if isinstance(error, StoreDamagedError):
                text = f"the scratch database is damaged: {error.__cause__ or text}"
            if text not in self._mine.errors:
                self._mine.errors.append(text)

    def _create_tables(self, connection: Connection) -> None:
        share_with_group(connection.path)
        connection.script(SCHEMA)

    def _commit_batch(self, connection: Connection, batch: int) -> None:
        for _ in range(batch):
            self._check_reads(connection)
            time.sleep(uploads.PAUSE)
            self._commit_once(connection)
            if time.monotonic() > self._announced + INTERVAL:
                with suppress(OSError):
                    self._announce()

    def _commit_once(self, connection: Connection) -> None:
        number = self._mine.acknowledged + 1
        with connection.transaction():
            # A failed commit may have arrived nevertheless, and is retried.
            connection.change(
                "INSERT OR REPLACE INTO commits (token, number, filling) VALUES (?, ?, randomblob(?))",
                (self._mine.token, number, FILLING),
            )
        # Recorded here rather than in the database, where the record would be lost together with the commit.
        self._mine.acknowledged = number

    def _check_reads(self, connection: Connection) -> None:
        """Record whether a read misses commits that were acknowledged before it."""
        expected = {said.token: said.acknowledged for said in (self._mine, self._other)}
        found = dict(connection.rows("SELECT token, count(*) FROM commits GROUP BY token"))
        behind = max(number - found.get(token, 0) for token, number in expected.items())
        if behind > 0:
            self._stale += 1
            self._behind = max(self._behind, behind)

    def _count_commits(self, connection: Connection) -> None:
        count = "SELECT count(*) FROM commits WHERE token = ? AND number <= ?"
        both = (self._mine, self._other)
        self._mine.arrived = [connection.value(count, (said.token, said.acknowledged)) for said in both]
        trouble = connection.value("PRAGMA integrity_check(1)")
        if trouble != "ok":
            self._mine.errors.append(f"the scratch database is damaged: {trouble}")


def identify_computer(folder: Path) -> str:
    """Return an identifier of this kernel and the mount that the folder is on."""
    kernel = platform.node()
    with suppress(OSError):
        kernel = owners.boot()
    return f"{kernel} {os.stat(folder).st_dev}"


def read(file: Path) -> Announcement:
    """Read an announcement from a file, replacing unprintable characters; without one, return an empty announcement."""
    try:
        said = Announcement(**json.loads(file.read_text("utf-8")))
        texts = (said.host, *said.errors[: 2 * MOST_ERRORS])
        said.host, *said.errors = ("".join(one if one.isprintable() else "?" for one in text) for text in texts)
        return said
    except (OSError, ValueError, TypeError):
        return Announcement()
