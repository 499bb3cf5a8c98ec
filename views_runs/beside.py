"""A thread beside the caller's, for work that mostly needs no interpreter: hashing, and reading and writing files.

`Behind` hands on what its caller makes; `ahead` fetches what its caller will need. The queue between the two threads is
bounded, an exception in either ends both, and the thread ends before the block of its caller does. Signal handlers run
in the main thread alone, so that nothing is raised in the middle of what this thread does, unless it asks.

A thread is a daemon: one whose caller was interrupted while waiting for its end must not keep the process alive.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from views_runs.exceptions import StorageError

T = TypeVar("T")

#: Seconds that a wait lasts at most before it is begun again: on Windows, Ctrl-C does not end one.
TICK = 0.1

_END = object()


class Unwanted(BaseException):
    """Raised in a thread when nobody needs its work any more."""


class _Thread(threading.Thread):
    """A thread that works with a bounded queue; SimpleQueue has no lock that a signal handler could leave held."""

    def __init__(self, work: Callable[["_Thread"], None], most: int, name: str) -> None:
        super().__init__(name=f"views_runs-{name}", daemon=True)
        self.items: SimpleQueue[Any] = SimpleQueue()
        #: Whether the caller has given up; looked at by whatever waits.
        self.is_unwanted = False
        self.error: BaseException | None = None
        self._work: Callable[[_Thread], None] | None = work
        self._process = os.getpid()
        #: One token for each item that may still be added to the queue.
        self._room: SimpleQueue[Any] = SimpleQueue()
        for _ in range(most):
            self._room.put(None)

    def run(self) -> None:
        work, self._work = self._work, None
        try:
            if work:
                work(self)
        except BaseException as error:
            self.error = None if isinstance(error, Unwanted) else error
        finally:
            # The caller may be waiting at either end.
            self.items.put(_END)
            self._room.put(_END)

    def put(self, item: Any) -> None:
        """Add an item once there is room for it, unless the thread has ended."""
        if _take(self._room) is _END:
            self._room.put(_END)
        else:
            self.items.put(item)

    def get(self) -> Any:
        """Return the next item, or `_END`."""
        item = _take(self.items)
        self._room.put(None)
        return item

    def raise_error(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self.error is not None:
            raise self.error

    def wait(self) -> None:
        """Wait until the thread has ended; a process that was forked meanwhile does not have it."""
        while os.getpid() == self._process and self.is_alive():
            self.join(TICK)

    def give_up(self) -> None:
        """End the thread wherever it is, and wait for that."""
        self.is_unwanted = True
        self.put_end()
        self.wait()
        # Its traceback refers to what the thread had in memory, and to the thread.
        self.error = None

    def put_end(self) -> None:
        """Let the thread end, in either direction, once it has what is in the queue."""
        if os.getpid() == self._process:
            self.items.put(_END)
            self._room.put(None)


def _take(queue: "SimpleQueue[Any]") -> Any:
    while True:
        check()
        try:
            return queue.get(timeout=TICK)
        except Empty:
            continue


def check() -> None:
    """Raise an exception if the current thread is one whose work is unwanted; to be called before and in waits."""
    if is_unwanted():
        raise Unwanted


def is_unwanted() -> bool:
    """Return whether nobody needs the work of the current thread any more."""
    return getattr(threading.current_thread(), "is_unwanted", False)


def _start(work: Callable[[_Thread], None], most: int, name: str) -> _Thread | None:
    """Start a thread; return None where the system starts none, such as while the interpreter ends."""
    thread = _Thread(work, most, name)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Behind:
    """Calls a function with one item after the other, in a thread that starts with the first; at last, give it up.

    Args:
        function: called with each item, in order.
        most: how many items may wait.
        name: of the thread.

    >>> found = []
    >>> behind = Behind(found.append, 2, "example")
    >>> for number in range(5):
    ...     behind.put(number)
    >>> behind.finish()
    >>> behind.give_up()
    >>> found
    [0, 1, 2, 3, 4]
    """

    def __init__(self, function: Callable[[Any], object], most: int, name: str) -> None:
        self._function, self._most, self._name = function, most, name
        self._process = os.getpid()
        self._thread: _Thread | None = None
        self._is_begun = False

    def put(self, item: Any) -> None:
        """Hand on an item, and raise what the function raised for an earlier one."""
        if os.getpid() != self._process:
            raise StorageError("this process was forked in the middle of storing", "Store the model in its parent")
        if not self._is_begun:
            self._is_begun = True
            self._thread = _start(self._work, self._most, self._name)
        if self._thread is None:
            self._function(item)
        else:
            self._thread.put(item)
            self._thread.raise_error()

    def finish(self) -> None:
        """Wait until the function was called with every item, and raise what it raised."""
        if self._thread is not None:
            self._thread.put_end()
            self._thread.wait()
            self._thread.raise_error()

    def _work(self, thread: _Thread) -> None:
        while (item := thread.get()) is not _END:
            self._function(item)

    def give_up(self) -> None:
        """End the thread, if there is one; what waits is dropped."""
        if self._thread is not None:
            self._thread.give_up()


def ahead(items: Iterable[T], most: int, name: str) -> Generator[T, None, None]:
    """Yield items that a thread takes from an iterable, up to so many ahead.

    >>> list(ahead(range(5), 2, "example"))
    [0, 1, 2, 3, 4]
    """

    def work(thread: _Thread) -> None:
        for item in items:
            thread.put(item)

    thread = _start(work, most, name)
    if thread is None:
        yield from items
        return
    try:
        while (item := thread.get()) is not _END:
            yield item
        thread.raise_error()
    finally:
        thread.give_up()
