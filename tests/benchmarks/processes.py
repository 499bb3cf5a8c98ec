"""Fresh processes: each prepares what it measures, says that it is ready, and begins when it is told to."""

import json
import math
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: What was measured once: seconds (``wall`` and ``cpu``), MiB, and bytes on the disk.
Run = dict[str, float]

Actions = dict[str, Callable[[], object]]


class Failure(Exception):
    """A process ended before its time; the message is what it said last."""


class Process:
    """A function of a module, called in a process of its own with arguments that can be JSON."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, before: Sequence[str] = ()) -> None:
        serve = f"from {__name__} import serve; serve()"
        called = [sys.executable, "-c", serve, function.__module__, function.__name__, json.dumps(arguments)]
        self._errors, pipe = tempfile.TemporaryFile("w+"), subprocess.PIPE
        self._process = subprocess.Popen(
            [*before, *called], stdin=pipe, stdout=pipe, stderr=self._errors, text=True, cwd=ROOT
        )

    def tell(self) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            print(file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        raise Failure((self._errors.read().strip().splitlines() or ["it was killed"])[-1])

    def end(self) -> None:
        # What still waits for a word ends at the end of its input.
        self._process.communicate()
        self._errors.close()


def serve() -> None:
    """Call the function that the arguments name, and answer with what it returns."""
    global _channel
    # Libraries print what they like.
    _channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, name, arguments = sys.argv[1:]
    tell_parent(getattr(import_module(module), name)(*json.loads(arguments)))


def tell_parent(value: Any) -> None:
    print(json.dumps(value), file=_channel, flush=True)


def wait_for_word() -> None:
    tell_parent("ready")
    # A line could take the next word with it, which `select` would then wait for.
    os.read(0, 1)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that measures nothing in a process of its own, and return what it returns."""
    process = Process(function, *arguments)
    try:
        return process.answer()
    finally:
        process.end()


def run(processes: Sequence[Process], folder: Path | None = None, waited_for: int = 1) -> list[Any]:
    """Let processes begin at once, and tell the rest to end when the first ones have; return their answers.

    The first answer has the bytes that a folder takes more on the disk than before, if one is given.
    """
    try:
        for process in processes:
            process.answer()
        # What was written before is not written to the disk while something else is measured.
        os.sync()
        taken = disk_usage(folder) if folder else 0
        for process in reversed(processes):
            process.tell()
        answers = [process.answer() for process in processes[:waited_for]]
        for process in processes[waited_for:]:
            process.tell()
        answers += [process.answer() for process in processes[waited_for:]]
    finally:
        for process in processes:
            process.end()
    if folder:
        os.sync()
        answers[0]["disk"] = disk_usage(folder) - taken
    return answers


def disk_usage(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def measure(action: Callable[[], object], count: int = 1) -> Run:
    """Wait for the word; return what an action takes for each of so many things, and the memory of this process in MiB.

    ``peak`` is the most that it had, and ``grown`` what it had with the result, above what it had before.
    """
    wait_for_word()
    with suppress(OSError):
        # Only Linux can forget the peak that making the object left.
        Path("/proc/self/clear_refs").write_text("5")
    before, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    result = action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown, peak = memory("VmRSS") - before, memory("VmHWM") - before
    del result
    return {"wall": wall / count, "cpu": cpu / count, "peak": peak, "grown": grown}


def memory(kind: str) -> float:
    """Return this process' memory in MiB, as far as the system tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def repeat(actions: Actions, pause: float) -> dict[str, list[float]]:
    """Do one action after the other, with pauses, from one word to the next; return how long each took."""
    waits: dict[str, list[float]] = {kind: [] for kind in actions}
    for action in actions.values():
        action()
    wait_for_word()
    while True:
        for kind, action in actions.items():
            if select.select([0], [], [], pause)[0]:
                return waits
            waits[kind].append(time_action(action))


def time_action(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def time_command(command: Sequence[str]) -> Run:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failure(f"{' '.join(command)} failed")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def time_fsync(folder: Path) -> float:
    """Return the median of the seconds that it takes to write 4 kB and have them on the disk."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return statistics.median(time_action(lambda: (file.write(bytes(4096)), os.fsync(file))) for _ in range(21))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
