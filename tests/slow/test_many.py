"""Many at once on one file: processes, threads, pools, hosts whose clocks differ, and writers that fall asleep."""

import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest

from tests.support import history
from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers
from views_runs import Storage, StoreBusyError
from views_runs.database import uploads

ROOT = Path(__file__).parents[2]

WORKERS = 8

_started: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    """End what a test that failed leaves running."""
    yield
    while _started:
        with _started.pop() as process:
            process.kill()


def start(code: str, *arguments: object, folder: Path | None = None) -> "subprocess.Popen[str]":
    """Start a Python; with a folder its output goes to a file there, and to a pipe otherwise."""
    pipe = subprocess.PIPE
    output = (folder / f"lines{arguments[1]}").open("w") if folder else pipe
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=pipe, stdout=output, stderr=pipe, text=True, env=environment)
    _started.append(process)
    if not isinstance(output, int):
        output.close()
    return process


def lines_of(workers: "dict[str, subprocess.Popen[str]]", folder: Path) -> list[str]:
    """Wait for the workers, who have to succeed, and return what they said."""
    for process in workers.values():
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
    return [line for name in workers for line in (folder / f"lines{name}").read_text().splitlines(keepends=True)]


def assert_all_done(lines: list[str], store: Storage, operations: int) -> None:
    """Every operation was acknowledged, and the store is what they make together."""
    expected = history.Expected(lines)
    assert expected.failed == []
    assert expected.acknowledged == operations
    assert expected.troubles(store) == []
    assert leftovers(store) == NOTHING
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


WORKING = "import sys; from tests.support import history; history.main(*sys.argv[1:])"


def test_many_processes(store: Storage, tmp_path: Path) -> None:
    """Eight processes do 50 operations each: none fails, and all that was acknowledged is there and nothing else."""
    store.require()
    names = [f"w{number}" for number in range(WORKERS)]
    workers = {name: start(WORKING, store.path, name, 1, 50, folder=tmp_path) for name in names}
    assert_all_done(lines_of(workers, tmp_path), store, WORKERS * 50)


def test_many_threads(store: Storage) -> None:
    """Eight threads share one Storage, as processes share the file."""
    store.require()

    def work(number: int) -> list[str]:
        lines: list[str] = []
        history.Worker(store, f"w{number}", 2, lines.append).work(25)
        return lines

    with ThreadPoolExecutor(WORKERS) as pool:
        lines = [line for one in pool.map(work, range(WORKERS)) for line in one]
    assert_all_done(lines, store, WORKERS * 25)


def store_and_fetch(store: Storage, number: int) -> tuple[int, bool]:
    """Store and fetch, in a pool's worker; return its process id, and whether all came back."""
    model = history.make(f"pool{number}", 2_000_000 if number % 2 else 1000)
    store.store(f"pool{number}", model, {"number": number})
    record = store.store("all", number, {"number": number}, overwrite=True)
    [found] = store.find("name = all", f"version = {record.version}", all_versions=True)
    seen = store.fetch("all", record.version), found.metadata, store.fetch("from the parent")["token"]
    return os.getpid(), store.fetch(f"pool{number}") == model and seen == (number, {"number": number}, "parent")


def assert_pooled(store: Storage, results: list[tuple[int, bool]]) -> None:
    """The workers were processes of their own, and all that they stored is there, once."""
    pids, right = zip(*results)
    assert os.getpid() not in pids and len(set(pids)) > 1
    assert all(right)
    assert {record.version for record in store.versions("all")} == set(range(1, len(results) + 1))
    assert store.fetch("pool1") == history.make("pool1", 2_000_000)
    assert leftovers(store) == NOTHING


# Python 3.12 warns of a fork while there are threads; it is what is to be tried here.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(store: Storage, backend: str) -> None:
    """The workers of a pool use the Storage of their parent, which has used it before and goes on using it."""
    store.store("from the parent", history.make("parent", 3_000_000))
    assert store.fetch("from the parent")["token"] == "parent"
    calls = [joblib.delayed(store_and_fetch)(store, number) for number in range(12)]
    try:
        results = joblib.Parallel(n_jobs=4, backend=backend, batch_size=1)(calls)
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    assert_pooled(store, results)
    store.store("after", 1)
    assert store.fetch("after") == 1


