"""Whatever becomes of the one who changes a store, its events agree with what is there.

Workers are killed in every verb, several of them on one file; and each system call of a verb fails once.
"""

import mmap
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import recorded
from tests.support.budgets import KILLS
from tests.support.machine import need
from tests.support.recorded import OVERTAKEN, VERBS, Told, Worker
from tests.support.replay import troubles
from tests.support.stores import NOTHING, leftovers
from tests.support.strace import INJECTED, KILL, Outcome, Tracer, chosen
from tests.support.victims import ELSEWHERE, Victim
from views_runs import ModelNotFoundError, Storage
from views_runs.database.connection import Connection

#: The phases of a worker: in the transactions of which verb it is.
PHASES = {verb: number for number, verb in enumerate(VERBS, start=ELSEWHERE + 1)}

#: How many workers are on one file, and after how many kills they get another.
CROWD = 3
KILLS_OF_A_FILE = 30

#: How many kills there are at least in each verb, of those that there are at any moment.
KILLS_IN_A_VERB = KILLS // 40


def start_victim(store: Storage, name: str, page: mmap.mmap, place: int, aim: str) -> Victim:
    """Start a forked worker that does any verbs, and often one of them, until it is killed."""

    def work(say: Callable[[str], object]) -> None:
        worker = Worker(store, name, say, "abc"[place])
        show_verbs(page, place, worker)
        choose = random.Random(name)
        while True:
            worker.step(choose.choice([aim, choose.choice([*VERBS])]))

    return Victim(work, page, place)


def show_verbs(page: mmap.mmap, place: int, worker: Worker) -> None:
    """Let this process, a forked one, say in the page in the transaction of which verb it is."""
    transaction = Connection.transaction

    @contextmanager
    def shown(self: Connection, bulk: bool = False) -> Iterator[None]:
        try:
            with transaction(self, bulk):
                page[place] = PHASES[worker.verb]
                yield
        finally:
            page[place] = ELSEWHERE

    Connection.transaction = shown  # type: ignore[method-assign]


def kill_crowd(store: Storage, page: mmap.mmap, counts: "Counter[int]", told: Told, choose: random.Random) -> None:
    """Start workers on one file, and kill one after the other in the verbs in which the fewest were killed so far."""
    rarest = sorted(VERBS, key=lambda verb: (counts[PHASES[verb]], choose.random()))
    first = counts.total()
    victims = [start_victim(store, f"w{first + place}", page, place, rarest[place]) for place in range(CROWD)]
    for place, victim in enumerate(victims):
        if choose.random() < 0.8:
            victim.wait_for(PHASES[rarest[place]], patience=0.5)
            time.sleep(choose.choice([0, 0.0005, 0.002, 0.01]) * choose.random())
        else:
            time.sleep(choose.uniform(0, 0.1))
        told.add(victim.kill())
        counts[victim.phase] += 1


def test_killed_in_every_verb(tmp_path: Path, page: mmap.mmap) -> None:
    """What was acknowledged has its events, once; nothing is half done; and the replay of the events is what is there."""
    choose, counts, acknowledged, files = random.Random(1), Counter[int](), Counter[str](), 0
    while counts.total() < KILLS:
        files += 1
        store, lines, end = Storage(tmp_path / f"{files}.db"), list[str](), counts.total() + KILLS_OF_A_FILE
        Worker(store, "first", lines.append).step("store")
        told = Told(lines)
        while counts.total() < end:
            kill_crowd(store, page, counts, told, choose)
            assert told.troubles(store) == []
        failed = told.having("failed")
        assert [str(line) for line in failed if line["own"] or not line["error"].startswith(OVERTAKEN)] == []
        acknowledged.update(line["verb"] for line in told.having("done"))
        store.store("last", 1, {"token": "last"}, why="last")
        assert leftovers(store) == NOTHING
    killed = {verb: counts[phase] for verb, phase in PHASES.items()}
    print(f"{counts.total()} kills in {files} files: {killed}, and {counts[ELSEWHERE]} between")
    print(f"acknowledged: {dict(acknowledged)}")
    assert min(killed.values()) >= KILLS_IN_A_VERB
    assert min(acknowledged[verb] for verb in VERBS) >= KILLS_IN_A_VERB
