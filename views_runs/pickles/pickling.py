"""Objects to streams of parts and back; the only module that pickles.

A pickle of less than `PART_SIZE` bytes is one part, and a longer one is cut into parts of at most that. A running SHA-256 gives each part the digest of all bytes up
to its end, so that the last part's digest is the whole pickle's, and a reader verifies each part before the
unpickler sees it.
"""

import hashlib
import pickle
import reprlib
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Union

from views_runs.exceptions import (
    CorruptModelError,
    ModelLoadError,
    ModelPickleError,
    StorageError,
    UntrustedModelError,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: Every Python that runs this package reads protocol 5, and it hands on large arrays without a copy.
PROTOCOL = 5

#: Bytes in a part, at most: with the row's other columns just under 1 MiB, and 64 pages of the file.
PART_SIZE = 63 * 16384

#: Bytes in the first part of a pickle that has several. It lies beside the metadata, and is written again with it.
FIRST_PART_SIZE = 4096

#: How many parts are verified together, and how many such groups are in memory: one is being unpickled while a
#: thread takes the digest of the next.
GROUP_PARTS = 8
GROUPS = 2

#: For how many seconds, and how deep, to look for what keeps an object from being pickled.
LOOK = 10.0
DEEPEST = 50

#: How keys are written in messages: they may have texts of any length, or fail.
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100


@dataclass(frozen=True)
class Part:
    """A piece of a pickle, and the SHA-256 of the pickle up to its end."""

    data: bytes | bytearray
    digest: bytes


@dataclass(frozen=True)
class StoredPart:
    """A part as it lies in the file: its digest, and how to read it into memory, which returns its size."""

    digest: Any
    read: Callable[[memoryview], int]


class Group:
    """Some parts of a pickle, read into one piece of memory.

    Args:
        number: of the first of them.
        memory: with room for `GROUP_PARTS`.
    """

    def __init__(self, number: int, memory: memoryview) -> None:
        self.number = number
        self.digests: list[Any] = []
        #: Where each part ends in the memory.
        self.ends: list[int] = []
        #: Whether the pickle ends here.
        self.is_last = False
        self._memory = memory

    @property
    def size(self) -> int:
        """In bytes."""
        return self.ends[-1] if self.ends else 0

    @property
    def view(self) -> memoryview:
        """The bytes of the parts."""
        return self._memory[: self.size]

    def add(self, part: StoredPart) -> None:
        """Read one more part."""
        start = self.size
        self.ends.append(start + part.read(self._memory[start : start + PART_SIZE]))
        self.digests.append(part.digest)


_State = tuple["hashlib._Hash", "hashlib._Hash"]


class PartWriter:
    """The file that a pickler writes to: it cuts what it gets into parts and hands them on.

    Args:
        sink: called with each part, in order.
    """

    def __init__(self, sink: Callable[[Part], None]) -> None:
        #: Bytes written so far.
        self.size = 0
        self._sink = sink
        self._hash = hashlib.sha256()
        self._buffer = bytearray(PART_SIZE)
        self._used = 0
        self._is_first = True

    @property
    def sha256(self) -> str:
        """The digest of all that was handed on, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        """Take bytes, or anything with a buffer, of any size, without keeping a reference to it."""
        view = pickle.PickleBuffer(data).raw()
        for start in range(0, len(view), PART_SIZE):
            self._fill(view[start : start + PART_SIZE])
        self.size += len(view)
        return len(view)

    def close(self) -> None:
        """Hand on what is left."""
        if self._used:
            del self._buffer[self._used :]
            self._hand_on()

    def _fill(self, view: memoryview) -> None:
        room = PART_SIZE - self._used
        head, tail = view[:room], view[room:]
        self._buffer[self._used : self._used + len(head)] = head
        self._used += len(head)
        if self._used == PART_SIZE:
            self._hand_on()
            self._buffer[: len(tail)] = tail
            self._used = len(tail)

    def _hand_on(self) -> None:
        data, self._buffer, self._used = self._buffer, bytearray(PART_SIZE), 0
        if self._is_first and len(data) == PART_SIZE:
            self._hand_on_part(data[:FIRST_PART_SIZE])
            del data[:FIRST_PART_SIZE]
        self._hand_on_part(data)

    def _hand_on_part(self, data: bytearray) -> None:
        self._is_first = False
        self._hash.update(data)
        self._sink(Part(data, self._hash.digest()))


class PartReader:
    """The file that an unpickler reads from, over the verified bytes of a pickle.

    Since protocol 4 an unpickler asks for whole frames and whole arrays. An `io.BufferedReader` in between, which would
    serve the single bytes that it asks for in older ones, costs a tenth of the time.
    """

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as there are bytes; return how many there were."""
        view, done = memoryview(buffer), 0
        while done < len(view) and self._more():
            count = min(len(view) - done, len(self._rest))
            view[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count
        return done

    def read(self, size: int) -> bytes:
        """Return so many bytes, or all that are left."""
        if size <= len(self._rest):
            piece, self._rest = self._rest[:size], self._rest[size:]
            return bytes(piece)
        buffer = bytearray(size)
        count = self.readinto(buffer)
        return bytes(memoryview(buffer)[:count])

    def readline(self) -> bytes:
        """Return the bytes up to the end of a line, and with it."""
        line = bytearray()
        while not line.endswith(b"\n") and self._more():
            line += self.read(1)
        return bytes(line)

    def _more(self) -> bool:
        if not self._rest:
            self._rest = next(self._pieces, memoryview(b""))
        return bool(self._rest)


def dump(model: Any, sink: Callable[[Part], None], doing: str) -> PartWriter:
    """Pickle an object into parts.

    Args:
        model: any object that can be pickled.
        sink: called with each part, in order.
        doing: what for, as in ``store 'my-model'``; for messages.

    Returns:
        The writer, which knows the size and the digest of the whole.

    Raises:
        ModelPickleError: the object cannot be pickled; the sink may have got some parts.
    """
    writer = PartWriter(sink)
    try:
        pickle.Pickler(writer, PROTOCOL).dump(model)
    except StorageError:
        raise
    except Exception as error:
        # Of what is nested too deep no single part is to blame.
        place, culprit = ("", model) if isinstance(error, RecursionError) else culprit_of(model)
        whose = f" because of {place}, a {type_name(culprit)}" if place else ""
        raise ModelPickleError(
            f"cannot {doing}: a {type_name(model)} cannot be pickled{whose}: {type(error).__name__}: {error}. Remove what "
            "cannot be pickled (a lambda, an open file, a lock, a database connection) and store it again; "
            "nothing was stored"
        ) from error
    writer.close()
    return writer


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


def culprit_of(model: Any) -> tuple[str, Any]:
    """Return which part of an object keeps it from being pickled, and where it is, as Python would write it.

    >>> culprit_of({"name": "forest", "steps": [1, lambda x: x]})[0]
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


def load(
    pieces: Iterator[memoryview],
    doing: str,
    advice: Callable[[], str],
    allowed: Collection[tuple[str, str]] | None = None,
) -> Any:
    """Unpickle an object from the verified bytes of its pickle.

    Args:
        pieces: the bytes, in order.
        doing: what for, as in ``fetch 'my-model' from models.db``; for messages.
        advice: returns what to do when it fails.
        allowed: the (module, name) that may be asked for, as the unpickler asks; None for any.

    Raises:
        ModelLoadError: unpickling failed, for instance because a module is missing.
        UntrustedModelError: something else was asked for.
        StorageError: what reading the pieces raises.
    """
    reader = PartReader(pieces)
    unpickler = pickle.Unpickler(reader) if allowed is None else _ListedUnpickler(reader, allowed)
    try:
        return unpickler.load()
    except StorageError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"cannot {doing}: its bytes are whole, but unpickling them failed: {type(error).__name__}: {error}. {advice()}"
        ) from error


class _ListedUnpickler(pickle.Unpickler):
    """Imports what is on a list alone."""

    def __init__(self, file: PartReader, allowed: Collection[tuple[str, str]]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise UntrustedModelError(f"cannot load a pickle: it asks for {module}.{name}, which is not on the list")
        return super().find_class(module, name)


def verified(parts: Iterator[StoredPart], size: int, sha256: str, name: str) -> Generator[memoryview, None, None]:
    """Yield the bytes of a pickle, none of them before the digest of its part was found right.

    A thread takes the digests of one group of parts, which needs no interpreter, while the unpickler works with the
    group before. To read them from the file there too was slower: the two threads waited for each other.

    Args:
        parts: in order, at least to the pickle's end.
        size: of the whole pickle, in bytes.
        sha256: of the whole pickle, in hexadecimal.
        name: of the model, with its file; for messages.

    Yields:
        Memory that is used again: it holds these bytes until the next ones are asked for.

    Raises:
        CorruptModelError: a part is not as it was stored.
    """
    running = hashlib.sha256()
    with _thread() as thread:
        under_way: deque[tuple[Group, "Future[_State]"]] = deque()
        for group in _groups(parts, size, name):
            under_way.append((group, thread.submit(_take_in, running, group)))
            if len(under_way) == GROUPS:
                yield from _sound(*under_way.popleft(), sha256, name)
        while under_way:
            yield from _sound(*under_way.popleft(), sha256, name)


def _thread() -> "Union[ThreadPoolExecutor, _AtOnce]":
    """Return a thread to hand work to; when the interpreter shuts down there are none, and the work is done at once."""
    try:
        from concurrent.futures import ThreadPoolExecutor

        thread = ThreadPoolExecutor(1, "views_runs-digest")
        thread.submit(int)
        return thread
    except RuntimeError:
        return _AtOnce()


class _AtOnce:
    """Does what it is handed at once, and has the interface of the executor that `verified` uses."""

    def __enter__(self) -> "_AtOnce":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function; return what its result can be asked of."""
        done = function(*arguments)
        return SimpleNamespace(result=lambda: done)


def verified_whole(data: Any, size: int, sha256: str, name: str) -> bytes:
    """Return the bytes of a pickle of one part, after its digest was found right.

    Raises:
        CorruptModelError: it is not as it was stored.
    """
    if not isinstance(data, bytes) or len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise corrupt(name, "its pickle is not what was stored")
    return data


def _groups(parts: Iterator[StoredPart], size: int, name: str) -> Iterator[Group]:
    """Read the parts of a pickle, some at a time, to its end and no further."""
    buffers = cycle([memoryview(bytearray(GROUP_PARTS * PART_SIZE)) for _ in range(GROUPS)])
    number = done = 0
    if not isinstance(size, int) or size <= 0:
        raise corrupt(name, f"its size is {size!r}")
    while done < size:
        group = Group(number, next(buffers))
        for part in islice(parts, GROUP_PARTS):
            group.add(part)
            if done + group.size >= size:
                break
        done += group.size
        number += len(group.digests)
        if not group.digests or done > size:
            raise corrupt(name, f"its pickle has {done:,} bytes, not {size:,}")
        group.is_last = done == size
        yield group


def _take_in(running: "hashlib._Hash", group: Group) -> _State:
    """Take a group into the running digest; return the digest before it, and after it."""
    before = running.copy()
    running.update(group.view)
    return before, running.copy()


def _sound(group: Group, taken_in: "Future[_State]", sha256: str, name: str) -> Iterator[memoryview]:
    """Yield the bytes of a group up to the first part that is damaged."""
    before, after = taken_in.result()
    if after.digest() == group.digests[-1]:
        if group.is_last and after.hexdigest() != sha256:
            raise corrupt(name, "the digest of the whole is not that of its last part")
        yield group.view
        return
    start = 0
    for number, (end, digest) in enumerate(zip(group.ends, group.digests), group.number):
        before.update(group.view[start:end])
        if before.digest() != digest:
            raise corrupt(name, f"part {number} of its pickle is not what was stored")
        yield group.view[start:end]
        start = end


def corrupt(name: str, trouble: str) -> CorruptModelError:
    """Return the error for a model whose bytes are damaged."""
    return CorruptModelError(
        f"{name} is damaged: {trouble}, and nothing from there on was read. Store the model again, or restore "
        "the file from a copy"
    )


def type_name(value: object) -> str:
    """Return the name of the object's type, with its module.

    >>> type_name(1.0)
    'builtins.float'
    """
    return f"{type(value).__module__}.{type(value).__qualname__}"
