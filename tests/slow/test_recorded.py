"""However a process that changes a store ends, the events agree with the contents of the store.

Workers are killed in every verb, several of them on one file; and each system call of a verb fails once.
"""

import mmap
import multiprocessing
import multiprocessing.synchronize
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.budgets import KILLS
from tests.support.recorded import LARGE, OFTEN, ONE_BY_ONE, OVERTAKEN, RUNS, SMALL, VERBS, Told, Worker
from tests.support.replay import troubles
from tests.support.stores import NOTHING, leftovers
from tests.support.strace import CALLS, INJECTED, KILL, Outcome, Tracer, chosen
from tests.support.victims import ELSEWHERE, Victim
from views_runs import ModelNotFoundError, Storage
from views_runs.database.connection import Connection

#: The phases of a worker: in the transactions of which verb it is.
PHASES = {verb: number for number, verb in enumerate(VERBS, start=ELSEWHERE + 1)}

#: How many workers are on one file, and after how many kills they get another.
CROWD = 3
KILLS_OF_A_FILE = 30

#: How many times a model is fetched while it is renamed.
FETCHES = 200

#: The calls in which the process also dies: what was written before is on the disk from then on.
LASTING = ("fdatasync", "ftruncate")

#: How many kills there are at least in each verb, of those that there are at any moment.
KILLS_IN_A_VERB = KILLS // 40


def start_victim(store: Storage, name: str, page: mmap.mmap, place: int, aim: str) -> Victim:
    """Start a forked worker that does any verbs, and often one of them, until it is killed."""

    def work(say: Callable[[str], object]) -> None:
        worker = Worker(store, name, say, "abc"[place])
        show_verbs(page, place, worker)
        choose = random.Random(name)
        while True:
            worker.step(choose.choice([aim, choose.choice([*VERBS]), choose.choice(OFTEN)]))

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
            time.sleep(choose.choice([0, 0.001, 0.005, 0.02]) * choose.random())
        else:
            time.sleep(choose.uniform(0, 0.1))
        told.add(victim.kill())
        counts[victim.phase] += 1


def test_killed_in_every_verb(tmp_path: Path, page: mmap.mmap) -> None:
    """What was acknowledged has its events, once; nothing is half done; and the events lead to what is there."""
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


class Rig(Tracer):
    """A small store in which there is something to do for every verb, and processes that do one each.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lines: list[str] = []
        self._say: Callable[[str], object] = self.lines.append
        self.worker = Worker(Storage(self.path, timeout=1), "w", lambda line: self._say(line), shares=False)
        self.worker.sizes = (LARGE,)
        verbs = [*["store"] * 7, "delete_all", "enter", "alias", "unalias", "alias", *["restore", "store"] * 3]
        for verb in [*verbs, "alias", "restore", "annotate"]:
            self.worker.step(verb)
        self.worker.sizes = (SMALL,)
        self.keep()

    def run(self, do: Callable[[], object], *options: str) -> Outcome:
        """Do what was planned in a forked process under strace."""

        def work(say: Callable[[str], object]) -> None:
            self._say = say
            do()

        return self.trace(work, *options)

    def check(self, outcome: Outcome, may_fail: tuple[str, ...], may_die: bool = False) -> None:
        """Show that a verb ended well or said why not, and that its events and what is there agree with that."""
        died = os.WIFSIGNALED(outcome.status)
        assert may_die if died else outcome.status == 0, outcome
        told = Told([*self.lines, *outcome.lines])
        for line in told.having("failed"):
            kind, message = line["error"].split(": ", 1)
            assert kind in may_fail, line
            assert "cannot " in message and str(self.path) in message and "ry again" in message, line
        assert died or not told.having("begun"), outcome
        store = Storage(self.path, timeout=10)
        assert told.troubles(store) == [], outcome
        store.store("after", 1, {"token": "after"}, why="after")
        assert troubles(store) == [] and leftovers(store) == NOTHING, outcome


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A store, and strace."""
    return Rig(tmp_path)


def faults(calls: "Counter[str]") -> Iterator[tuple[str, str, int]]:
    """Yield a fault for each call, of one kind after the other, and where the process dies."""
    for call in CALLS:
        ways = [fault for other, fault in INJECTED if other == call and fault != KILL]
        for number in chosen(calls[call]):
            yield call, ways[number % len(ways)], number
            if call in LASTING:
                yield call, KILL, number


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "leave"])
def test_each_call_fails(rig: Rig, verb: str) -> None:
    """The verb succeeds or says what is wrong, and its events agree with what is there; each run is left too."""
    do, met = rig.worker.plan(verb), Counter[str]()
    plain = rig.run(do)
    rig.check(plain, ())
    did = {line["why"] for line in Told(plain.lines).having("done") if line["verb"] == verb}
    assert did & {event.why for event in Storage(rig.path).log()}
    for call, fault, number in faults(plain.calls):
        outcome = rig.run(do, "-e", f"inject={call}:{fault}:when={number}")
        rig.check(outcome, INJECTED[call, fault], may_die=fault == KILL)
        met[f"{call} {fault}"] += outcome.was_hit
    print(verb, met.total(), dict(met))
    assert met["pwrite64 error=EIO"] and met["fdatasync error=EIO"] and met["pread64 error=EIO"]
    assert met["fcntl error=ENOLCK"] and met[f"fdatasync {KILL}"]
    assert met["ftruncate error=EIO"] or verb not in ONE_BY_ONE


def test_renamed_while_it_is_fetched(store: Storage, page: mmap.mmap) -> None:
    """Whoever fetches gets the model by the name that it has, or is told that there is no model with the other one."""
    store.store("m", model := os.urandom(3 * LARGE))

    def rename(say: Callable[[str], object]) -> None:
        while True:
            store.rename("m", "n")
            store.rename("n", "m")

    victim, found = Victim(rename, page), Counter[str]()
    for number in range(FETCHES):
        try:
            assert store.fetch("mn"[number % 2]) == model
            found["fetched"] += 1
        except ModelNotFoundError as error:
            found["missing"] += 1
            # By the time that the message is made, it may have that name.
            assert "there is no model" in str(error) or "has just been stored" in str(error)
    victim.kill()
    print(dict(found), len(store.log()), "events")
    assert troubles(store) == [] and store.verify().damaged == ()
    assert min(found["fetched"], found["missing"]) > FETCHES // 10 and len(store.log()) > FETCHES // 10


def work_in_run(path: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    """Enter a run at the same time as others, and train or reuse the same models."""
    for id in RUNS * 3:
        barrier.wait()
        with Storage(path).run(id) as run:
            run.expect([f"m{number}" for number in range(4)])
            for number in range(4):
                run.obtain(f"m{number}", lambda: os.urandom(10), {"number": number}, retrain=number == 3)
            run.add("m3:1")


def test_two_in_a_run(store: Storage) -> None:
    """Two processes in one run at once: it has one version of each model, and there are events for all."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=work_in_run, args=(store.path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert troubles(store) == []
    for id in RUNS:
        run, actions = store.run(id), Counter(event.action for event in store.log() if event.run == id)
        assert [model.version for model in run.models()] == [1, 1, 1, 1]
        assert run.inspect().complete and run.inspect().state == "succeeded"
        assert (actions["entered"], actions["ended"], actions["expected"]) == (6, 6, 1)
