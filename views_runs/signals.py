"""Tell the exceptions that a signal handler raises from the failures of what it interrupted."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def let_through(error: Exception) -> None:
    """Raise an exception, or one of its causes, if a signal handler raised it, such as one that limits the time.

    Call this where an exception is taken for a failure: a handler is called between any two steps of the code.
    """
    handlers = [_find_code(signal.getsignal(number)) for number in signal.valid_signals()]
    cause: BaseException | None = error
    while cause:
        if any(frame.f_code in handlers for frame, _ in traceback.walk_tb(cause.__traceback__)):
            raise cause
        cause = cause.__cause__


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
