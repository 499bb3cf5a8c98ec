"""Prune, killed at any moment: what it deleted is in the log, nothing else is gone, and nothing is half done."""

import os
import random
import signal
import time
from pathlib import Path

from tests.support.budgets import KILLS
from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers
from views_runs import Storage

#: How many prunes are killed.
KILLED = KILLS // 3

#: How many are killed before a store is begun anew.
KILLS_OF_A_FILE = 20


def fill(store: Storage, number: int, choose: random.Random) -> None:
    """Add versions, some of several parts; give one an alias."""
    for name in ("forest", "ridge"):
        for _ in range(5):
            size = choose.choice([10, 10, 1_200_000])
            record = store.store(name, choose.randbytes(size), {"number": number}, overwrite=True)
        store.alias(name, f"a{number}", record.version - 1)


def kill_a_prune(store: Storage, delay: float) -> bool:
    """Prune in another process, and kill it after a time; return whether it was still at it."""
    pid = os.fork()
    if not pid:
        try:
            store.prune(keep_last=2)
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def check(store: Storage) -> int:
    """Show that the store and its log agree; return how many versions are there."""
    there = {(one.name, one.version) for one in store.find(all_versions=True)}
    events = store.log()
    pruned = [(str(one.name), one.version) for one in events if one.action == "pruned"]
    stored = {(str(one.name), one.version) for one in events if one.action == "stored" and one.name != "other"}
    assert len(pruned) == len(set(pruned)) and there == stored - set(pruned)
    for name in ("forest", "ridge"):
        versions = store.versions(name)
        assert versions[0].current and versions[0].version == max(version for other, version in stored if other == name)
        # Every alias is where it was given.
        assert len([alias for one in versions for alias in one.aliases]) == sum(
            one.action == "aliased" and one.name == name for one in events
        )
    assert store.verify().damaged == ()
    return len(there)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The next prune does what was left to do, and clears what the dead left."""
    need(hasattr(os, "fork"), "there is no fork")
    choose = random.Random(1)
    killed = midway = number = 0
    while killed < KILLED:
        if not number % KILLS_OF_A_FILE:
            store = Storage(tmp_path / f"{number}.db")
        number += 1
        fill(store, number, choose)
        before = check(store)
        killed += kill_a_prune(store, choose.uniform(0, 0.12))
        after = check(store)
        planned = [one for one in store.prune(keep_last=2, dry_run=True) if one.deleted]
        midway += bool(planned) and after < before
        assert [one for one in store.prune(keep_last=2) if one.deleted] == planned
        check(store)
        store.store("other", number, overwrite=True)
        store.delete("other")
        assert leftovers(store) == NOTHING
    print(f"killed {killed} of {number}, {midway} of them between two deletions")
    assert midway > killed // 20