def test_spawned_pool(store: Storage) -> None:
    """A Storage that was pickled to a new interpreter stores and fetches there."""
    store.store("from the parent", history.make("parent", 3_000_000))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(store_and_fetch, [store] * 6, range(6)))
    assert_pooled(store, results)


#: Makes a process count as one on another host, whose clock is ahead: STORE NAME AHEAD TICKS. All hosts' clocks go
#: on by what is written in the file TICKS.
HOST = """
import datetime, os, platform, sys, time
from pathlib import Path
from tests.support import history
from views_runs import Storage
from views_runs.database import models, owners, uploads
path, name, ahead, ticks = sys.argv[1:]
true_time, true_datetime = time.time, datetime.datetime
def seconds():
    return float(ahead) + float(Path(ticks).read_text())
class Clock(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return true_datetime.now(zone) + datetime.timedelta(seconds=seconds())
time.time = lambda: true_time() + seconds()
models.datetime = uploads.datetime = Clock
platform.node = lambda: name
owners.kernel = lambda: "the kernel of " + name
uploads.MOST_PARTS = 1
store = Storage(path)
"""

SLOWLY = """
class Model(list):
    def __reduce__(self):
        def parts():
            for number in range(8):
                for _ in range(6):
                    yield os.urandom(1_000_000)
                print("waits", flush=True)
                input()
                # Whoever stores looks for uploads of the dead.
                store.store("beside " + name, number, overwrite=True)
        return list, (), None, parts()
store.store(name, Model())
print("done", flush=True)
"""

SOME_HISTORY = """
history.Worker(store, name, 3, sys.stdout.write, large=7).work(30)
"""

DAY = 86400


def test_clocks_a_day_apart(store: Storage, tmp_path: Path) -> None:
    """Three hosts, one a day ahead and one a day behind, work as if they had one clock; what is last is last by id."""
    (tmp_path / "ticks").write_text("0")
    store.require()
    hosts = {"today": 0, "tomorrow": DAY, "yesterday": -DAY}
    workers = {
        name: start(HOST + SOME_HISTORY, store.path, name, ahead, tmp_path / "ticks", folder=tmp_path)
        for name, ahead in hosts.items()
    }
    assert_all_done(lines_of(workers, tmp_path), store, len(hosts) * 30)
    records = store.find(all_versions=True)
    with sqlite3.connect(store.path) as connection:
        stored = connection.execute("SELECT name, version FROM models ORDER BY id DESC").fetchall()
    connection.close()
    assert [(record.name, record.version) for record in records] == stored
    assert [record.stored_at for record in records] != sorted((one.stored_at for one in records), reverse=True)
    shared = store.versions(history.SHARED)
    assert [record.current for record in shared] == [True] + [False] * (len(shared) - 1)
    assert store.fetch_metadata(history.SHARED) == shared[0].metadata
    by_version = store.list(name=history.SHARED, all_versions=True, sort="-version", limit=1)
    assert by_version == [f"{history.SHARED}:{len(shared)}"]


def test_slow_stores_with_clocks_a_day_apart(store: Storage, tmp_path: Path) -> None:
    """Two slow stores, whose beats are five minutes apart and which take forty, leave each other alone."""
    ticks = tmp_path / "ticks"
    ticks.write_text("0")
    store.store("first", 1)
    hosts = {name: start(HOST + SLOWLY, store.path, name, ahead, ticks) for name, ahead in (("a", 0), ("b", DAY))}
    for number in range(8):
        for process in hosts.values():
            assert process.stdout and process.stdout.readline() == "waits\n"
        wait_for_uploads(store, 2)
        ticks.write_text(str(uploads.STALE / 2 * (number + 1)))
        for process in hosts.values():
            tell(process)
    for name, process in hosts.items():
        assert process.communicate(timeout=60) == ("done\n", "")
        assert len(store.fetch(name)) == 48
    assert leftovers(store) == NOTHING


def wait_for_uploads(store: Storage, count: int) -> None:
    """Return once so many stores have written parts: each does so in a thread."""
    until = time.monotonic() + 30
    while leftovers(store)["uploads"] != count and time.monotonic() < until:
        time.sleep(0.05)
    assert leftovers(store)["uploads"] == count


