"""A worker thread for work that mostly releases the GIL: hashing, and writing to files.

The caller hands over one item after the other. The queue between the two threads is bounded, an exception in either
ends both, and the worker ends before the caller continues with anything else; if signal handlers interrupt that wait
again and again, it ends soon after the last reference to the `Beside` is gone. Signal handlers run in the main thread
only, so no exception interrupts the worker, except while it waits after its work has become unwanted.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar
from weakref import ref

from views_runs import signals
from views_runs.exceptions import StorageError

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a wait is restarted: on Windows, Ctrl-C does not interrupt it.
TICK = 0.1

_END: Any = object()


class Unwanted(BaseException):
    """Raised in a worker thread when its work is no longer needed."""


class Beside(Generic[T, R]):
    """Calls a function with one item after the other, in a thread that starts with the first; call `end` when done.

    If no thread can be started, for example while the interpreter exits, `put` calls the function itself.

    Args:
        function: called with each item, in order.
        most: how many items may be waiting or being processed.
        name: the name of the thread.

    >>> beside = Beside(abs, 2, "example")
    >>> for number in -1, -2, -3:
    ...     beside.put(number)
    >>> beside.result(), beside.result(), beside.result()
    (1, 2, 3)
    >>> beside.end()
    """

    # SimpleQueue has no lock that a signal handler could leave held.

    def __init__(self, function: Callable[[T], R], most: int, name: str) -> None:
        self._function, self._name = function, name
        self._process = os.getpid()
        self._thread: _Thread | None = None
        self._is_begun = False
        self._items: SimpleQueue[T] = SimpleQueue()
        self._results: SimpleQueue[R] = SimpleQueue()
        #: Has an entry for each item that may still be added.
        self._room: SimpleQueue[Any] = SimpleQueue()
        for _ in range(most):
            self._room.put(None)

    def put(self, item: T) -> None:
        """Hand over an item as soon as there is room; raise what the function raised for an earlier one."""
        self._refuse_fork()
        if not self._is_begun:
            self._is_begun = True
            self._start()
        if self._thread is None:
            self._results.put(self._function(item))
            return
        self._take(self._room)
        self._items.put(item)

    def result(self) -> R:
        """Return what the function returned for the next item; raise what it raised."""
        self._refuse_fork()
        return self._take(self._results)

    def finish(self) -> None:
        """Wait until the function has been called with every item; raise what it raised."""
        self._refuse_fork()
        if self._thread is not None:
            self._items.put(_END)
            self._wait(self._thread)
            self._raise_error()

    def end(self) -> None:
        """End the thread, whatever it is doing, and wait for its end; a process forked meanwhile does not have it."""
        if os.getpid() == self._process:
            # Also to a thread whose start was interrupted.
            self._items.put(_END)
            if self._thread is not None:
                self._thread.is_told = True
                self._wait(self._thread)
                # Its traceback refers to the memory of the thread.
                self._thread.error = None

    def _start(self) -> None:
        thread = _Thread(self, self._function, self._items, self._results, self._room, self._name)
        try:
            thread.start()
        except RuntimeError as error:
            # An exception of a signal handler is raised again; the thread runs then.
            signals.let_through(error)
        else:
            self._thread = thread

    def _take(self, queue: "SimpleQueue[R]") -> R:
        while True:
            try:
                found = queue.get(timeout=TICK)
            except Empty:
                continue
            if found is _END:
                queue.put(_END)
                self._raise_error()
                raise Unwanted
            return found

    def _wait(self, thread: "_Thread") -> None:
        # Up to Python 3.12, a `Thread.join` that is interrupted takes the thread for one that has ended.
        while not thread.has_ended:
            with suppress(Empty):
                self._room.get(timeout=TICK)
        self._room.put(_END)
        thread.join()

    def _raise_error(self) -> None:
        if self._thread is not None and self._thread.error is not None:
            raise self._thread.error

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise StorageError("this process was forked during the operation", "Repeat it in the parent process")


class _Thread(threading.Thread):
    """A daemon: it does not keep the process alive if signal handlers keep interrupting the wait for its end.

    It ends, too, when the `Beside` that it works for is gone: a second exception of a signal handler can prevent `end`.
    A destructor would have to tell it, and what a handler raises in one is lost.
    """

    def __init__(
        self,
        caller: "Beside[Any, Any]",
        function: Callable[[Any], Any],
        items: "SimpleQueue[Any]",
        results: "SimpleQueue[Any]",
        room: "SimpleQueue[Any]",
        name: str,
    ) -> None:
        super().__init__(name=f"views_runs-{name}", daemon=True)
        self._caller = ref(caller)
        self._function, self._items, self._results, self._room = function, items, results, room
        #: Whether the caller has said that the work is no longer needed.
        self.is_told = False
        self.has_ended = False
        self.error: BaseException | None = None

    @property
    def is_unwanted(self) -> bool:
        """Whether the work is no longer needed."""
        return self.is_told or self._caller() is None

    def run(self) -> None:
        try:
            while (item := self._next()) is not _END:
                check()
                self._results.put(self._function(item))
                self._room.put(None)
        except Unwanted:
            # Nobody needs this error, and its traceback would keep alive what the function refers to.
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.has_ended = True
            self._results.put(_END)
            self._room.put(_END)

    def _next(self) -> Any:
        while not self.is_unwanted:
            with suppress(Empty):
                return self._items.get(timeout=TICK)
        return _END


def is_unwanted() -> bool:
    """Return whether the work of the current thread is no longer needed."""
    return getattr(threading.current_thread(), "is_unwanted", False)


def check() -> None:
    """Raise an exception in a thread whose work is unwanted; code that waits calls this before it continues."""
    if is_unwanted():
        raise Unwanted
