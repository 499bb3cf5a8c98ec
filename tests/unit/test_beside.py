"""A thread beside its caller: what goes wrong in either ends both, and nothing is left waiting."""

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers, wait_for_workers
from views_runs import Storage, StorageError
from views_runs.beside import Beside, Unwanted, check
from views_runs.database.connection import Connection, InUseError
from views_runs.database.uploads import Upload


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """All threads have ended when the test has."""
    yield
    # Also for one whose start was interrupted: it has nothing to do.
    wait_for_workers()


def test_in_order_and_bounded() -> None:
    """Results come in the order of the items, and only so many items wait or are in work."""
    go: SimpleQueue[None] = SimpleQueue()
    beside = Beside(lambda number: go.get() or number, 2, "test")
    late = threading.Timer(0.05, lambda: [go.put(None) for _ in range(10)])
    beside.put(0)
    beside.put(1)
    late.start()
    began = time.monotonic()
    beside.put(2)
    assert time.monotonic() - began > 0.02
    assert [beside.result() for _ in range(3)] == [0, 1, 2]
    beside.finish()
    beside.end()


def fail(item: Any) -> None:
    """Fail for one item."""
    if item == 2:
        raise OSError("the disk is gone")


@pytest.mark.parametrize("how", ["put", "result", "finish"])
def test_a_failure_in_the_thread(how: str) -> None:
    """Whatever the caller does next raises it, again and again, and does not wait."""
    beside = Beside(fail, 2, "test")
    beside.put(2)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            while how == "put":
                beside.put(1)
            beside.result() if how == "result" else beside.finish()
    beside.end()


def test_a_caller_that_gives_up() -> None:
    """A thread that waits is told, and what is in the queue is dropped."""
    seen: list[int] = []
    ended: list[type] = []

    def wait(number: int) -> None:
        seen.append(number)
        try:
            while True:
                check()
                time.sleep(0.001)
        except Unwanted as error:
            ended.append(type(error))
            raise

    beside = Beside(wait, 5, "test")
    for number in range(3):
        beside.put(number)
    while not seen:
        time.sleep(0.001)
    began = time.monotonic()
    beside.end()
    assert (seen, ended) == ([0], [Unwanted]) and time.monotonic() - began < 1
    # What the thread did not do is never taken for a result.
    with pytest.raises(Unwanted):
        beside.result()


@pytest.mark.parametrize("wait", [Beside.finish, Beside.end])
def test_an_interrupted_wait(wait: Callable[[Beside[int, None]], None]) -> None:
    """Whoever is interrupted while the thread works on still waits for its end before anything else is done."""
    begun, go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.set()
        go.wait()

    def interrupt() -> None:
        time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        go.set()

    beside = Beside(work, 2, "test")
    beside.put(1)
    begun.wait()
    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        wait(beside)
    assert not go.is_set()
    beside.end()
    assert go.is_set()
    thread.join()


def test_a_caller_that_is_forgotten() -> None:
    """A second exception may prevent `end`: the thread ends soon after the last reference to the `Beside` is gone."""
    beside = Beside(abs, 2, "test")
    beside.put(-1)
    [thread] = [one for one in threading.enumerate() if one.name == "views_runs-test"]
    del beside
    thread.join(10)
    assert not thread.is_alive()


def test_an_upload_that_is_forgotten(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exceptions can leave an upload behind. Once they are gone, it is cleared."""

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Beside, "finish", interrupt)
        patch.setattr(Beside, "end", interrupt)
        patch.setattr(Upload, "__exit__", interrupt)
        store.store("lost", os.urandom(12_000_000))
    gc.collect()
    wait_for_workers()
    store.store("next", 1)
    assert leftovers(store) == NOTHING


def test_nobody_is_unwanted_but_such_a_thread() -> None:
    """In all other threads, a check is nothing."""
    check()


def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread starts, the work is done at once."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    beside = Beside(abs, 1, "test")
    for number in -1, -2, -3:
        beside.put(number)
    assert [beside.result() for _ in range(3)] == [1, 2, 3]
    beside.finish()
    beside.end()


def test_a_signal_handler_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it raises is not taken for a system without threads, and the thread is ended."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        signal.raise_signal(signal.SIGINT)

    def ring(number: int, frame: Any) -> None:
        raise RuntimeError("it takes too long")

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = signal.signal(signal.SIGINT, ring)
    beside = Beside(abs, 1, "test")
    try:
        with pytest.raises(RuntimeError, match="it takes too long"):
            beside.put(-1)
    finally:
        signal.signal(signal.SIGINT, before)
    beside.end()


def test_a_child_has_no_such_thread() -> None:
    """A process that was forked meanwhile is refused, and does not wait for what it does not have."""
    need(hasattr(os, "fork"), "this system does not fork")
    beside = Beside(abs, 2, "test")
    beside.put(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        code = 1
        try:
            for act in (lambda: beside.put(-2), beside.result, beside.finish):
                with pytest.raises(StorageError, match="forked"):
                    act()
            beside.end()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert beside.result() == 1
    beside.end()


def test_a_connection_is_used_in_one_thread_at_a_time(store: Storage) -> None:
    """While one thread is inside, another neither uses nor closes the connection; afterwards it does."""
    store.store("m", 1)
    inside, out = threading.Event(), threading.Event()
    connection = Connection(store.path, 1)

    def work() -> None:
        with connection.transaction():
            inside.set()
            out.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    with pytest.raises(InUseError):
        connection.value("SELECT 1")
    connection.close()
    out.set()
    thread.join()
    assert connection.value("SELECT count(*) FROM models") == 1
    connection.close()


class Late:
    """Is pickled when the thread has written so much."""

    def __init__(self, store: Storage, parts: int) -> None:
        self.store, self.parts = store, parts

    def __reduce__(self) -> Any:
        import sqlite3

        while True:
            connection = sqlite3.connect(self.store.path)
            (found,) = connection.execute("SELECT count(*) FROM model_parts").fetchone()
            connection.close()
            if found >= self.parts:
                return int, ()
            time.sleep(0.001)


def test_written_while_the_rest_is_pickled(store: Storage) -> None:
    """The thread writes parts although the pickling goes on."""
    store.store("first", 1)
    store.store("m", [os.urandom(30_000_000), Late(store, 12)])
    assert len(store.fetch("m")[0]) == 30_000_000


def test_a_small_model_starts_no_thread(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does one of a part."""
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(self.name) or start(self))
    for name, size in ("small", 1000), ("part", 1_000_000):
        store.store(name, bytes(size))
        assert len(store.fetch(name)) == size
    assert started == []
    store.store("large", bytes(5_000_000))
    assert started == ["views_runs-writer"]
