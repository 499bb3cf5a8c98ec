"""Objects to streams of parts and back; the only module that pickles.

A pickle is cut into parts of `PART_SIZE` bytes. A running SHA-256 gives each part the digest of all bytes up
to its end, so that the last part's digest is the whole pickle's, and a reader verifies each part before the
unpickler sees it.
"""

import hashlib
import io
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from views_runs.exceptions import CorruptModelError, ModelLoadError, ModelPickleError, StorageError

T = TypeVar("T")

#: Every Python that runs this package reads protocol 5, and it hands on large arrays without a copy.
PROTOCOL = 5

#: Bytes in each part but the last: with the row's other columns just under 1 MiB, and 64 pages of the file.
PART_SIZE = 63 * 16384

#: How many parts are read ahead of the unpickler.
READ_AHEAD = 4


@dataclass(frozen=True)
class Part:
    """A piece of a pickle, and the SHA-256 of the pickle up to its end."""

    data: bytes | bytearray
    digest: bytes


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
        part, self._buffer, self._used = self._buffer, bytearray(PART_SIZE), 0
        self._hash.update(part)
        self._sink(Part(part, self._hash.digest()))


class PartReader(io.RawIOBase):
    """The file that an unpickler reads from, over the verified parts of a pickle."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._parts, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


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
        raise ModelPickleError(
            f"cannot {doing}: a {type_name(model)} cannot be pickled: {type(error).__name__}: {error}. Remove what "
            "cannot be pickled (a lambda, an open file, a lock, a database connection) and store it again; "
            "nothing was stored"
        ) from error
    writer.close()
    return writer


def load(parts: Iterator[bytes], doing: str) -> Any:
    """Unpickle an object from the verified parts of its pickle.

    Args:
        parts: the bytes, in order.
        doing: what for, as in ``fetch 'my-model' from models.db``; for messages.

    Raises:
        ModelLoadError: unpickling failed, for instance because a module is missing.
        StorageError: what reading the parts raises.
    """
    try:
        return pickle.Unpickler(io.BufferedReader(PartReader(parts), PART_SIZE)).load()
    except StorageError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"cannot {doing}: its bytes are whole, but unpickling them failed: {type(error).__name__}: {error}. "
            "Install what the model needs, in the versions that stored it (`viewser model inspect` shows its "
            "type and its Python), and fetch it again"
        ) from error


def verified(parts: Iterable[tuple[Any, Any]], size: int, sha256: str, name: str) -> Iterator[bytes]:
    """Yield the bytes of each part of a pickle, each after its digest was found right.

    Args:
        parts: (data, digest) of each part, in order, as they were read; at least to the pickle's end.
        size: of the whole pickle, in bytes.
        sha256: of the whole pickle, in hexadecimal.
        name: of the model, with its file; for messages.

    Raises:
        CorruptModelError: a part is not as it was stored.
    """
    running = hashlib.sha256()
    done = 0
    for number, (data, digest) in enumerate(parts):
        if isinstance(data, bytes):
            running.update(data)
            done += len(data)
        if not isinstance(data, bytes) or running.digest() != digest or done > size:
            raise corrupt(name, f"part {number} of its pickle is not what was stored")
        if done == size and running.hexdigest() != sha256:
            raise corrupt(name, "the digest of the whole is not that of its last part")
        yield data
        if done == size:
            return
    raise corrupt(name, f"its pickle ends after {done:,} of {size:,} bytes")


def corrupt(name: str, trouble: str) -> CorruptModelError:
    """Return the error for a model whose bytes are damaged."""
    return CorruptModelError(
        f"{name} is damaged: {trouble}, and nothing from there on was read. Store the model again, or restore "
        "the file from a copy"
    )


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items in order while a thread fetches the next `READ_AHEAD` of them.

    Reading and hashing release the interpreter's lock, so they go on while the unpickler works.

    >>> list(read_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    from concurrent.futures import ThreadPoolExecutor

    end: Any = object()
    with ThreadPoolExecutor(1, "views_runs-read-ahead") as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(READ_AHEAD))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item


def type_name(value: object) -> str:
    """Return the name of the object's type, with its module.

    >>> type_name(1.0)
    'builtins.float'
    """
    return f"{type(value).__module__}.{type(value).__qualname__}"
