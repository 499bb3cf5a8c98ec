"""System calls that fail, one by one: each operation succeeds or says what is wrong, and the next one works.

strace makes the Nth call of one kind fail that an operation makes on the store or its journal, for each N until the
operation comes to its end without it. Where an operation makes more than `FAULTS` calls of a kind (a page is written at
a time), the first and the last are taken, and some in between.

A write that is cut short cannot be had that way: strace's ``retval=`` keeps the kernel from writing anything and tells
SQLite that so much was written, which is a lie that no program can find out. So strace makes a write say that nothing
was written, which is true, and the kernel itself cuts others short, at a limit to the file's size.
"""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import views_runs
from tests.support import history
from tests.support.history import Expected, Worker
from tests.support.machine import ROOT, need
from tests.support.stores import NOTHING, leftovers
from tests.support.strace import FAILED, FULL, HOT, INJECTED, KILL, Outcome, Tracer, chosen
from views_runs import Storage
from views_runs.database import locks


class Rig(Tracer):
    """A small store, and processes that do one operation each on a copy of it while strace stands by.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._say: Callable[[str], object] = (lines := []).append
        self.worker = Worker(Storage(self.path, timeout=1), "w", 1, lambda line: self._say(line))
        self.do("small")
        self.do("large")
        self.lines = lines
        self.keep()

    def do(self, operation: str) -> None:
        """Do one of `OPERATIONS` here and now."""
        weight, large = OPERATIONS[operation]
        self.worker.large = large
        self.worker.step({weight: 1})

    def crash(self) -> None:
        """Keep the files as a worker leaves them that dies before its commit, when every page is written."""
        calls = self.run("small").calls["pwrite64"]
        # The last write says in the journal that it is over.
        outcome = self.run("small", "-e", f"inject=pwrite64:{KILL}:when={calls}")
        assert os.WIFSIGNALED(outcome.status) and self.journal.read_bytes()[:8] == HOT
        self.lines += outcome.lines
        self.keep()

    def run(self, operation: str, *options: str, prepare: Callable[[], object] = lambda: None) -> Outcome:
        """Do one of `OPERATIONS` in a forked process under strace, on files as they were kept."""

        def work(say: Callable[[str], object]) -> None:
            self._say = say
            self.do(operation)

        return self.trace(work, *options, prepare=prepare)

    def check(self, outcome: Outcome, operation: str, may_fail: tuple[str, ...], may_die: bool = False) -> None:
        """Show that an operation ended well or said why not, and that the next ones find all as it should be."""
        died = os.WIFSIGNALED(outcome.status)
        assert may_die if died else outcome.status == 0, outcome
        expected = Expected([*self.lines, *outcome.lines])
        for error in expected.failed:
            kind, message = error.split(": ", 1)
            assert kind in may_fail, error
            assert "cannot " in message and str(self.path) in message and "ry again" in message, error
        assert died or len(expected.failed) + expected.acknowledged == Expected(self.lines).acknowledged + 1
        store = Storage(self.path, timeout=10)
        assert expected.troubles(store) == [], outcome
        after: list[str] = []
        Worker(store, "after", 1, after.append, large=0).step({"store": 1})
        assert Expected(after).acknowledged == 1, outcome
        assert leftovers(store) == NOTHING, outcome
        connection = sqlite3.connect(self.path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], outcome
        connection.close()


#: The operations: what the worker is to do, and how many of 10 of its models have several parts.
OPERATIONS = {
    "small": ("store", 0),
    "large": ("store", 10),
    "overwrite": ("overwrite", 10),
    "annotate": ("annotate", 0),
    "delete": ("delete", 0),
    "fetch": ("fetch", 0),
    "find": ("find", 0),
}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A store with a model of one part and one of three."""
    monkeypatch.setattr(history, "LARGE", (1_200_000, 1_400_000))
    return Rig(tmp_path)


def inject_each(rig: Rig, operation: str) -> "Counter[str]":
    """Let each call of an operation fail in each way, and check what comes of it; count how often each was met."""
    plain = rig.run(operation)
    rig.check(plain, operation, ())
    met: Counter[str] = Counter()
    for (call, fault), may_fail in INJECTED.items():
        # One more than there were: the operation succeeds without meeting it.
        for number in [*chosen(plain.calls[call]), plain.calls[call] + 1]:
            outcome = rig.run(operation, "-e", f"inject={call}:{fault}:when={number}")
            rig.check(outcome, operation, may_fail, may_die=fault == KILL)
            met[f"{call} {fault}"] += outcome.was_hit
    return met


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_call_fails(rig: Rig, operation: str) -> None:
    """An operation succeeds or names the file and what to do; what was acknowledged is there; the next one works."""
    met = inject_each(rig, operation)
    print(operation, met.total(), dict(met))
    assert met["fcntl error=ENOLCK"] and met["pread64 error=EIO"] and met[f"fcntl {KILL}"]
    if operation not in ("fetch", "find"):
        assert met["pwrite64 error=EIO"] and met["fdatasync error=EIO"] and met[f"pwrite64 {KILL}"]
    assert met["ftruncate error=EIO"] or operation != "delete"


