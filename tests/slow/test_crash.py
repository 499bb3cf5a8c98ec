"""Workers that are killed at random moments: what they acknowledged is there, whole, and the next store clears up."""

import mmap
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import history
from tests.support.budgets import KILLS, SECONDS, SEED
from tests.support.history import Expected, Worker
from tests.support.stores import NOTHING, leftovers
from tests.support.victims import ELSEWHERE, Victim, mark
from views_runs import Storage
from views_runs.database import uploads
from views_runs.database.models import Models
from views_runs.files import companion

#: What a worker may be doing when it is killed: its phase.
BETWEEN, PART, PUBLISHING, ANNOTATING, DELETING, GIVING_BACK, RECLAIMING, PAUSING = range(1, 9)
PHASES = {
    BETWEEN: "between parts",
    PART: "inside a part's transaction",
    PUBLISHING: "in publishing",
    ANNOTATING: "in annotating",
    DELETING: "in deleting",
    GIVING_BACK: "in giving space back",
    RECLAIMING: "in reclaiming",
}

#: What a worker does so that it comes by a phase often. Whatever it stores first reclaims.
TOWARDS = {
    BETWEEN: {"store": 3, "overwrite": 1},
    PART: {"store": 1, "overwrite": 1},
    PUBLISHING: {"store": 1, "overwrite": 1, "share": 1},
    ANNOTATING: {"annotate": 1},
    DELETING: {"store": 1, "delete": 1},
    GIVING_BACK: {"store": 1, "delete": 1},
    RECLAIMING: {"store": 1},
}

#: Of `KILLS` kills, how many there are at least at any moment, and in each phase; and how many there are at most.
RANDOM_KILLS = KILLS * 2 // 5
KILLS_IN_A_PHASE = KILLS // 15
MOST_KILLS = 4 * KILLS

#: How many kills one file lives through: what is in it is checked after each.
KILLS_OF_A_FILE = 12

#: How many workers share a file, when they are killed among many, and after how many kills what is in it is checked.
CROWD = 10
KILLS_OF_A_CROWD = 50


