"""Pickle objects to a series of parts, and turn verified parts back into the bytes of a pickle.

A pickle of less than `PART_SIZE` bytes has one part; a longer one is split into parts of at most that size. Each part
has the SHA-256 digest of all bytes up to its end, so that the last part's digest is that of the whole pickle, and a
reader can verify each part before the unpickler sees it.
"""

import hashlib
import io
import json
import logging
import os
import pickle
import platform
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import takewhile
from operator import attrgetter
from types import TracebackType
from typing import Any, NamedTuple

from views_runs import signals
from views_runs.beside import Beside
from views_runs.exceptions import CorruptModelError, ModelPickleError, StorageError
from views_runs.pickles import culprit, opcodes, packages, recording

log = logging.getLogger("views_runs")

#: All Python versions that can run this package support protocol 5, which passes on large arrays without copying them.
PROTOCOL = 5

#: The maximum size of a part in bytes: including the row's other columns, just under 1 MiB, or 64 pages of the file.
PART_SIZE = 63 * 16384

#: Bytes in the first part of a pickle of several parts. It is in the same row as the metadata, and rewritten with it.
FIRST_PART_SIZE = 4096

#: Bytes of memory for the beginning of a pickle; for a longer one, they are extended to a whole part.
SMALL_PICKLE = 65536

#: The maximum number of parts that wait to be stored: as many as are written in one transaction (`uploads.MOST_PARTS`),
#: so that pickling goes on during its commit. With 3, storing took a third longer.
PARTS_BEHIND = 8

#: The number of parts that are read before they are needed, while a thread verifies them. With 2 or 8, fetching took as
#: long.
PARTS_AHEAD = 4

#: The folder of this package.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Part(NamedTuple):
    """A part of a pickle, and the SHA-256 digest of the pickle up to the end of the part."""

    data: bytes | bytearray
    digest: bytes


class Pickled(NamedTuple):
    """The properties of a pickle that was written, for the columns of its row."""

    #: The size of the whole pickle, in bytes.
    size: int
    #: The digest of the whole pickle, in hexadecimal.
    sha256: str
    #: The part that is stored in the row.
    first: Part
    #: How it was made and what it needs, as a JSON object.
    environment: str


