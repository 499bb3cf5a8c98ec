"""Signal handlers that raise at any moment of an operation, while a second thread goes on using the store.

What comes out is what the handler raised, or the right result. Afterwards nothing is half there, the second thread was
not held up, and `os.fork` returns at once.
"""

import dis
import faulthandler
import gc
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.budgets import SECONDS, SEED, trials
from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers, wait_for_workers
from views_runs import Storage
from views_runs.database import connection

#: Findings that are not mended yet, each a regular expression for what is said about it.
KNOWN: tuple[str, ...] = ()

#: Seconds that operations wait for a lock; that a fork waits for who never leaves the gate; and that it may take.
TIMEOUT, FORK_PATIENCE, AT_ONCE = 5.0, 4.0, 3.0

#: Seconds beyond its time after which a process never ends.
PATIENCE = 90.0

OPERATIONS = ("store", "store", "store large", "fetch", "list", "annotate", "delete")

#: A pickle of several parts, the first of which are written before the last is pickled.
LARGE = b"x" * 6_000_000


class Alarm(Exception):
    """Raised by handlers."""


class Late(TimeoutError):
    """Raised by handlers: an OSError, as handlers that limit a time often raise."""


class Refused(RuntimeError):
    """Raised by handlers: what Python raises where no thread can be started."""


KINDS: tuple[type[BaseException], ...] = (Alarm, Late, Refused, KeyboardInterrupt)


class Handler:
    """Raises while `run` is on the stack.

    Args:
        kind: of what it raises.
        again: after how many seconds it is called again, if it is, up to three times in all.
    """

    def __init__(self, kind: type[BaseException], again: float = 0) -> None:
        self.kind, self.again = kind, again
        self.most = 3 if again else 1
        self.raised: list[BaseException] = []
        #: The lines that it raised at.
        self.where = ""
        #: What makes the signal come, and what ends that.
        self.arm: Callable[[], object] = lambda: None
        self.disarm: Callable[[], object] = lambda: None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if len(self.raised) < self.most and is_running(frame):
            while frame is not None and frame.f_code.co_filename == __file__ and frame.f_code is not run.__code__:
                # What traces is on the stack as well.
                frame = frame.f_back
            assert frame is not None
            self.where += f" {frame.f_code.co_filename}:{frame.f_lineno}"
            signal.setitimer(signal.ITIMER_REAL, self.again)
            self.raised.append(self.kind(f"raised as {self.kind.__name__}"))
            raise self.raised[-1]


def run(operation: Callable[[], Any]) -> Any:
    """Call the operation: here handlers raise."""
    return operation()


def is_running(frame: FrameType | None) -> bool:
    """Whether a frame is inside of `run`."""
    while frame is not None and frame.f_code is not run.__code__:
        frame = frame.f_back
    return frame is not None


#: A place where Python calls handlers: a file, the first line of a function, and an offset in its bytecode.
Point = tuple[str, int, int]

#: Points to try, each with one of the times that an operation comes by; by operation.
Points = dict[str, list[tuple[Point, int]]]

#: After these Python calls handlers, and before those.
CALLS = {number for name, number in dis.opmap.items() if name.startswith("CALL")}
JUMPS = {number for name, number in dis.opmap.items() if name.startswith(("JUMP_BACKWARD", "POP_JUMP_BACKWARD"))}


