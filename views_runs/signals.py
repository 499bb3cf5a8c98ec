"""Tell the exceptions that a signal handler raises from the failures of what it interrupted."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def let_through(error: BaseException) -> None:
    """Raise an exception, or one of its causes, if a signal handler raised it, such as one that limits the time.

    Call this where an exception is taken for a failure: a handler is called between any two steps of the code.
    """
    if interruption := find_interruption(error):
        raise interruption


def find_interruption(error: BaseException) -> BaseException | None:
    """Return what a signal handler raised: an exception, or one of its causes; None for an ordinary failure."""
    found = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [_find_code(handler) for handler in found if not isinstance(handler, signal.Handlers)]
    cause: BaseException | None = error
    while cause:
        by_handler = any(frame.f_code in codes for frame, _ in traceback.walk_tb(cause.__traceback__))
        if by_handler or not isinstance(cause, Exception):
            return cause
        cause = cause.__cause__
    return None


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
    calls = (vars(kind).get("__call__") for kind in type(handler).__mro__)
    return getattr(handler, "__code__", None) or getattr(next(filter(None, calls), None), "__code__", None)
