"""Whether the share that holds a store keeps what two computers commit to it: they meet beside it and try.

Each announces itself by a small file that it writes anew again and again, so that neither needs to know the other's
address, and no clocks are compared: who is there is who is seen to count on. The two agree on a scratch database,
commit to it at the same time just as a store is written, and count what has arrived of what was acknowledged.
An integrity check does not notice a commit that is lost.
"""

import errno
import json
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from views_runs.database import uploads
from views_runs.database.connection import SETTINGS, Connection
from views_runs.files import COMPANIONS
from views_runs.exceptions import (
    StorageError,
    StoreAccessError,
    StoreDamagedError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
)
from views_runs.records import Encounter
from views_runs.database.schema import NEW_FILE, open_to_group

#: What the names of all files for this begin with.
PROBE = ".views_runs-peer"

#: Seconds between two announcements. Each also changes the folder: so a network file system has to look at it again.
INTERVAL = 0.2

#: Seconds after which one that does not count on is not chosen any more.
RECENT = 5.0

#: Seconds that one who knows everything stays, so that the other gets to know it too.
LINGER = 5.0

#: Commits in a row through one connection: a store opens one for each operation.
BATCH = 5

#: How many commits one may be ahead of the other: so they write at the same time.
LEAD = 2 * BATCH

#: After so many errors it is known that this share does not work.
MOST_ERRORS = 5

DOING = "commit together with another computer"

# Two trees, and rows that soon need new pages: what goes wrong first is each computer's idea of how long the file is.
SCHEMA = f"""
{NEW_FILE}
CREATE TABLE commits (token TEXT NOT NULL, number INTEGER NOT NULL, filling BLOB NOT NULL, UNIQUE (token, number));
"""
FILLING = 6000

#: How far somebody is.
LOOKING, COMMITTING, DONE, COUNTED, PARTING = range(5)

_TOKEN = re.compile(r"[0-9a-f]{16}")
_DATABASE = re.compile(rf"{re.escape(PROBE)}-([0-9a-f]{{16}})-[0-9a-f]{{8}}\.db")


@dataclass
class Announcement:
    """What one says of itself to all."""

    token: str
    host: str
    #: Equal where two share one kernel and one mount, and so one cache.
    computer: str
    #: As in the owner of an upload.
    process: str
    #: Raised each time.
    beat: int = 0
    state: int = LOOKING
    #: The token of the one it would like to work with.
    partner: str = ""
    #: The scratch database that it offers, or has agreed to.
    database: str = ""
    #: How many of its commits have returned.
    acknowledged: int = 0
    #: How many it counted in the end, by token.
    arrived: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass
class Sighting:
    """What is known of somebody else."""

    said: Announcement
    since: float
    #: When it was last seen to have counted on.
    changed: float | None = None


def meet(folder: Path, say: Callable[[str], object], patience: float = 60.0, commits: int = 50) -> Encounter:
    """Wait for somebody who does the same elsewhere, commit at the same time, and count what arrived.

    The store itself is not touched, and nothing is left beside it.

    Args:
        folder: where the store is.
        say: is told in a sentence what goes on.
        patience: for how many seconds to wait for somebody, and for a sign of life.
        commits: how many commits this side tries; a slow share may not get so far in `patience` seconds more.

    Raises:
        StorageError: nothing can be written there.
    """
    return Meeting(folder.absolute(), say, patience).hold(commits)