def tell(process: "subprocess.Popen[str]") -> None:
    """Let a process that waits go on."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


#: A store of 40 MB, which waits in the middle for a line, between two transactions.
ASLEEP = """
import os, sys, time
from views_runs import Storage
class Model(list):
    def __reduce__(self):
        def parts():
            for number in range(40):
                if number == 20:
                    # Until the thread has written what it was given.
                    time.sleep(1)
                    print("waits", flush=True)
                    input()
                yield os.urandom(1_000_000)
        return list, (), None, parts()
Storage(sys.argv[1]).store("m", Model())
print("done")
"""

#: The same, which waits inside the transaction that writes its first parts, when it is to be committed.
ASLEEP_INSIDE = """
from views_runs.database.connection import Connection
rows = Connection.rows
def slowly(self, sql, parameters=()):
    if sql == "COMMIT" and self.value("SELECT count(*) FROM model_parts") == 4:
        print("waits", flush=True)
        input()
    return rows(self, sql, parameters)
Connection.rows = slowly
""" + ASLEEP.replace('print("waits", flush=True)', "pass").replace("input()", "pass")


def fall_asleep(store: Storage, code: str) -> "subprocess.Popen[str]":
    """Start a store, and stop its process where it waits."""
    need(hasattr(signal, "SIGSTOP"), "this system cannot stop a process")
    process = start(code, store.path)
    assert process.stdout and process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGSTOP)
    # A thread that reads could otherwise go on with what it is told before the signal reaches it.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    tell(process)
    return process


@pytest.mark.parametrize("minutes", [9, 10.1])
def test_asleep_for_ten_minutes(store: Storage, monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    """A writer that was stopped for ten minutes is taken for dead: it fails cleanly. For less, and it is whole."""
    store.store("first", 1)
    process = fall_asleep(store, ASLEEP)
    try:
        store.store("second", 2)
        assert leftovers(store)["uploads"] == 1
        monkeypatch.setattr(time, "time", lambda now=time.time: now() + minutes * 60)
        store.store("third", 3)
        reclaimed = minutes * 60 > uploads.STALE
        assert (leftovers(store) == NOTHING) == reclaimed
        assert store.list() == ["third", "second", "first"]
    finally:
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
    if reclaimed:
        assert (process.returncode, output) == (1, "")
        assert "UploadLostError: cannot store 'm': " in errors
        assert not store.exists("m")
    else:
        assert (process.returncode, output, errors) == (0, "done\n", "")
        assert len(store.fetch("m")) == 40
    assert leftovers(store) == NOTHING
    store.store("m", 4, overwrite=True)
    assert store.fetch("m") == 4


def test_asleep_inside_a_transaction(
    store: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers wait for one that was stopped with the lock, say so, give up in time, and go on when it wakes up.

    Readers do not wait: before the commit, nothing is written to the file.
    """
    store.store("first", 1)
    process = fall_asleep(store, ASLEEP_INSIDE)
    monkeypatch.setattr("views_runs.database.connection.PATIENCE", 0.1)
    impatient = Storage(store.path, timeout=0.5)
    operations: dict[str, Callable[[Storage], object]] = {
        "store": lambda one: one.store("second", 2).version,
        "annotate": lambda one: one.annotate("first", note="x").metadata,
    }
    try:
        assert impatient.fetch("first") == 1 and impatient.list() == ["first"]
        for operation in operations.values():
            caplog.clear()
            with pytest.raises(StoreBusyError, match=r"waited \d") as caught:
                operation(impatient)
            assert str(store.path) in str(caught.value)
            waits = [record.levelno for record in caplog.records if "is locked by" in record.message]
            assert waits == [logging.WARNING]
        with ThreadPoolExecutor(len(operations)) as pool:
            patient = [pool.submit(operation, Storage(store.path)) for operation in operations.values()]
            time.sleep(0.3)
            assert not any(one.done() for one in patient)
            process.send_signal(signal.SIGCONT)
            assert [one.result(timeout=60) for one in patient] == [1, {"note": "x"}]
    finally:
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "done\n", "")
    assert len(store.fetch("m")) == 40
    assert leftovers(store) == NOTHING