def tracer(reached: Callable[[Point], object], within: Point | None = None) -> Callable[..., Any]:
    """Return a function for `sys.settrace` that calls a function at each point (of some code) where a handler may be.

    These are the beginning of a function, the end of a call, and a jump backwards: Python calls handlers there, and not
    between other bytecodes.
    """

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        code, was_call = frame.f_code, False
        place = (code.co_filename, code.co_firstlineno)
        if within and within[:2] != place or not is_running(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal was_call
            if event == "opcode":
                opcode = code.co_code[frame.f_lasti]
                if was_call or opcode in JUMPS:
                    reached((*place, frame.f_lasti))
                was_call = opcode in CALLS
            return trace

        reached((*place, -1))
        return trace

    return enter


class Other(threading.Thread):
    """A second thread that stores, lists, fetches and deletes."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.done = self._seen = 0
        self.error = ""
        self._store = Storage(path, timeout=TIMEOUT)

    def run(self) -> None:
        try:
            while True:
                self._step(f"other{self.done}")
                self.done += 1
                time.sleep(0.002)
        except BaseException:
            self.error = traceback.format_exc()

    def _step(self, name: str) -> None:
        self._store.store(name, name, {"number": self.done})
        assert self._store.list(name="other*") == [name] and self._store.fetch(name) == name
        self._store.delete(name)

    def goes_on(self) -> None:
        """Wait until it has done something more since this was called the last time."""
        until = time.monotonic() + 4 * TIMEOUT
        while self.done == self._seen and not self.error:
            assert time.monotonic() < until, f"the second thread was stopped\n{stack(self)}"
            time.sleep(0.001)
        self._seen = self.done
        assert not self.error, f"the second thread failed: {self.error}"


def stack(thread: threading.Thread) -> str:
    """Return where a thread is."""
    assert thread.ident is not None
    return "".join(traceback.format_stack(sys._current_frames()[thread.ident]))


class Trial:
    """Interrupts one operation after the other in a store.

    Args:
        path: of the store.
        points: that were not tried yet.
    """

    def __init__(self, path: Path, points: Points) -> None:
        self.store = Storage(path, timeout=TIMEOUT)
        self.store.store("fetched", LARGE, {"author": "me"})
        self.counts: Counter[str] = Counter()
        self.number = 0
        #: The operation to interrupt.
        self.kind = ""
        self.points = points
        self.other = Other(path)
        self.other.start()

    def operation(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """Return an operation and what checks its result, or, without one (None), what may be there."""
        self.number += 1
        store, name, kind = self.store, f"m{self.number}", self.kind
        if kind == "list":
            return lambda: store.list("author = me"), lambda result: equal(result or ["fetched"], ["fetched"])
        if kind == "fetch":
            return lambda: store.fetch("fetched"), lambda result: equal(result or LARGE, LARGE)
        model = LARGE[: 10 if kind == "store" else 5_500_000] + name.encode()

        def is_there(result: Any) -> None:
            if result is None and name not in store.list():
                return
            equal((store.fetch(name), store.fetch_metadata(name)), (model, {"number": 1}))

        if kind in ("store", "store large"):
            return lambda: store.store(name, model, {"number": 1}), is_there
        store.store(name, model, {"number": 1})
        if kind == "annotate":

            def is_changed(result: Any) -> None:
                equal((store.fetch(name), store.fetch_metadata(name)["number"] in (1, 2)), (model, True))
                equal(result is None or store.fetch_metadata(name)["number"] == 2, True)

            return lambda: store.annotate(name, number=2), is_changed
        assert kind == "delete"

        def is_gone(result: Any) -> None:
            is_there(None)
            equal(result is None or name not in store.list(), True)

        return lambda: [store.delete(name)], is_gone

    def attempt(self, handler: Handler) -> None:
        """Do the operation, with a handler armed, and check what came out and what is there."""
        operation, check = self.operation()
        result = error = None
        signal.signal(signal.SIGALRM, handler)
        try:
            handler.arm()
            result = run(operation)
        except BaseException as caught:
            error = caught
        finally:
            handler.disarm()
        self.counts[self.kind] += 1
        self.counts["interrupted" if handler.raised else "not interrupted"] += 1
        if error is not None:
            said = "".join(traceback.format_exception(error))
            mine = any(error is one for one in handler.raised)
            error = None
            assert mine, f"{self.kind} raised another exception:\n{said}"
        if len(handler.raised) > 1:
            # One exception leaves nothing, even while it is kept; several leave nothing once they are gone.
            handler.raised.clear()
            gc.collect()
            wait_for_workers()
        check(result)
        self.settle()

    def settle(self) -> None:
        """Show that nothing is half there after the next store, that others go on, and that a fork returns."""
        self.store.store("next", self.number, {"number": self.number}, overwrite=True)
        equal(self.store.fetch("next"), self.number)
        equal(leftovers(self.store), NOTHING)
        for name in self.store.list(name="m*"):
            self.store.delete(name)
        self.other.goes_on()
        forks: list[float] = []
        thread = threading.Thread(target=lambda: forks.append(time_fork()))
        thread.start()
        thread.join()
        if self.number % 5 == 0:
            forks.append(time_fork())
        equal([round(seconds) for seconds in forks if seconds > AT_ONCE], [])


def equal(one: Any, other: Any) -> None:
    """Both are equal."""
    if one != other:
        raise AssertionError(f"{str(one)[:200]} is not {str(other)[:200]}")


def time_fork() -> float:
    """Return how many seconds a fork takes."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        os._exit(0)
    took = time.monotonic() - began
    os.waitpid(child, 0)
    return took


def new_handler(choose: random.Random) -> Handler:
    """Return a handler, which is sometimes called again while what it raised is being dealt with."""
    return Handler(choose.choice(KINDS), 10 ** choose.uniform(-5, -3) if choose.random() < 0.25 else 0)


def by_timer(trial: Trial, choose: random.Random) -> Handler:
    """Let a timer ring at a random moment."""
    # The exponent is random, so that short and long times are tried as often.
    seconds = 10 ** choose.uniform(-5.3, -1.3)
    handler = new_handler(choose)
    handler.arm = lambda: signal.setitimer(signal.ITIMER_REAL, seconds)
    handler.disarm = lambda: signal.setitimer(signal.ITIMER_REAL, 0)
    return handler


def at_a_point(trial: Trial, choose: random.Random) -> Handler:
    """Raise at the next of the points of an operation where Python calls handlers."""
    points = trial.points.setdefault(trial.kind, [])
    if not points:
        points += find_points(trial, choose)
        trial.counts["points"] += len(points)
    wanted, times = points.pop()

    def reach(point: Point) -> None:
        nonlocal times
        if point == wanted:
            times -= 1
            if not times:
                signal.raise_signal(signal.SIGALRM)

    def disarm() -> None:
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)

    handler = new_handler(choose)
    handler.arm = lambda: sys.settrace(tracer(reach, wanted))
    handler.disarm = disarm
    return handler