class Meeting:
    """One side of a meeting.

    Args:
        folder, say, patience: as for `meet`.
    """

    def __init__(self, folder: Path, say: Callable[[str], object], patience: float) -> None:
        self._folder = folder
        self._say = say
        self._patience = patience
        self._began = time.monotonic()
        self._announced = float("-inf")
        #: Everybody else who was ever seen, by token.
        self._seen: dict[str, Sighting] = {}
        #: The scratch databases that were there before.
        self._old: set[str] = set()
        #: Why nothing more is to be expected of the partner.
        self._lost = ""
        #: How often something failed here.
        self._failed = 0
        #: How often a read did not show what had been acknowledged before it, and by how many commits at most.
        self._stale = self._behind = 0
        self._mine = Announcement(os.urandom(8).hex(), platform.node(), _computer(folder), uploads.this_process())

    def hold(self, commits: int) -> Encounter:
        """Do it all, and leave nothing."""
        try:
            try:
                self._announce()
            except OSError as error:
                raise _failure(self._folder, error) from error
            self._old = {name for name in self._names() if _DATABASE.fullmatch(name)}
            self._say(
                "waiting for another computer: run `viewser model doctor --peer` there, on the same store, within "
                f"{self._patience:.0f} s"
            )
            if self._find():
                self._say(f"found {self._other.host}; both commit {commits} times")
                self._commit(commits)
                self._say("counting what arrived")
                self._count()
                self._part()
            return self._encounter()
        finally:
            self._clear()

    # Who is there

    @property
    def _other(self) -> Announcement:
        """What the partner said last."""
        return self._seen[self._mine.partner].said

    def _turn(self) -> set[str]:
        """Announce what is new here, see what the others say after a while, and return the tokens of those there."""
        with suppress(OSError):
            # A share that fails at times is what is looked for; one that stays away is noticed by its silence.
            self._announce()
        time.sleep(INTERVAL * random.uniform(0.5, 1))
        return self._look()

    def _announce(self) -> None:
        self._mine.beat += 1
        temporary = self._path(self._mine.token, "tmp")
        temporary.write_text(json.dumps(asdict(self._mine)), "utf-8")
        with suppress(OSError):
            # Whatever the umask, it is meant for others.
            temporary.chmod(0o644)
        temporary.replace(self._path(self._mine.token))
        self._announced = time.monotonic()

    def _look(self) -> set[str]:
        there = set()
        for name in self._names():
            token = name.removeprefix(f"{PROBE}-").removesuffix(".json")
            if _TOKEN.fullmatch(token) and name.endswith(".json") and token != self._mine.token:
                there.add(token)
                with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
                    self._note(_read(self._path(token), token))
        return there

    def _note(self, said: Announcement) -> None:
        known = self._seen.get(said.token)
        if known is None:
            self._seen[said.token] = Sighting(said, time.monotonic())
        # A cache may show what was said before.
        elif said.beat > known.said.beat:
            known.said, known.changed = said, time.monotonic()

    def _silence(self, token: str) -> float:
        """Return for how many seconds somebody has not been seen to count on."""
        changed = self._seen[token].changed
        return float("inf") if changed is None else time.monotonic() - changed

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except OSError:
            return []

    def _path(self, token: str, ending: str = "json") -> Path:
        return self._folder / f"{PROBE}-{token}.{ending}"

    # Finding a partner: the one with the smaller token offers a database, the other agrees, the first begins

    def _find(self) -> bool:
        """Agree with somebody on a scratch database; return False if nobody came."""
        mine = self._mine
        while mine.database or time.monotonic() < self._began + self._patience:
            self._turn()
            self._choose()
            if not mine.partner or self._other.partner != mine.token:
                continue
            if mine.token < mine.partner:
                if not mine.database:
                    self._offer()
                elif self._other.database == mine.database:
                    mine.state = COMMITTING
                    return True
            else:
                mine.database = self._other.database
                if mine.database and self._other.state >= COMMITTING:
                    mine.state = COMMITTING
                    return True
        self._withdraw()
        return False

    def _choose(self) -> None:
        """Take the smallest token that is free, or has taken this one; keep to an agreement while the other does."""
        mine = self._mine
        free = [
            token
            for token, one in self._seen.items()
            if self._silence(token) < RECENT and one.said.partner in ("", mine.token)
        ]
        if mine.database:
            if mine.partner in free and self._other.partner:
                return
            self._withdraw()
        mine.partner = min(free, default="")

    def _offer(self) -> None:
        self._mine.database = f"{PROBE}-{self._mine.token}-{os.urandom(4).hex()}.db"
        with self._try(), self._connect(create=True) as connection:
            open_to_group(connection.path)
            connection.script(SCHEMA)

    def _withdraw(self) -> None:
        if self._mine.database.startswith(f"{PROBE}-{self._mine.token}"):
            self._remove_database(self._mine.database)
        self._mine.database = self._mine.partner = ""
        self._mine.errors.clear()
        self._failed = 0

    # Writing

    def _commit(self, commits: int) -> None:
        """Commit in the manner of a store until all is acknowledged, or too much has failed."""
        mine = self._mine
        ends = time.monotonic() + self._patience
        while mine.acknowledged < commits and self._failed < MOST_ERRORS and not self._lost:
            self._wait_until(
                lambda there: self._other.acknowledged + LEAD >= mine.acknowledged or self._other.state >= DONE
            )
            with self._try(), self._connect() as connection:
                for _ in range(min(BATCH, commits - mine.acknowledged)):
                    self._check(connection)
                    time.sleep(uploads.PAUSE)
                    self._commit_once(connection)
                    if time.monotonic() > self._announced + INTERVAL:
                        with suppress(OSError):
                            self._announce()
            if time.monotonic() > ends:
                break
        mine.state = DONE
        self._wait_until(lambda there: self._other.state >= DONE)

    def _commit_once(self, connection: Connection) -> None:
        number = self._mine.acknowledged + 1
        with connection.transaction():
            # One that failed may have arrived all the same, and is tried again.
            connection.change(
                "INSERT OR REPLACE INTO commits (token, number, filling) VALUES (?, ?, randomblob(?))",
                (self._mine.token, number, FILLING),
            )
        # Only here it is known; what the database says itself would be lost together with it.
        self._mine.acknowledged = number

    def _check(self, connection: Connection) -> None:
        """Note whether a read shows less than was acknowledged before it."""
        expected = {one.token: one.acknowledged for one in (self._mine, self._other)}
        found = dict(connection.rows("SELECT token, count(*) FROM commits GROUP BY token"))
        behind = max(number - found.get(token, 0) for token, number in expected.items())
        if behind > 0:
            self._stale += 1
            self._behind = max(self._behind, behind)

    # Counting

    def _count(self) -> None:
        mine = self._mine
        if self._stale:
            mine.errors.append(
                f"{self._stale} reads did not show what had been committed before them, up to {self._behind} commits"
            )
        with self._try(), self._connect() as connection:
            for one in (mine, self._other):
                mine.arrived[one.token] = connection.value(
                    "SELECT count(*) FROM commits WHERE token = ? AND number <= ?", (one.token, one.acknowledged)
                )
            trouble = connection.value("PRAGMA integrity_check(1)")
            if trouble != "ok":
                mine.errors.append(f"the scratch database is damaged: {trouble}")
        mine.state = COUNTED
        self._wait_until(lambda there: self._other.state >= COUNTED)

    def _part(self) -> None:
        """Stay until the other has seen the counts too."""
        self._mine.state = PARTING
        ends = time.monotonic() + LINGER
        self._wait_until(
            lambda there: self._other.state >= PARTING or self._mine.partner not in there or time.monotonic() > ends
        )

    def _encounter(self) -> Encounter:
        mine = self._mine
        if not mine.partner:
            return Encounter(mine.host, None, 0, 0, 0, 0, (), False, time.monotonic() - self._began)
        other = self._other
        errors = [*mine.errors, *(f"{other.host}: {error}" for error in other.errors), *filter(None, [self._lost])]
        if other.arrived and other.arrived != mine.arrived:
            there, here = (other.arrived.get(token, 0) for token in (other.token, mine.token))
            errors.append(f"{other.host} counts other commits: {there} of its own, {here} of {mine.host}")
        return Encounter(
            host=mine.host,
            other_host=other.host,
            acknowledged_here=mine.acknowledged,
            acknowledged_there=other.acknowledged,
            arrived_here=mine.arrived.get(mine.token, 0),
            arrived_there=mine.arrived.get(other.token, 0),
            errors=tuple(errors),
            same_computer=mine.computer == other.computer,
            took=time.monotonic() - self._began,
        )

    # What all of it needs

    def _wait_until(self, condition: Callable[[set[str]], bool]) -> None:
        """Wait for what the other does, unless it is silent for too long."""
        while not self._lost and not condition(self._turn()):
            if self._silence(self._mine.partner) > self._patience:
                self._lost = (
                    f"{self._other.host} was not heard of for {self._patience:.0f} s: it was stopped, or does not "
                    "reach the share any more"
                )

    def _connect(self, create: bool = False) -> Connection:
        path = self._folder / self._mine.database
        # Nobody else needs this file: shorter than the other's patience with this side.
        timeout = self._patience / 4
        connection = Connection(f"{path.as_uri()}?mode={'rwc' if create else 'rw'}", path, DOING, timeout)
        try:
            connection.script(SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _try(self) -> Iterator[None]:
        """Note what fails."""
        try:
            yield
        except StorageError as error:
            self._failed += 1
            self._note_error(_words(error, self._folder / self._mine.database))

    def _note_error(self, text: str) -> None:
        if text not in self._mine.errors:
            self._mine.errors.append(text)

    def _remove_database(self, name: str) -> None:
        for ending in ("", *COMPANIONS):
            with suppress(OSError):
                (self._folder / (name + ending)).unlink()

    def _remove_announcement(self, token: str) -> None:
        for ending in ("tmp", "json"):
            with suppress(OSError):
                self._path(token, ending).unlink()

    def _clear(self) -> None:
        """Delete what was made here, and what others left who died."""
        if self._mine.database:
            self._remove_database(self._mine.database)
        for token in [self._mine.token, *filter(self._is_gone, self._seen)]:
            self._remove_announcement(token)
        left = set(self._names())
        for name in self._old & left:
            found = _DATABASE.fullmatch(name)
            if found and self._path(found[1]).name not in left:
                self._remove_database(name)

    def _is_gone(self, token: str) -> bool:
        """Whether somebody has died, or stood still for long: if it wakes up it announces itself again."""
        one = self._seen[token]
        stood = time.monotonic() - (one.changed or one.since)
        died = self._silence(token) > RECENT and uploads.is_gone(one.said.process)
        return died or stood > self._patience / 2


def _computer(folder: Path) -> str:
    """Return what names this kernel and the mount that holds the folder."""
    try:
        device = os.stat(folder).st_dev
    except OSError as error:
        raise _failure(folder, error) from error
    try:
        return f"{uploads.boot()} {device}"
    except OSError:
        return f"{platform.node()} {device}"


def _read(path: Path, token: str) -> Announcement:
    """Read what somebody announces; whoever may write the folder may have written it.

    Raises:
        OSError, ValueError, TypeError, RecursionError: it cannot be read, now or ever.
    """
    said = Announcement(**json.loads(path.read_text("utf-8")))
    if not isinstance(said.arrived, dict) or not isinstance(said.errors, list):
        raise TypeError(f"{path} is not an announcement")
    numbers = [said.beat, said.state, said.acknowledged, *said.arrived.values()]
    texts = [said.token, said.host, said.computer, said.process, said.partner, said.database, *said.errors]
    if not all(type(number) is int for number in numbers) or not all(type(text) is str for text in texts):
        raise TypeError(f"{path} is not an announcement")
    if said.token != token or not (said.database == "" or _DATABASE.fullmatch(said.database)):
        raise ValueError(f"{path} is not an announcement")
    said.host = _printable(said.host)
    said.errors = [_printable(error) for error in said.errors[: 2 * MOST_ERRORS]]
    return said


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _words(error: StorageError, path: Path) -> str:
    """Return what a person needs to know about an error with the scratch database."""
    if isinstance(error, StoreDamagedError):
        # What to do about a damaged store is of no use here.
        return f"the scratch database is damaged: {error.__cause__ or error}"
    return str(error).removeprefix(f"cannot {DOING}: {path}: ")


def _failure(folder: Path, error: OSError) -> StorageError:
    kinds: dict[int | None, type[StorageError]] = {
        errno.ENOENT: StoreNotFoundError,
        errno.ENOTDIR: StoreNotFoundError,
        errno.EACCES: StoreReadOnlyError,
        errno.EPERM: StoreReadOnlyError,
        errno.EROFS: StoreReadOnlyError,
        errno.ENOSPC: StoreFullError,
        errno.EDQUOT: StoreFullError,
    }
    return kinds.get(error.errno, StoreAccessError)(
        f"cannot {DOING}: {folder}: no file can be made there ({error.strerror or error}). Whoever stores models needs "
        "a folder that is there, that may be written, and that has space"
    )
