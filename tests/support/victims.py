"""Forked workers that are killed, and the memory in which they show what they are doing."""

import mmap
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What a worker is doing that has not said anything else: the phase is a byte in shared memory.
ELSEWHERE = 0

#: The workers that were started and not yet killed.
_alive: set[int] = set()


@contextmanager
def shared_page() -> Iterator[mmap.mmap]:
    """Provide memory that forked workers share with the test; a test that fails leaves no workers."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        try:
            yield memory
        finally:
            while _alive:
                pid = _alive.pop()
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


class Victim:
    """A forked worker that goes on until it is killed.

    Args:
        work: what it does, with a function that takes each line that it says; it never returns.
        page: where its phase is to be seen.
        place: of its phase in the page.
    """

    def __init__(self, work: Callable[[Callable[[str], object]], object], page: mmap.mmap, place: int = 0) -> None:
        self._page, self._place = page, place
        self._page[place] = ELSEWHERE
        self._output, inlet = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                work(lambda line: os.write(inlet, line.encode()))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(inlet)
        _alive.add(self._pid)

    @property
    def phase(self) -> int:
        """What it is doing, or was doing last."""
        return self._page[self._place]

    def wait_for(self, phase: int, patience: float) -> None:
        """Return when it is in this phase, or after so many seconds."""
        deadline = time.monotonic() + patience
        while self.phase != phase and time.monotonic() < deadline:
            time.sleep(0)

    def kill(self) -> list[str]:
        """Kill it wherever it is, and return what it said."""
        os.kill(self._pid, signal.SIGKILL)
        _alive.discard(self._pid)
        _, status = os.waitpid(self._pid, 0)
        with open(self._output, encoding="utf-8") as file:
            lines = file.readlines()
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"it had ended by itself: {lines}"
        return lines


def mark(
    page: mmap.mmap, place: int, owner: Any, name: str, phase: int, restore: bool = True, stays: int | None = None
) -> None:
    """Let a function set the phase of this process when it begins, unless that is the one that stays."""
    function = getattr(owner, name)

    def marked(*arguments: Any, **options: Any) -> Any:
        before = page[place]
        page[place] = stays if before == stays else phase
        try:
            return function(*arguments, **options)
        finally:
            if restore:
                page[place] = before

    setattr(owner, name, marked)
