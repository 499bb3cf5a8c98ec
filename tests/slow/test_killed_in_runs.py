"""Processes that are killed in a run: what was acknowledged is there, and the events agree with what the run has."""

import os
import random
import signal
import sqlite3
import sys
import time

import pytest

from tests.support.budgets import KILLS
from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers
from views_runs import ModelNotFoundError, Storage

RUNS, NAMES = ("r", "s"), [f"m{number}" for number in range(4)]


def work(store: Storage, seed: int, outlet: int) -> None:
    """Enter runs and work in them for ever; say what is done, and in which run, once it is."""
    choose, number = random.Random(seed), 0
    while True:
        with store.run(choose.choice(RUNS)) as run:
            run.expect(choose.sample(NAMES, 3))
            for _ in range(3):
                number += 1
                name, action = choose.choice(NAMES), choose.choice(["train", "train", "reuse", "add", "delete"])
                done = ""
                try:
                    if action == "delete":
                        store.delete(name)
                    elif action == "add":
                        done = f"{run.id} {run.add(name).reference}"
                    else:
                        size = choose.choice([10, 1_200_000])
                        record = run.obtain(name, lambda: "x" * size, {"n": number % 2}).record
                        done = f"{run.id} {record.reference}"
                except ModelNotFoundError:
                    pass
                os.write(outlet, f"{done}\n".encode())


def kill_one(store: Storage, seed: int) -> list[str]:
    """Let a process work, kill it at some moment, and return what it said."""
    inlet, outlet = os.pipe()
    if not (pid := os.fork()):
        try:
            os.close(inlet)
            work(store, seed, outlet)
        finally:
            os._exit(1)
    os.close(outlet)
    with open(inlet, encoding="utf-8") as file:
        # Once it is under way.
        said = file.readline()
        time.sleep(random.Random(seed).uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "it ended by itself"
        return [said, *file.readlines()]


def check(store: Storage, said: list[str]) -> None:
    """Show that each version that was used is in the events of its run, and the last of each model in the run."""
    used = {f"{event.run} {event.name}:{event.version}\n" for event in store.log() if event.run and event.name}
    assert {line for line in said if line.strip()} <= used
    with sqlite3.connect(store.path) as sql:
        last = """SELECT run, model, version FROM events WHERE id IN (
            SELECT max(id) FROM events WHERE run IS NOT NULL AND model IS NOT NULL GROUP BY run, model) ORDER BY 1, 2"""
        has = "SELECT run, model, version FROM run_models WHERE version IS NOT NULL ORDER BY 1, 2"
        assert sql.execute(last).fetchall() == sql.execute(has).fetchall()
        unknown = "SELECT DISTINCT run FROM run_models WHERE run NOT IN (SELECT id FROM runs)"
        assert sql.execute(unknown).fetchall() == []
        assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    sql.close()
    assert "running" not in {run.state for run in store.runs()} or sys.platform != "linux"


def test_kills(store: Storage) -> None:
    """Whatever a process is doing in a run when it is killed, nothing is half done, and the next one goes on."""
    need(hasattr(os, "fork"), "this system does not fork")
    said: list[str] = []
    for seed in range(KILLS // 3):
        said += kill_one(store, seed)
        check(store, said)
    for name in RUNS:
        with store.run(name) as run:
            run.store("last", name, overwrite=True)
        assert run.inspect().state == "succeeded"
    assert leftovers(store) == NOTHING and len(said) > KILLS // 3


@pytest.mark.parametrize("killed", [True, False])
def test_one_more(store: Storage, killed: bool) -> None:
    """The state is that of the processes that are still there."""
    need(hasattr(os, "fork") and sys.platform == "linux", "this system does not say whether a process has ended")
    if killed:
        kill_one(store, 1)
    with store.run("r") as run:
        assert run.inspect().state == "running"
    assert run.inspect().state == "succeeded"