@pytest.fixture(autouse=True)
def more_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models have so many parts that they are written in several transactions."""
    monkeypatch.setattr(history, "LARGE", (1_500_000, 14_000_000))


def start_victim(
    store: Storage,
    name: str,
    page: mmap.mmap,
    weights: dict[str, int] = history.WEIGHTS,
    place: int = 0,
    seed: int = 0,
    large: int = 4,
) -> Victim:
    """Start a forked worker that goes on until it is killed.

    Args:
        store: where it works.
        name: of the worker.
        page: where its phase is to be seen.
        weights: of the operations.
        place: of its phase in the page.
        seed: of its choices.
        large: how many of 10 models have several parts.
    """

    def work(say: Callable[[str], object]) -> None:
        mark_phases(page, place)
        worker = Worker(store, name, seed, say, large)
        while True:
            worker.step(weights)

    return Victim(work, page, place)


def mark_phases(page: mmap.mmap, place: int) -> None:
    """Let this process, a forked one, say in the page what it is doing."""

    def add(self: uploads.Upload, part: Any, function: Callable[..., None] = uploads.Upload.add) -> None:
        function(self, part)
        if self.id is not None:
            page[place] = BETWEEN

    uploads.Upload.add = add  # type: ignore[method-assign]
    mark(page, place, time, "sleep", PAUSING, stays=BETWEEN)
    # The commit that follows these is in the same phase.
    mark(page, place, uploads.Upload, "_write", PART, restore=False)
    mark(page, place, Models, "add", PUBLISHING, restore=False)
    mark(page, place, Models, "set_metadata", ANNOTATING, restore=False)
    # A deletion goes on after the last row, with the parts; what else is cleared was left by the dead.
    mark(page, place, Models, "delete_row", DELETING, restore=False)
    mark(page, place, uploads, "clear_condemned", RECLAIMING, stays=DELETING)
    mark(page, place, uploads, "give_back", GIVING_BACK)
    for name in ("_put", "annotate_fields", "delete"):
        mark(page, place, Storage, name, ELSEWHERE)


class Trial:
    """Kills workers on one file after the other, and checks the file after each.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        #: How many were killed in each phase.
        self.counts: Counter[int] = Counter()
        self.acknowledged = 0
        #: How many times the dead left a transaction to roll back, and parts or uploads.
        self.hot = self.left = 0
        self._folder = folder
        self._files = self._stores = 0
        self._begin()

    def _begin(self) -> None:
        self._files += 1
        self.store = Storage(self._folder / f"{self._files}.db")
        self.expected = Expected()
        self._kills = 0
        self.reclaim()

    def name(self) -> str:
        """Return a new worker's name."""
        return f"w{self.kills}"

    def fewest(self) -> tuple[int, int]:
        """Return the phase in which the fewest were killed, and how many."""
        return min(((phase, self.counts[phase]) for phase in PHASES), key=lambda one: one[1])

    @property
    def kills(self) -> int:
        """How many there were."""
        return self.counts.total()

    def kill(self, victim: Victim) -> None:
        """Kill a worker, and count its phase."""
        self.expected.add(victim.kill())
        self.counts[victim.phase] += 1
        self._kills += 1

    def check(self) -> None:
        """Show that all is there that was acknowledged, and nothing by halves."""
        journal = companion(self.store.path, "-journal")
        # One that is not hot has zeros at its start; when one is rolled back it is removed.
        self.hot += journal.exists() and journal.read_bytes()[:1] == b"\xd9"
        assert self.expected.troubles(self.store) == []
        self.left += leftovers(self.store) != NOTHING

    def reclaim(self) -> None:
        """Show that the next store clears what the dead left; go on with another file once this one has seen enough."""
        lines: list[str] = []
        self._stores += 1
        Worker(self.store, f"r{self._stores}", 0, lines.append, large=0).step({"store": 1})
        self.expected.add(lines)
        assert self.expected.failed == []
        assert leftovers(self.store) == NOTHING
        if self._kills >= KILLS_OF_A_FILE:
            self.end()
            self._begin()

    def end(self) -> None:
        """Check the file as a whole, and remove it."""
        assert self.expected.troubles(self.store, fetch=False) == []
        connection = sqlite3.connect(self.store.path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        self.acknowledged += self.expected.acknowledged
        for file in self._folder.glob(f"{self._files}.db*"):
            file.unlink()


def test_killed_at_any_moment(tmp_path: Path, page: mmap.mmap) -> None:
    """Of the workers that were killed, in all phases, none took with it what it had acknowledged, or left half."""
    choose = random.Random(1)
    trial = Trial(tmp_path)
    while trial.kills < RANDOM_KILLS:
        # Two beside each other: the one that lives on rolls back what the other had begun.
        name = trial.name()
        victims = [start_victim(trial.store, f"{name}{place}", page, place=place) for place in range(2)]
        for victim in victims:
            time.sleep(choose.uniform(0, 0.2))
            trial.kill(victim)
        trial.check()
        trial.reclaim()
    while trial.kills < MOST_KILLS and (trial.kills < KILLS or trial.fewest()[1] < KILLS_IN_A_PHASE):
        phase = trial.fewest()[0]
        # To have something to reclaim, another dies in its parts first.
        for aim in (BETWEEN, RECLAIMING) if phase == RECLAIMING else (phase,):
            victim = start_victim(trial.store, trial.name(), page, TOWARDS[aim])
            victim.wait_for(aim, patience=2)
            time.sleep(choose.choice([0, 0.0003, 0.001, 0.003]) * choose.random())
            trial.kill(victim)
            trial.check()
        trial.reclaim()
    trial.end()
    for phase, name in PHASES.items():
        print(f"{trial.counts[phase]:5} kills {name}")
    print(f"{trial.kills:5} kills in all; {trial.acknowledged} operations were acknowledged")
    print(f"{trial.hot:5} times a transaction was rolled back, and {trial.left:5} times there was something to reclaim")
    assert trial.kills >= KILLS and trial.fewest()[1] >= KILLS_IN_A_PHASE
    # The first is a matter of luck: a transaction is short, and only the end of it has to be rolled back.
    assert trial.hot >= KILLS // 100 and trial.left >= 2 * KILLS_IN_A_PHASE


def test_killed_among_many(tmp_path: Path, page: mmap.mmap) -> None:
    """While many use one file, and one after the other is killed, none loses what any had acknowledged."""
    print(f"seed {SEED}; give it as TESTS_SEED, and the seconds ({SECONDS:g}) as TESTS_SECONDS")
    choose = random.Random(SEED)
    trial = Trial(tmp_path)
    deadline = time.monotonic() + SECONDS

    def start(place: int) -> Victim:
        started.append(f"m{len(started)}")
        return start_victim(trial.store, started[-1], page, place=place, seed=choose.randrange(1 << 30), large=1)

    started: list[str] = []
    rounds = 0
    while time.monotonic() < deadline:
        crowd = [start(place) for place in range(CROWD)]
        for _ in range(KILLS_OF_A_CROWD):
            time.sleep(choose.choice([0, 0.01, 0.05, 0.2]) * choose.random())
            place = choose.randrange(CROWD)
            trial.kill(crowd[place])
            crowd[place] = start(place)
        # The last ones are killed all at once.
        for victim in crowd:
            trial.kill(victim)
        trial.check()
        rounds += 1
        trial.reclaim()
    trial.end()
    print(f"{trial.kills:5} kills of {CROWD} at a time in {rounds} files; {trial.acknowledged} operations acknowledged")
    names = {**PHASES, ELSEWHERE: "elsewhere", PAUSING: "waiting"}
    print("      " + ", ".join(f"{count} {names[phase]}" for phase, count in sorted(trial.counts.items())))
    assert trial.kills >= CROWD
