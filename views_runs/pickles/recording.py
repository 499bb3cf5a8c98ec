"""Pickle an object, and record what the pickle imports meanwhile; reading this from the bytes takes much longer."""

import copyreg
import pickle
from types import EllipsisType, FunctionType, NoneType, NotImplementedType
from typing import Any

from views_runs.pickles.opcodes import NAME_BYTES, Import, Reading, Trouble, TroubleKind

_MISSING: Any = object()

#: Types that are pickled as a call of `type`, and not by their names.
_UNNAMED = frozenset({NoneType, EllipsisType, NotImplementedType})


class RecordingPickler(pickle.Pickler):
    """A pickler that records what it writes as an import.

    It asks for reductions as `_pickle.c` does, in the same order, because those that are strings are imports too: for
    example, of numpy's ufuncs and of Cython's functions. What may be loaded is never decided from this record.

    Args:
        file: has a method `write`.
        protocol: 4 or higher.
    """

    def __init__(self, file: Any, protocol: int) -> None:
        super().__init__(file, protocol)
        self._protocol = protocol
        self._imports: set[Import] = set()
        self._troubles: set[Trouble] = set()

    def reducer_override(self, value: Any) -> Any:
        """Record a class or a function; for anything else, return the reduction. Called for all but plain data."""
        kind = type(value)
        if kind is FunctionType or kind is type:
            return NotImplemented if value in _UNNAMED else self._record(value)
        reduce = copyreg.dispatch_table.get(kind)
        if reduce is not None:
            reduced = reduce(value)
        elif issubclass(kind, type):
            return self._record(value)
        elif (reduce := getattr(value, "__reduce_ex__", _MISSING)) is _MISSING:
            # Its class hides the method.
            reduced = value.__reduce__()
        else:
            reduced = reduce(self._protocol)
        return self._record(value, reduced) if isinstance(reduced, str) else reduced

    def reading(self, size: int) -> Reading:
        """Return the record of a pickle of this many bytes."""
        found, troubles = frozenset(self._imports), tuple(sorted(self._troubles))
        return Reading(found, found, troubles, self._protocol, size, is_whole=True)

    def _record(self, value: Any, name: Any = None) -> Any:
        """Record an import, and return its name for the pickler, which would ask for it again."""
        name = getattr(value, "__qualname__", None) if name is None else name
        name = getattr(value, "__name__", None) if name is None else name
        if not isinstance(name, str):
            return NotImplemented
        # An instance of a subclass would be pickled as an object, which cannot be loaded as a name.
        name, module = str.__str__(name), pickle.whichmodule(value, name)  # type: ignore[attr-defined]
        if code := copyreg._extension_registry.get((module, name)):  # type: ignore[attr-defined]
            self._troubles.add(Trouble(f"{TroubleKind.EXTENSION.value} {code}"))
        elif _is_short(module) and _is_short(name):
            self._imports.add(Import(module, name))
        else:
            self._troubles.add(Trouble(TroubleKind.COMPUTED_NAME.value))
        return name


def _is_short(text: Any) -> bool:
    """Return whether a reader of the bytes would find the text, and keep it."""
    return type(text) is str and len(text.encode("utf-8", "surrogatepass")) <= NAME_BYTES
