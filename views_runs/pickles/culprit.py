"""Find the part of an object that prevents it from being pickled."""

import pickle
import reprlib
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

#: The maximum duration of the search, in seconds.
LOOK = 10.0

#: The maximum nesting depth of the search.
DEEPEST = 50

_LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})

_SHORT = reprlib.Repr()
_SHORT.maxstring = 100


def find_culprit(model: Any) -> tuple[str, Any]:
    """Return the location in a model of the object that cannot be pickled, in Python notation, and that object.

    If no such part is found in time, return an empty location and the model itself.

    >>> find_culprit({"name": "forest", "steps": [1, lambda x: x]})[0]
    "['steps'][1]"
    """
    deadline = time.monotonic() + LOOK
    found = None
    # Objects may run arbitrary code when they are pickled or inspected.
    with suppress(Exception):
        failed = _find_failure(model, deadline)
        # If an iterator failed, the last object that it returned is not to blame.
        if failed is not None and _find_failure(failed, deadline) is failed:
            found = _search(model, failed, deadline, {})
    return found or ("", model)


class _Trial(pickle.Pickler):
    """Pickles and discards the output until a deadline, and records the object that it has reached.

    `persistent_id` would be called even for each number in a list, and take twenty times as long.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__(self, pickle.HIGHEST_PROTOCOL)
        self.reached: Any = None
        self._deadline = deadline

    def reducer_override(self, value: Any) -> Any:
        self.reached = value
        self.write(b"")
        return NotImplemented

    def write(self, data: Any) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError


def _find_failure(value: Any, deadline: float) -> Any:
    """Return the object at which pickling a value fails, or None if it succeeds."""
    trial = _Trial(deadline)
    try:
        trial.dump(value)
    except Exception:
        return trial.reached
    return None


def _search(value: Any, wanted: Any, deadline: float, seen: dict[int, Any], depth: int = 0) -> tuple[str, Any] | None:
    """Return the location in a value of an object, or of the first instance of a class, and the object found."""
    if time.monotonic() > deadline:
        raise TimeoutError
    if value is wanted or type(value) is wanted:
        return "", value
    if type(value) in _LEAVES or id(value) in seen or depth > DEEPEST:
        return None
    # Kept alive, so that no later object has the same id.
    seen[id(value)] = value
    with suppress(Exception):
        for step, child in _list_children(value):
            if found := _search(child, wanted, deadline, seen, depth + 1):
                return step + found[0], found[1]
    return None


def _list_children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects that are pickled with an object, each with its location relative to the object."""
    if isinstance(value, dict):
        yield from ((f"[{_SHORT.repr(key)}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{number}]", item) for number, item in enumerate(value))
    reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if isinstance(reduced, tuple):
        _, arguments, state, *_ = (*reduced, None)
        for part in state if isinstance(state, tuple) else (state,):
            yield from ((f".{name}", item) for name, item in part.items()) if isinstance(part, dict) else [("", part)]
        # Such as the function of functools.partial or collections.defaultdict.
        yield from (("", argument) for argument in arguments)
