"""Find the part of an object that prevents it from being pickled."""

import pickle
import reprlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from views_runs import signals

#: The maximum duration of the search, in seconds.
LOOK = 10.0

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
    place, path = "", [model]
    while found := _find_failing_part(path, deadline):
        if time.monotonic() > deadline:
            return "", model
        place += found[0]
        path.append(found[1])
    return place, path[-1]


def _find_failing_part(path: list[Any], deadline: float) -> tuple[str, Any] | None:
    """Return the first part of the last object that cannot be pickled, or not until the deadline, and its location."""

    def write(data: Any) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    # Objects may run arbitrary code when they are pickled or inspected.
    with signals.ignoring_failures():
        for step, part in _list_parts(path[-1]):
            # An instance is named rather than its class.
            if type(part) in _LEAVES or part is type(path[-1]):
                continue
            pickler = pickle.Pickler(SimpleNamespace(write=write), pickle.HIGHEST_PROTOCOL)
            # A part that refers to the objects around it does not fail because of them: they count as pickled.
            pickler.memo = {id(value): (number, value) for number, value in enumerate(path)}
            try:
                pickler.dump(part)
            except Exception as error:
                signals.let_through(error)
                return step, part
    return None


def _list_parts(value: Any) -> Iterator[tuple[str, Any]]:
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
