"""Temporary."""
import pickle
import reprlib
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any
PROTOCOL = 5
LOOK = 10.0
DEEPEST = 50
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100

class _TooLate(Exception):
    """There is no more time to look."""


class _Nowhere:
    """A file that forgets what is written to it, and takes nothing any more after a moment by `time.monotonic`."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def write(self, data: Any) -> int:
        if time.monotonic() > self._deadline:
            raise _TooLate
        return 0


def find_culprit(model: Any) -> tuple[str, Any]:
    """Return which part of an object keeps it from being pickled, and where it is, as Python would write it.

    >>> find_culprit({"name": "forest", "steps": [1, lambda x: x]})[0]
    "['steps'][1]"
    """
    place, path = "", [model]
    nowhere = _Nowhere(time.monotonic() + LOOK)
    # Objects may do anything when they are asked; then what was found until there is what there is to tell.
    with suppress(Exception):
        while found := _first_culprit(path, nowhere):
            place, path = place + found[0], [*path, found[1]]
    return place, path[-1]


def _first_culprit(path: list[Any], nowhere: _Nowhere) -> tuple[str, Any] | None:
    """Return which part of the last of these objects keeps it from being pickled; none of those that it is in."""
    above = {id(one) for one in path}
    for step, child in _children(path[-1]) if len(path) <= DEEPEST else ():
        nowhere.write(b"")
        if id(child) not in above and not _can_be_pickled(child, nowhere, above):
            return step, child
    return None


class _PartPickler(pickle.Pickler):
    """Pickles a part of something: what it refers back to is not pickled with it."""

    def __init__(self, file: _Nowhere, above: Collection[int]) -> None:
        super().__init__(file, PROTOCOL)
        self._above = above

    def persistent_id(self, value: Any) -> int | None:
        return 1 if id(value) in self._above else None


def _can_be_pickled(value: Any, nowhere: _Nowhere, above: Collection[int]) -> bool:
    try:
        _PartPickler(nowhere, above).dump(value)
        return True
    except _TooLate:
        raise
    except Exception:
        return False


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is pickled with, and how one would get there from it."""
    if isinstance(value, dict):
        yield from ((f"[{_SHORT.repr(key)}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{number}]", item) for number, item in enumerate(value))
    elif isinstance(value, type) or callable(value) and not hasattr(value, "__self__") and hasattr(value, "__code__"):
        # Pickled by its name.
        return
    else:
        yield from _reduced(value)


def _reduced(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        reduced = value.__reduce_ex__(PROTOCOL)
    except Exception:
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    for some in state if isinstance(state, tuple) else (state,):
        if isinstance(some, dict):
            yield from ((f".{key}", item) for key, item in some.items())
    yield from ((f"[{number}]", item) for number, item in enumerate(items or ()))
    yield from ((f"[{_SHORT.repr(key)}]", item) for key, item in pairs or ())
    yield from (("", item) for item in arguments or () if item is not value)