class PickleWriter:
    """A file-like object to write a pickle to: splits the bytes into parts, hashes them, and records their imports.

    Used as a context manager, it passes on all parts but the first in a thread: writing to a file takes as long as
    pickling arrays and hashing together. Hashing there too took a third longer.

    Args:
        sink: called with each part after the first, in order.
        reader: determines the imports from the bytes written; None to record nothing.

    >>> parts = []
    >>> writer = PickleWriter(parts.append)
    >>> writer.dump(b"x" * 2_000_000)
    >>> pickled = writer.finish()
    >>> len(pickled.first.data), [len(part.data) for part in parts], pickled.size
    (4096, [1028096, 967817], 2000009)
    """

    def __init__(self, sink: Callable[[Part], None], reader: opcodes.Reader | None = None) -> None:
        #: Bytes written so far.
        self.size = 0
        self._reading: opcodes.Reading | None = None
        self.reader = reader
        self._sink = sink
        self._beside: Beside[Part, None] | None = None
        #: Whether no part was passed on yet.
        self._is_alone = True
        self._hash = hashlib.sha256()
        # Most pickles are small: zeroing a whole part would be a sixth of the time that storing 10 kB takes.
        self._buffer = bytearray(SMALL_PICKLE)
        self._used = 0
        self._first: Part | None = None
        self._made_here: dict[str, Any] = {}
        #: What to warn of once the model is stored: a warning can be an error.
        self.warnings: list[str] = []

    def write(self, data: Any) -> int:
        """Write bytes, or any object with a buffer, of any size; no reference to it is kept."""
        view = pickle.PickleBuffer(data).raw()
        if self.reader is not None:
            self.reader.feed(view)
        start = 0
        if self._used + len(view) > len(self._buffer) < PART_SIZE:
            self._buffer.extend(bytes(PART_SIZE - len(self._buffer)))
        while start < len(view):
            piece = view[start : start + len(self._buffer) - self._used]
            self._buffer[self._used : self._used + len(piece)] = piece
            self._used += len(piece)
            start += len(piece)
            if self._used == PART_SIZE:
                full, self._buffer, self._used = self._buffer, bytearray(PART_SIZE), 0
                self._pass_on(full)
        self.size += len(view)
        return len(view)

    def _pass_on(self, data: bytearray) -> None:
        """Pass on the data of a buffer as one part, or as two parts if it is the first buffer of several."""
        if self._first is None:
            first = data[: FIRST_PART_SIZE if len(data) == PART_SIZE else PART_SIZE]
            self._hash.update(first)
            self._first = Part(first, self._hash.digest())
            del data[: len(first)]
        if not data:
            return
        self._hash.update(data)
        part = Part(data, self._hash.digest())
        if self._beside is None or self._is_alone:
            # The first is passed on at once, so that a file that cannot be opened is reported before more is pickled.
            self._is_alone = False
            self._sink(part)
        else:
            self._beside.put(part)

    def dump(self, model: Any) -> None:
        """Pickle an object; if that fails, the sink may have received some parts."""
        pickler = recording.RecordingPickler(self, PROTOCOL)
        reader, self.reader = self.reader, None
        try:
            pickler.dump(model)
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            signals.let_through(error)
            raise _explain_failure(model, error) from error
        finally:
            self.reader = reader
        self._reading = pickler.reading(self.size)
        self._made_here = {
            "type": type_name(model),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "platform": f"{sys.platform}-{platform.machine()}",
        }

    def finish(self) -> Pickled:
        """Pass on the remaining bytes, and return the properties of the whole pickle."""
        if self._used or self._first is None:
            del self._buffer[self._used :]
            self._pass_on(self._buffer)
        if self._beside is not None:
            self._beside.finish()
        assert self._first is not None
        return Pickled(self.size, self._hash.hexdigest(), self._first, json.dumps(self._describe()))

    def __enter__(self) -> "PickleWriter":
        self._beside = Beside(self._sink, PARTS_BEHIND, "writer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beside is not None:
            self._beside.end()

    def _describe(self) -> dict[str, Any]:
        """Return the environment to record; of a copied pickle's libraries, only what they wrote into it is known."""
        if self.reader is None:
            return {}
        reading = self._reading or self.reader.result()
        environment = {"protocol": reading.protocol or 0, **opcodes.imported(reading)}
        modules = {*map(attrgetter("module"), reading.imports)}
        if modules & packages.MAIN:
            self._warn_of_main(sorted(found.name for found in reading.imports if found.module in packages.MAIN))
        if not self._made_here:
            return {**environment, "packages": dict(reading.versions)}
        suppliers = packages.suppliers(modules)
        made = {"packages": packages.versions(suppliers.values()), "suppliers": suppliers}
        if files := packages.own_files(modules - packages.MAIN):
            made["files"] = files
            needed = " and ".join(f"{module} ({file})" for module, file in files.items())
            self.warnings.append(
                f"the model needs {needed}, which no installed package provides: it loads only where this module can "
                "be imported. On other machines, install the module as a package, or add its folder to sys.path"
            )
        return {**self._made_here, **environment, **made}

    def _warn_of_main(self, names: list[str]) -> None:
        needed = ", ".join(names)
        if not self._made_here:
            log.warning("the pickle needs %s from __main__: only scripts that define the same can fetch it", needed)
            return
        self.warnings.append(
            f"the model needs {needed}, defined in the running script: only scripts that define the same can fetch it. "
            "Move the definition to an importable module, and store the model again"
        )


def warn_caller(text: str) -> None:
    """Warn at the line that called this package."""
    frames = traceback.walk_stack(sys._getframe(1))
    own = sum(1 for _ in takewhile(lambda one: one[0].f_code.co_filename.startswith(PACKAGE), frames))
    warnings.warn(text, stacklevel=own + 2)


def _explain_failure(model: Any, error: Exception) -> ModelPickleError:
    """Return the error that names the part of an object that cannot be pickled."""
    # If the object is nested too deeply, no single part is to blame.
    place, value = ("", model) if isinstance(error, RecursionError) else culprit.find_culprit(model)
    whose = f" because of {place}, a {type_name(value)}" if place else ""
    # From Python 3.14, the pickler itself adds notes on where it failed.
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return ModelPickleError(
        f"a {type_name(model)} cannot be pickled{whose}: {type(error).__name__}: {error}{notes}",
        "Remove what cannot be pickled (such as a lambda, an open file, a lock or a database connection) and store the "
        "model again; nothing was stored",
    )


class PickleReader:
    """A file-like object from which an unpickler reads the verified bytes of a pickle.

    An `io.BufferedReader` around it, for the single bytes read in older protocols, would cost a tenth of the time.
    """

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def _take(self, most: int) -> memoryview:
        """Return the next bytes, at most so many; none at the end of the pickle."""
        self._rest = self._rest or next(self._pieces, self._rest)
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as possible, and return the number of bytes read."""
        view, done = memoryview(buffer), 0
        while done < len(view) and (piece := self._take(len(view) - done)):
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def read(self, size: int) -> bytes:
        """Return this many bytes, or fewer at the end of the pickle."""
        if size <= len(self._rest):
            piece, self._rest = self._rest[:size], self._rest[size:]
            return bytes(piece)
        # It grows with what is there: a pickle can declare any length, and `bytearray(size)` would fill so much memory.
        buffer, left = io.BytesIO(), size
        while left and (piece := self._take(left)):
            left -= buffer.write(piece)
        return buffer.getvalue()

    def readline(self) -> bytes:
        """Return the bytes up to and including the next newline."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)


class StoredPart(NamedTuple):
    """A stored part: its digest, and a function that reads its bytes."""

    digest: Any
    read: Callable[[], bytes]


def verified(
    parts: Iterable[StoredPart],
    size: int,
    sha256: str,
    explain: Callable[[StorageError], StorageError] = lambda error: error,
) -> Generator[memoryview, None, None]:
    """Yield the bytes of a pickle, part by part, each after verifying it against its digest.

    A thread computes the digests, without holding the GIL, while the unpickler processes the parts before. Reading from
    the file in that thread too was slower: it needs the GIL several times for each part, and each time it waits for the
    unpickler.

    Args:
        parts: the parts in order, at least up to the end of the pickle.
        size, sha256: the size of the whole pickle in bytes, and its digest in hexadecimal.
        explain: returns the error to raise when a part is damaged, or cannot be read.
    """
    running, done = hashlib.sha256(), 0
    thread: Beside[tuple[bytes, Any], bool] = Beside(partial(_matches, running), PARTS_AHEAD, "digest")
    waiting: deque[tuple[int, bytes]] = deque()
    try:
        if not isinstance(size, int) or size <= 0:
            raise damaged(f"its size is {size!r}")
        for number, part in enumerate(parts):
            if not (data := part.read()):
                raise damaged(f"part {number} of its pickle is empty")
            done += len(data)
            thread.put((data, part.digest))
            waiting.append((number, data))
            if len(waiting) > PARTS_AHEAD:
                yield _check(*waiting.popleft(), thread.result())
            if done >= size:
                break
        while len(waiting) > 1:
            yield _check(*waiting.popleft(), thread.result())
        last = _check(*waiting.popleft(), thread.result()) if waiting else memoryview(b"")
        if done != size:
            raise damaged(f"its pickle has {done:,} bytes, not {size:,}")
        if running.hexdigest() != sha256:
            raise damaged("the digest of the whole pickle does not match that of its last part")
        yield last
    except StorageError as error:
        explained = explain(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        thread.end()


def _matches(running: "hashlib._Hash", part: tuple[bytes, Any]) -> bool:
    """Add a part to a running digest, and return whether that is now the digest of the part."""
    data, digest = part
    running.update(data)
    return bool(running.digest() == digest)


def _check(number: int, data: bytes, is_intact: bool) -> memoryview:
    if not is_intact:
        raise damaged(f"part {number} of its pickle does not match its digest")
    return memoryview(data)


def verified_whole(data: Any, size: int, sha256: str) -> bytes:
    """Verify a pickle of one part, and return its bytes."""
    if not isinstance(data, bytes) or len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise damaged("its pickle does not match its digest")
    return data


def damaged(trouble: str) -> CorruptModelError:
    """Return the error for a model whose bytes are damaged."""
    return CorruptModelError(
        f"the model is damaged: {trouble}; nothing after the damage was read",
        "Store the model again, or restore the file from a backup",
    )


def type_name(value: object) -> str:
    """Return the name of the object's type, with its module.

    >>> type_name(1.0)
    'builtins.float'
    """
    return f"{type(value).__module__}.{type(value).__qualname__}"