@pytest.mark.parametrize("operation", ["find", "small"])
def test_each_call_fails_after_a_crash(rig: Rig, operation: str) -> None:
    """Rolling back what a dead worker had begun may fail too, and the next one does it."""
    rig.crash()
    met = inject_each(rig, operation)
    print(operation, met.total(), dict(met))
    # The journal is gone then, and a store makes one of its full size.
    for call in "unlink", "pwrite64", "fdatasync", "ftruncate", *(["fsync"] if operation == "small" else []):
        assert met[f"{call} error=EIO"] and met[f"{call} {KILL}"], call


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("pwrite64:error=ENOSPC", FULL),
        ("pwrite64:error=EIO", FAILED),
        ("fdatasync:error=EIO", FAILED),
        ("pread64:error=EIO", (*FAILED, "StoreDamagedError")),
        ("fcntl:error=ENOLCK", ("StoreBusyError",)),
    ],
)
def test_calls_that_fail_for_good(rig: Rig, operation: str, fault: str, kinds: tuple[str, ...]) -> None:
    """An operation that cannot succeed says so; reading needs no writing."""
    reads = operation in ("fetch", "find") and not fault.startswith(("pread64", "fcntl"))
    outcome = rig.run(operation, "-e", f"inject={fault}")
    assert outcome.was_hit != reads
    assert any(json.loads(line)["is"] == "failed" for line in outcome.lines) != reads, outcome
    rig.check(outcome, operation, kinds)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_slow_server(rig: Rig, operation: str) -> None:
    """Where each write takes its time all works, only later."""
    slow = [f"{call}:delay_exit=20000" for call in ("fdatasync", "fsync", "ftruncate")]
    outcome = rig.run(operation, *(word for call in slow for word in ("-e", f"inject={call}")))
    assert outcome.was_hit == (operation not in ("fetch", "find"))
    rig.check(outcome, operation, ())


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("operation", ["small", "large", "overwrite", "annotate", "delete"])
def test_short_writes(rig: Rig, operation: str, dies: bool) -> None:
    """The kernel cuts a write short in the middle of a page; the next write fails, or the worker is killed there."""
    kinds = Counter[str]()
    largest = rig.path.stat().st_size
    # Up to the journal's size it is the journal that is cut too; what a delete writes is in the middle of the file.
    limits = [700 + 9_000 * step for step in range(8)] + [largest * step // 8 + 700 for step in range(1, 9)]
    for limit in [*limits, largest + 3_000, largest + 50_000, largest + 1_000_000]:

        def prepare(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            # Python ignores the signal, so that the write fails; by default it kills.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if dies else signal.SIG_IGN)

        outcome = rig.run(operation, prepare=prepare)
        kinds[json.loads(outcome.lines[-1])["is"]] += 1
        rig.check(outcome, operation, FAILED, may_die=dies)
    print(operation, dict(kinds))
    assert kinds["begun" if dies else "failed"] >= 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("pwrite64:error=ENOSPC", "the disk is full (SQLITE_FULL: "),
        ("pwrite64:error=EIO:when=5", "the file system failed to read or write the file (SQLITE_IOERR_"),
        ("fdatasync:error=EIO", "the file system failed to read or write the file (SQLITE_IOERR_"),
        ("pread64:error=EIO", "the file system failed to read or write the file (SQLITE_IOERR_"),
        ("pread64:error=EIO:when=20", "the file is damaged, or the disk or share failed to read it (SQLITE_CORRUPT: "),
        ("fcntl:error=ENOLCK:when=3", "the file system failed to read or write the file (SQLITE_IOERR_"),
    ],
)
def test_the_command_line(rig: Rig, fault: str, message: str) -> None:
    """It ends with 1, and with one line that says what is wrong; without the fault it does what it was told to."""
    rig.restore()
    name = next(name for name, _ in Expected(rig.lines).there)
    paths = [str(Path(views_runs.__file__).parents[1]), *sys.path]
    # The interpreter itself, and not a script that starts it.
    command = [os.path.realpath(sys.executable), "-m", "views_runs", "model", "delete", name, "--yes", "--store"]
    strace = ["strace", "-f", "-o", "/dev/null", "-P", str(rig.path), "-P", str(rig.journal), "-e", f"inject={fault}"]
    for before, code in ((strace, 1), ([], 0)):
        result = subprocess.run(
            [*before, *command, str(rig.path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        if code:
            assert message in " ".join(result.stderr.split()) and str(rig.path) in result.stderr.replace("\n", "")


def test_a_share_without_locks(store: Storage) -> None:
    """Where the system refuses locks it is said long before the wait would end, though SQLite says only "locked"."""
    need(shutil.which("strace"), "strace is not installed")
    store.store("m", 1)
    # The file that a lock is tried on has a name that is known beforehand.
    code = "import os; os.getpid = lambda: 7; os.urandom = lambda size: bytes(size)\n"
    code += f"from views_runs import Storage; Storage({str(store.path)!r}).fetch('m')"
    files = ["-P", str(store.path), "-P", str(store.path.parent / f"{locks.PROBE}-7-00000000")]
    inject = ["-f", "-qq", "-o", "/dev/null", *files, "-e", "trace=fcntl", "-e", "inject=fcntl:error=ENOLCK"]
    python = [os.path.realpath(sys.executable), "-c", code]
    path = os.pathsep.join([str(ROOT), *(one for one in sys.path if one)])
    result = subprocess.run(
        ["strace", *inject, *python],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=store.timeout / 2,
    )
    assert "StoreAccessError" in result.stderr, result.stderr
    unsupported = "the file system does not support locks (a lock is refused: No locks available)"
    assert f"cannot fetch 'm': {store.path}: {unsupported}" in result.stderr
    assert store.fetch("m") == 1 and not [*store.path.parent.glob(f"{locks.PROBE}*")]