def find_points(trial: Trial, choose: random.Random) -> list[tuple[Point, int]]:
    """Return the points that an operation comes by in random order, the package's own last, each with one of its times.

    The list is used from its end.
    """
    times: Counter[Point] = Counter()
    operation, _ = trial.operation()
    sys.settrace(tracer(lambda point: times.update([point])))
    try:
        run(operation)
    finally:
        sys.settrace(None)
    found = [(point, choose.randint(1, count)) for point, count in times.items()]
    choose.shuffle(found)
    own = ("views_runs", "contextlib")
    return sorted(found, key=lambda one: any(name in one[0][0] for name in own))


#: Arms a handler.
Way = Callable[[Trial, random.Random], Handler]


def work(way: Way, folder: Path, seconds: float, first: int, points: Points, answer: Connection) -> None:
    """Interrupt operations until one has a finding or the time is over; answer with what was done.

    This is the main function of a process: what went wrong may leave it spoilt.
    """
    warnings.simplefilter("ignore")
    faulthandler.dump_traceback_later(seconds + PATIENCE, exit=True)
    # What hangs on the garbage collector to be released may stay for ever.
    gc.disable()
    connection.FORK_PATIENCE = FORK_PATIENCE
    # With two threads, each waits less for the other.
    sys.setswitchinterval(0.0002)
    # What is raised where Python cannot pass it on, as in a destructor, is lost.
    sys.unraisablehook = lambda unraisable: None
    trial = Trial(folder / "models.db", points)
    finding = ""
    for seed, choose in trials(seconds, first):
        trial.kind = choose.choice(OPERATIONS)
        handler = way(trial, choose)
        try:
            trial.attempt(handler)
        except BaseException as error:
            said = "".join(traceback.format_exception(error))
            finding = f"TESTS_SEED={seed}, {trial.kind}, raised at{handler.where}\n{said}"
            break
    trial.counts["operations of the second thread"] = 4 * trial.other.done
    answer.send((seed, trial.counts, points, finding))
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("way", [by_timer, at_a_point])
def test_handlers_that_raise(memory_path: Path, way: Way) -> None:
    """The exception comes out or the result is right, and all is well afterwards."""
    need(hasattr(signal, "setitimer") and hasattr(os, "fork"), "this system has neither timers nor forks")
    end, seed = time.monotonic() + SECONDS / 2, SEED
    counts: Counter[str] = Counter()
    points: Points = {}
    findings: list[str] = []
    while seed == SEED or time.monotonic() < end:
        folder = memory_path / str(seed)
        folder.mkdir()
        answer, sender = multiprocessing.Pipe(duplex=False)
        arguments = (way, folder, end - time.monotonic(), seed, points, sender)
        process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        process.start()
        sender.close()
        try:
            last, counted, points, finding = answer.recv()
        except EOFError:
            pytest.fail(f"it never ended, or died, after TESTS_SEED={seed}; see above")
        finally:
            process.join()
        seed = last + 1
        counts += counted
        findings += [finding] if finding else []
        shutil.rmtree(folder)
    counts["points tried"] = counts["points"] - sum(map(len, points.values()))
    print(f"TESTS_SEED={SEED}: {', '.join(f'{count} {kind}' for kind, count in counts.most_common())}")
    known = [one for one in findings if re.search("|".join(KNOWN) or "(?!)", one)]
    print(f"{len(known)} known findings")
    new = [one for one in findings if one not in known]
    assert not new, "\n\n".join(new)
