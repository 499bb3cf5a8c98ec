"""A process that is forked while SQLite is at work reads and writes as any other."""

import os
import subprocess
import sys

from tests.support.machine import need
from views_runs import Storage

START = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from views_runs import Storage
from views_runs.database import connection
store = Storage(sys.argv[1], timeout=20)
def use(name):
    store.store(name, [1])
    return store.fetch("m") + store.fetch(name)
def fork(name):
    child = os.fork()
    if not child:
        try:
            print(use(name), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""

# A thread that is stuck in a system call on a share that went away holds the lock for ever.
STUCK = """
connection.FORK_PATIENCE = 0.1
held, free = threading.Event(), threading.Event()
def hold():
    with connection.Gate():
        held.set()
        free.wait()
threading.Thread(target=hold).start()
held.wait()
fork("child")
free.set()
print(use("parent"))
"""

# A thread that begins to read waits for the lock of another program.
WAITING = """
import sqlite3, time
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
connection.FORK_PATIENCE = 60
found = []
thread = threading.Thread(target=lambda: found.append(store.fetch("m")))
thread.start()
time.sleep(0.5)
began = time.monotonic()
child = os.fork()
if not child:
    os._exit(0)
took = time.monotonic() - began
os.waitpid(child, 0)
other.execute("COMMIT")
thread.join()
print(took < 30, found)
"""

# A signal handler can fork in the middle of a transaction; the child goes on from there.
INSIDE = """
gate = connection.Gate()
with gate:
    with gate:
        child = os.fork()
if child:
    os.waitpid(child, 0)
    print(use("parent"))
else:
    print(use("child"), flush=True)
    os._exit(0)
"""


def run(store: Storage, code: str) -> list[str]:
    """Run Python on a store that holds a model, and return the lines it prints."""
    need(hasattr(os, "fork"), "this system does not fork")
    store.store("m", [0])
    result = subprocess.run(
        [sys.executable, "-c", START + code, str(store.path)], capture_output=True, text=True, timeout=120
    )
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_a_fork_does_not_wait_for_ever(store: Storage) -> None:
    """While another thread never leaves SQLite, a fork goes on after a while, and its child is not locked out."""
    assert run(store, STUCK) == ["[0, 1]", "[0, 1]"]


def test_a_fork_while_another_thread_waits_for_a_lock(store: Storage) -> None:
    """A thread that cannot read yet, because another program keeps the file locked, does not delay a fork."""
    assert run(store, WAITING) == ["True [[0]]"]


def test_a_child_of_a_thread_that_is_inside(store: Storage) -> None:
    """A child that was forked inside SQLite leaves it as its parent does."""
    assert run(store, INSIDE) == ["[0, 1]", "[0, 1]"]
