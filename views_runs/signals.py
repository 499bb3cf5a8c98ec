"""Tell the exceptions that a signal handler raises from the failures of what it interrupted."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def let_through(error: Exception) -> None:
    """Raise an exception again if a signal handler raised it, such as one that limits the time of an operation.

    Call this where any exception is taken for a failure of code that is not this package's: a handler is called between
    any two steps of that code.
    """
    handlers = [_find_code(signal.getsignal(number)) for number in signal.valid_signals()]
    if any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__)):
        raise error


@contextmanager
def ignoring_failures() -> Iterator[None]:
    """Like ``suppress(Exception)``, but let through what a signal handler raises."""
    try:
        yield
    except Exception as error:
        let_through(error)


def _find_code(handler: Any) -> Any:
    """Return the code of a function, a method, a partial or another object that can be called."""
    handler = getattr(handler, "func", handler)
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
