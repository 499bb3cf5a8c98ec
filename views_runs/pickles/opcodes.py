"""What a pickle would import, read from its bytes, without unpickling any of it.

A `Reader` follows the opcodes as the unpickler does, but keeps next to nothing: of the stack, which items are marks
and which are strings that may be names; of the memo, such strings. It never runs anything and never fails. What it
cannot tell, it says in `Reading.troubles`; a pickle without troubles imports what `Reading.imports` says and nothing
else, as far as the opcodes go. What the imported functions do when they are called, no reader can tell.

It holds to what CPython's `_pickle.c` does, and is stricter in two things: an opcode that goes over the end of its
frame is a trouble, since the unpickler reads that differently from a file and from memory; and so is a frame that
begins inside another. It does not look at values: a number or a text that the unpickler would choke on passes here,
and so does a call with the wrong arguments.
"""

import codecs
import re
import struct
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

#: Strings of more bytes cannot be part of a name here.
NAME_BYTES = 500

#: More different imports than an honest pickle has; beyond them the reading stops, so that they do not fill the memory.
MAX_IMPORTS = 4096

#: How many different troubles of one pickle are told.
MAX_TROUBLES = 20

#: Decimal digits of an index in the memo, with what may stand around them.
INDEX_BYTES = 40

#: Strings in the memo that may be names; when there are more, those that came last and those that were names are kept.
MAX_NAMES = 20_000

#: Entries in the memo that are out of order; honest pickles number them one by one.
MAX_OUT_OF_ORDER = 65536

#: Bytes that are copied to be read together.
CHUNK = 2**16

_FOREVER = 2**70
_HIGHEST_PROTOCOL = 5

#: What lies on the stack. Three bottoms lie under everything, so that the last items can be looked at in any case.
_OTHER, _STRING, _MARK, _BOTTOM = range(4)


class Import(NamedTuple):
    """Something that a pickle names: a module, and a name in it, which may have dots.

    >>> str(Import("collections", "OrderedDict")), str(Import("shapes", "Circle.Style"))
    ('collections.OrderedDict', 'shapes:Circle.Style')
    """

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Import":
        """Return what a text says: of ``a.b.c`` the module is ``a.b``; of ``a:b.c`` it is ``a``.

        >>> Import.parse("shapes:Circle.Style")
        Import(module='shapes', name='Circle.Style')
        """
        module, _, name = text.rpartition(":" if ":" in text else ".")
        return cls(module, name)

    def __str__(self) -> str:
        """Return both with a dot in between, or a colon if the name has dots; what cannot be printed is escaped.

        So are colons in them, and backslashes: no two imports have the same text.
        """
        module, name = map(_escaped, self)
        return f"{module}{':' if '.' in name else '.'}{name}"


def _escaped(text: str) -> str:
    if text.isprintable() and not {":", "\\"} & set(text):
        return text
    return text.encode("unicode_escape").decode("ascii").replace(":", "\\x3a")


class TroubleKind(Enum):
    """What a trouble is."""

    REST = auto()
    BROKEN = auto()
    DAMAGED = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Trouble:
    """Something in a pickle that could not be followed."""

    kind: TroubleKind
    text: str

    @classmethod
    def parse(cls, text: str) -> "Trouble":
        """Return the trouble that a recorded text is of."""
        starts = {"data after the end": "REST", "broken": "BROKEN", "damaged": "DAMAGED"}
        return cls(TroubleKind[next((kind for start, kind in starts.items() if text.startswith(start)), "OTHER")], text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Reading:
    """What a pickle's bytes say.

    Args:
        imports: what it imports, under the names of Python 3.
        asked: the same as the unpickler's `find_class` is asked for it: up to protocol 2 these may be names of
            Python 2, such as ``__builtin__.set``, which it maps by itself.
        troubles: what could not be told, in words; if there are none, the imports are all there are.
        protocol: the highest that it declares; None if it declares none, as up to protocol 1.
        size: in bytes.
        is_whole: whether it ends where its bytes end, and could be followed to there.

    The troubles are these, and each says at which byte it was first seen:

    - ``a name that is computed at load time``: a STACK_GLOBAL of something else than two strings that are known here;
    - ``extension code N``: a number that stands for whatever the process registered for it (`copyreg`);
    - ``a persistent id``, ``a buffer that is kept elsewhere``: something that is not in the pickle;
    - ``data after the end``;
    - ``broken after byte N: why``: the unpickler fails there as well;
    - ``not followed after byte N: why``: the unpickler may go on, the reader does not.
    """

    imports: frozenset[Import]
    asked: frozenset[Import]
    troubles: tuple[Trouble, ...]
    protocol: int | None
    size: int
    is_whole: bool

    @property
    def is_complete(self) -> bool:
        """Whether the imports are all there are."""
        return not self.troubles

    @property
    def modules(self) -> frozenset[str]:
        """The names of the modules."""
        return frozenset(module for module, _ in self.imports)

    @property
    def has_code(self) -> bool:
        """Whether it holds code by value, as cloudpickle and dill write it: it fits one version of Python only."""
        return any(_makes_code(found) for found in self.imports)


#: How cloudpickle and dill make functions again; ``_builtin_type`` is how cloudpickle names the type of code objects.
_CODE_MAKERS = {"_make_function", "_make_skel_func", "_builtin_type", "_create_function", "_create_code"}


def _makes_code(found: Import) -> bool:
    if found.module == "types":
        return found.name in ("CodeType", "FunctionType")
    if found.module == "marshal":
        return found.name in ("load", "loads")
    return found.module.split(".")[-1] in ("cloudpickle", "cloudpickle_fast", "_dill") and found.name in _CODE_MAKERS


#: How the compressed files of joblib begin, and those of its old versions; no pickle does.
_COMPRESSED = {
    b"\x78": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
    b"ZF": "zlib",
}


def compression(start: bytes) -> str | None:
    """Return how a file is compressed, as joblib does it, by its first bytes; None if it is not.

    >>> compression(bytes.fromhex("1f8b08")), compression(b"\\x80\\x05")
    ('gzip', None)
    """
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


def is_joblib(reading: Reading) -> bool:
    """Tell whether joblib wrote it, and arrays between the opcodes with it, where no unpickler expects them."""
    return any(
        found.module.startswith("joblib.numpy_pickle") and found.name in ("NumpyArrayWrapper", "NDArrayWrapper")
        for found in reading.imports
    )


def read(pieces: Iterable[Any]) -> Reading:
    """Return what the bytes of a pickle say.

    Args:
        pieces: of the pickle, in order: bytes, or memory that may be used again when the next piece is asked for.

    >>> reading = read([b"cos\\nsystem\\n(S'ls'\\ntR."])
    >>> [str(found) for found in reading.imports], reading.troubles
    (['os.system'], ())
    """
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    return reader.result()


class _Incomplete(Exception):
    """An opcode goes on in the next bytes."""


class _Over(Exception):
    """The unpickler can go no further, for the reason that it is raised with."""

    outcome = "broken"


class _Lost(_Over):
    """The unpickler may go on here, but the reader does not."""

    outcome = "not followed"


class _Memo:
    """What the unpickler remembers by number: which numbers there are, and what may be a name among it."""

    def __init__(self) -> None:
        #: All numbers below this one are there, and these ones.
        self.dense = 0
        self.others: set[int] = set()
        self.names: dict[int, bytes] = {}
        #: What was used as a name is not forgotten.
        self.used: set[bytes] = set()

    def __len__(self) -> int:
        return self.dense + len(self.others)

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.dense or index in self.others

    def put(self, index: int, name: bytes | None) -> None:
        """Remember something, and what it is if it may be a name."""
        if index == self.dense:
            self.dense += 1
            while self.dense in self.others:
                self.others.remove(self.dense)
                self.dense += 1
        elif index > self.dense:
            if len(self.others) >= MAX_OUT_OF_ORDER:
                raise _Lost("its memo is in too great a disorder")
            self.others.add(index)
        if name is None:
            self.names.pop(index, None)
        else:
            self.names[index] = name

    def forget_some(self) -> None:
        """Keep what was used as a name before, and what came last."""
        if len(self.names) > MAX_NAMES:
            used = [item for item in self.names.items() if item[1] in self.used]
            last = list(self.names.items())[-MAX_NAMES // 4 :]
            self.names.clear()
            self.names.update(used[-MAX_NAMES // 4 :])
            self.names.update(last)


class Reader:
    """Reads a pickle that is handed to it piece by piece.

    >>> reader = Reader()
    >>> reader.feed(b"cbuiltins\\n")
    >>> reader.feed(b"set\\n.")
    >>> reader.result().imports
    frozenset({Import(module='builtins', name='set')})
    """

    def __init__(self) -> None:
        self._asked: set[Import] = set()
        self._imports: set[Import] = set()
        self._troubles: dict[str, str] = {}
        self._protocol = 0
        self._highest: int | None = None
        #: Bytes that were fed; the place of the first that was not read yet, and how far an opcode lies behind it.
        self._size = 0
        self._offset = 0
        self._at = 0
        #: Bytes to pass over, and whether to go on to the end of a line.
        self._skip = 0
        self._in_line = False
        #: The beginning of an opcode whose rest is in the next piece.
        self._rest = b""
        self._frame_end = _FOREVER
        self._is_over = False
        self._has_stopped = False
        self._is_broken = False
        #: The stack: one byte an item, and the strings among them, in order.
        self._kinds = bytearray([_BOTTOM] * 3)
        self._strings: list[bytes] = []
        self._memo = _Memo()

    def feed(self, piece: Any) -> None:
        """Read some more bytes; no reference to them is kept."""
        view = memoryview(piece).cast("B")
        self._size += len(view)
        at = 0
        while at < len(view) and not self._is_over:
            try:
                at = self._advance(view, at)
            except _Over as reason:
                self._break(str(reason), self._offset + self._at, reason.outcome)
        if self._has_stopped and self._size > self._offset:
            self._troubles["after"] = f"data after the end (byte {self._offset:,})"
            self._is_broken = True

    @property
    def is_broken(self) -> bool:
        """Whether it is known by now that this is no whole pickle."""
        return self._is_broken

    def result(self) -> Reading:
        """Return what was read; nothing may be fed after it."""
        if not self._is_over:
            self._break("it ends too early", self._size)
        elif self._has_stopped and self._size < self._frame_end < _FOREVER:
            self._break("its last frame is longer than what is left", self._size)
        return Reading(
            imports=frozenset(self._imports),
            asked=frozenset(self._asked),
            troubles=tuple(map(Trouble.parse, self._troubles.values())),
            protocol=self._highest,
            size=self._size,
            is_whole=self._has_stopped and not self._is_broken,
        )

    def _trouble(self, what: str, at: int) -> None:
        if len(self._troubles) < MAX_TROUBLES:
            self._troubles.setdefault(what, f"{what} (byte {at:,})")

    def _break(self, why: str, at: int, outcome: str = "broken") -> None:
        self._troubles[why] = f"{outcome} after byte {at:,}: {why}"
        self._is_over = self._is_broken = True

    def _advance(self, view: memoryview, at: int) -> int:
        """Read on from some place in a piece; return the place that was reached."""
        self._at = 0
        if self._offset >= self._frame_end:
            self._frame_end = _FOREVER
        if self._skip:
            count = min(self._skip, len(view) - at)
            self._skip -= count
            self._offset += count
            return at + count
        rest = len(self._rest)
        piece = bytes(view[at : at + min(CHUNK, self._frame_end - self._offset - rest)])
        if self._in_line:
            done = self._end_line(piece)
        else:
            piece = self._rest + piece
            done = self._follow(piece)
        self._offset += done
        self._rest = b"" if done else piece
        self._check_frame()
        return at + (done or len(piece)) - rest

    def _check_frame(self) -> None:
        """Refuse an opcode that is in the middle of something where its frame ends."""
        self._at = self._frame_end - self._offset
        reached = self._offset + self._skip + len(self._rest)
        if reached > self._frame_end or reached == self._frame_end and (self._in_line or self._rest):
            raise _Lost("an opcode goes over the end of its frame")

    def _end_line(self, piece: bytes) -> int:
        """Look for the end of a line; return how far to go."""
        found = piece.find(b"\n") + 1
        self._in_line = not found
        return found or len(piece)

    def _follow(self, data: bytes) -> int:
        """Do what the opcodes do; return how many bytes they are, up to one that is not whole, or a frame, or the end.

        Nearly all the time is spent here; so it is one function, and what is common comes first.
        """
        kinds, strings, memo = self._kinds, self._strings, self._memo
        names, others, dense = memo.names, memo.others, memo.dense
        push, pop, find_mark, four = kinds.append, kinds.pop, kinds.rfind, _FOUR.unpack_from
        self._forget_some()
        pos = start = 0
        end = len(data)
        try:
            while pos < end:
                start = pos
                op = data[pos]
                if width := _PUSHES[op]:
                    push(_OTHER)
                    pos += width
                elif op == _BINGET and (index := data[pos + 1]) < dense:
                    pos += 2
                    if index in names:
                        push(_STRING)
                        strings.append(names[index])
                    else:
                        push(_OTHER)
                elif op == _MEMOIZE and not others and kinds[-1] < _MARK:
                    if kinds[-1]:
                        names[dense] = strings[-1]
                    dense += 1
                    pos += 1
                elif op == _MARK_OP:
                    # What is put on the stack only to be put into the thing below at once can be passed over.
                    if dense > 255 and (group := _GROUP(data, pos)) and kinds[-1] < _MARK:
                        pos = group.end()
                    else:
                        push(_MARK)
                        pos += 1
                elif op in _TWO_TO_ONE and not kinds[-1] and not kinds[-2]:
                    pop()
                    pos += 1
                elif op == _SHORT_BINUNICODE:
                    pos += 2 + data[pos + 1]
                    if pos > end:
                        return start
                    push(_STRING)
                    strings.append(data[start + 2 : pos])
                elif op == _LONG_BINGET and (index := four(data, pos + 1)[0]) < dense and index not in names:
                    push(_OTHER)
                    pos += 5
                elif (
                    op == _SETITEMS
                    and (mark := find_mark(_MARK)) > 0
                    and kinds[mark - 1] < _MARK
                    and (len(kinds) - mark) % 2
                ):
                    if count := kinds.count(_STRING, mark):
                        del strings[-count:]
                    del kinds[mark:]
                    pos += 1
                elif op == _LONG_BINPUT and four(data, pos + 1)[0] == dense and not others and not kinds[-1]:
                    dense += 1
                    pos += 5
                else:
                    memo.dense, self._at = dense, start
                    pos = _HANDLERS[op](self, data, pos + 1)
                    dense = memo.dense
                    if op == _FRAME or op == _STOP:
                        return pos
        except (IndexError, struct.error, _Incomplete):
            return start
        finally:
            memo.dense = dense
        if pos <= end:
            return pos
        if _PUSHES[op]:
            pop()
            return start
        self._skip = pos - end
        return end

    def _forget_some(self) -> None:
        """Forget some of the strings, when there are many: those deep on the stack, and in the memo."""
        self._memo.forget_some()
        if len(self._strings) <= MAX_NAMES:
            return
        kinds, low = self._kinds, len(self._kinds) - MAX_NAMES // 4
        lowest = len(kinds)
        for _ in self._strings:
            lowest = kinds.rfind(_STRING, 0, lowest)
        del self._strings[: kinds.count(_STRING, lowest, max(low, lowest))]
        kinds[lowest:low] = kinds[lowest:low].replace(bytes([_STRING]), bytes([_OTHER]))

    def _take(self, count: int) -> list[bytes | None]:
        """Take items from the stack; return those that are strings, None for the others."""
        return [self._take_one() for _ in range(count)][::-1]

    def _take_one(self) -> bytes | None:
        kind = self._kinds[-1]
        if kind >= _MARK:
            raise _Over("an item is missing on its stack")
        self._kinds.pop()
        return self._strings.pop() if kind == _STRING else None

    def _push(self, name: bytes | None) -> None:
        if name is None:
            self._kinds.append(_OTHER)
        else:
            self._kinds.append(_STRING)
            self._strings.append(name)

    def _top(self) -> bytes | None:
        """Return the string on top of the stack, None for something else."""
        name = self._take_one()
        self._push(name)
        return name

    def _take_to_mark(self) -> int:
        """Take all items down to the last mark, and the mark; return how many."""
        mark = self._kinds.rfind(_MARK)
        if mark < 0:
            raise _Over("a mark is missing on its stack")
        if count := self._kinds.count(_STRING, mark):
            del self._strings[-count:]
        count = len(self._kinds) - mark - 1
        del self._kinds[mark:]
        return count

    def _import_encoded(self, module: bytes, name: bytes, encoding: str, errors: str) -> None:
        try:
            self._import(module.decode(encoding, errors), name.decode(encoding, errors))
        except UnicodeDecodeError:
            raise _Over("a name is not text") from None

    def _import(self, module: str, name: str) -> None:
        if len(self._asked) >= MAX_IMPORTS:
            raise _Lost(f"it imports more than {MAX_IMPORTS:,} things")
        self._asked.add(Import(module, name))
        if self._protocol < 3:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        self._imports.add(Import(module, name))

    # What the opcodes do. Each is called with the place after its opcode, and returns that after its argument, which
    # may be beyond the data: that much is skipped.

    def _unknown(self, data: bytes, pos: int) -> int:
        raise _Over(f"{data[pos - 1 : pos]!r} is no opcode")

    def _do_proto(self, data: bytes, pos: int) -> int:
        protocol = data[pos]
        if protocol > _HIGHEST_PROTOCOL:
            raise _Over(f"it is of protocol {protocol}")
        self._protocol = protocol
        self._highest = max(protocol, self._highest or 0)
        return pos + 1

    def _do_frame(self, data: bytes, pos: int) -> int:
        (size,) = _EIGHT.unpack_from(data, pos)
        start = self._offset + pos + 8
        if start < self._frame_end < _FOREVER:
            raise _Lost("a frame begins inside another")
        if size > sys.maxsize:
            raise _Over("a length is impossible")
        self._frame_end = start + size
        return pos + 8

    def _do_stop(self, data: bytes, pos: int) -> int:
        self._take_one()
        self._is_over = self._has_stopped = True
        return pos

    def _do_memoize(self, data: bytes, pos: int) -> int:
        self._memo.put(len(self._memo), self._top())
        return pos

    def _do_binput(self, data: bytes, pos: int) -> int:
        self._memo.put(data[pos], self._top())
        return pos + 1

    def _do_long_binput(self, data: bytes, pos: int) -> int:
        self._memo.put(_FOUR.unpack_from(data, pos)[0], self._top())
        return pos + 4

    def _do_put(self, data: bytes, pos: int) -> int:
        index, pos = self._index(data, pos)
        if index < 0:
            raise _Over("a number in its memo is negative")
        self._memo.put(index, self._top())
        return pos

    def _do_binget(self, data: bytes, pos: int) -> int:
        return self._get(data[pos], pos + 1)

    def _do_long_binget(self, data: bytes, pos: int) -> int:
        return self._get(_FOUR.unpack_from(data, pos)[0], pos + 4)

    def _do_get(self, data: bytes, pos: int) -> int:
        return self._get(*self._index(data, pos))

    def _get(self, index: int, pos: int) -> int:
        if index not in self._memo:
            raise _Over("something is missing in its memo")
        self._push(self._memo.names.get(index))
        return pos

    def _index(self, data: bytes, pos: int) -> tuple[int, int]:
        """Return the number in a line, as the unpickler takes it: to the first zero byte."""
        line, pos = self._line(data, pos, INDEX_BYTES, "a number in its memo is too long")
        try:
            return int(line.split(b"\0")[0]), pos
        except ValueError:
            raise _Over("a number in its memo is none") from None

    def _line(self, data: bytes, pos: int, limit: int, too_long: str) -> tuple[bytes, int]:
        """Return a line, and the place after it."""
        end = data.find(b"\n", pos)
        if (end if end >= 0 else len(data)) - pos > limit:
            raise _Lost(too_long)
        if end < 0:
            raise _Incomplete
        if end == pos:
            raise _Over("a line is empty")
        return data[pos:end], end + 1

    def _skip_line(self, data: bytes, pos: int) -> int:
        end = data.find(b"\n", pos)
        self._in_line = end < 0
        return end + 1 or len(data)

    def _do_number(self, data: bytes, pos: int) -> int:
        """INT, LONG and FLOAT."""
        if pos == len(data):
            raise _Incomplete
        if data[pos] == _NEWLINE:
            raise _Over("a line is empty")
        self._push(None)
        return self._skip_line(data, pos)

    def _do_persid(self, data: bytes, pos: int) -> int:
        self._trouble("a persistent id", self._offset + self._at)
        self._push(None)
        return self._skip_line(data, pos)

    def _do_binpersid(self, data: bytes, pos: int) -> int:
        self._trouble("a persistent id", self._offset + self._at)
        self._take_one()
        self._push(None)
        return pos

    def _do_unicode(self, data: bytes, pos: int) -> int:
        return self._text_line(data, pos, _raw_unicode)

    def _do_string(self, data: bytes, pos: int) -> int:
        return self._text_line(data, pos, _quoted)

    def _text_line(self, data: bytes, pos: int, decode: Callable[[bytes], bytes | None]) -> int:
        """Push the text in a line; one that is too long for a name is passed over."""
        end = data.find(b"\n", pos)
        if (end if end >= 0 else len(data)) - pos > NAME_BYTES:
            self._push(None)
            return self._skip_line(data, pos)
        if end < 0:
            raise _Incomplete
        self._push(decode(data[pos:end]))
        return end + 1

    def _counted(self, data: bytes, pos: int, size: int, is_text: bool = False) -> int:
        """Push so many bytes; text that may be a name is kept."""
        if size > sys.maxsize:
            raise _Over("a length is impossible")
        end = pos + size
        if not is_text or size > NAME_BYTES:
            self._push(None)
        elif end > len(data):
            raise _Incomplete
        else:
            self._push(data[pos:end])
        return end

    def _do_short_bytes(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 1, data[pos])

    def _do_bytes(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 4, _FOUR.unpack_from(data, pos)[0])

    def _do_bytes8(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 8, _EIGHT.unpack_from(data, pos)[0])

    def _do_long4(self, data: bytes, pos: int) -> int:
        (size,) = _FOUR.unpack_from(data, pos)
        if size >= 2**31:
            raise _Over("a length is impossible")
        return self._counted(data, pos + 4, size)

    def _do_short_text(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 1, data[pos], True)

    def _do_text(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 4, _FOUR.unpack_from(data, pos)[0], True)

    def _do_text8(self, data: bytes, pos: int) -> int:
        return self._counted(data, pos + 8, _EIGHT.unpack_from(data, pos)[0], True)

    def _do_short_binstring(self, data: bytes, pos: int) -> int:
        return self._only_ascii(self._do_short_text(data, pos))

    def _do_binstring(self, data: bytes, pos: int) -> int:
        return self._only_ascii(self._do_text(data, pos))

    def _only_ascii(self, pos: int) -> int:
        name = self._take_one()
        self._push(name if name and name.isascii() else None)
        return pos

    def _do_buffer(self, data: bytes, pos: int) -> int:
        self._trouble("a buffer that is kept elsewhere", self._offset + self._at)
        self._push(None)
        return pos

    def _do_readonly(self, data: bytes, pos: int) -> int:
        self._top()
        return pos

    def _do_mark(self, data: bytes, pos: int) -> int:
        self._kinds.append(_MARK)
        return pos

    def _do_pop(self, data: bytes, pos: int) -> int:
        if self._kinds[-1] == _MARK:
            self._kinds.pop()
        else:
            self._take_one()
        return pos

    def _do_pop_mark(self, data: bytes, pos: int) -> int:
        self._take_to_mark()
        return pos

    def _do_dup(self, data: bytes, pos: int) -> int:
        self._push(self._top())
        return pos

    def _do_gather(self, data: bytes, pos: int) -> int:
        """TUPLE, LIST, DICT, FROZENSET: all down to the mark becomes one thing."""
        count = self._take_to_mark()
        if data[pos - 1] == _DICT and count % 2:
            raise _Over("a key has no value")
        self._push(None)
        return pos

    def _do_add_to(self, data: bytes, pos: int) -> int:
        """APPENDS, SETITEMS, ADDITEMS: all down to the mark goes into the thing below it."""
        count = self._take_to_mark()
        if data[pos - 1] == _SETITEMS and count % 2:
            raise _Over("a key has no value")
        self._top()
        return pos

    def _do_obj(self, data: bytes, pos: int) -> int:
        if not self._take_to_mark():
            raise _Over("an item is missing on its stack")
        self._push(None)
        return pos

    def _do_combine(self, data: bytes, pos: int) -> int:
        """REDUCE and others that make one thing of the last few."""
        self._take(_COMBINED[data[pos - 1]])
        self._push(None)
        return pos

    def _do_put_into(self, data: bytes, pos: int) -> int:
        """APPEND, BUILD and SETITEM, which put the last items into the one below them."""
        self._take(2 if data[pos - 1] == _SETITEM else 1)
        self._top()
        return pos

    def _do_global(self, data: bytes, pos: int) -> int:
        module, name, pos = self._two_lines(data, pos)
        self._import_encoded(module, name, "utf-8", "strict")
        self._push(None)
        return pos

    def _do_inst(self, data: bytes, pos: int) -> int:
        module, name, pos = self._two_lines(data, pos)
        self._take_to_mark()
        self._import_encoded(module, name, "ascii", "strict")
        self._push(None)
        return pos

    def _two_lines(self, data: bytes, pos: int) -> tuple[bytes, bytes, int]:
        """Return two lines, and the place after them."""
        module, pos = self._line(data, pos, NAME_BYTES, "a name is too long")
        name, pos = self._line(data, pos, NAME_BYTES, "a name is too long")
        return module, name, pos

    def _do_stack_global(self, data: bytes, pos: int) -> int:
        module, name = self._take(2)
        self._push(None)
        if module is None or name is None:
            self._trouble("a name that is computed at load time", self._offset + self._at)
        else:
            self._import_encoded(module, name, "utf-8", "surrogatepass")
            self._memo.used.update((module, name))
        return pos

    def _do_ext1(self, data: bytes, pos: int) -> int:
        return self._extension(data[pos], pos + 1)

    def _do_ext2(self, data: bytes, pos: int) -> int:
        return self._extension(int.from_bytes(_of(data, pos, 2), "little"), pos + 2)

    def _do_ext4(self, data: bytes, pos: int) -> int:
        return self._extension(int.from_bytes(_of(data, pos, 4), "little", signed=True), pos + 4)

    def _extension(self, code: int, pos: int) -> int:
        self._trouble(f"extension code {code}", self._offset + self._at)
        self._push(None)
        return pos


def _of(data: bytes, pos: int, size: int) -> bytes:
    """Return so many bytes."""
    if pos + size > len(data):
        raise _Incomplete
    return data[pos : pos + size]


def _raw_unicode(line: bytes) -> bytes | None:
    """Return the text of a UNICODE in UTF-8, None if it has none."""
    try:
        return codecs.raw_unicode_escape_decode(line)[0].encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


#: Escapes that every version of Python takes without a warning.
_PLAIN = re.compile(rb"""(?:[^\\]|\\(?:[\\'"abfnrtv]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}))*+""", re.DOTALL)


def _quoted(line: bytes) -> bytes | None:
    """Return the text of a STRING, None if it is not plain."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise _Over("a text is not quoted")
    if not _PLAIN.fullmatch(line[1:-1]):
        return None
    text: bytes = codecs.escape_decode(line[1:-1])[0]
    return text if text.isascii() else None


_FOUR = struct.Struct("<I")
_EIGHT = struct.Struct("<Q")

_NEWLINE = ord("\n")
_MARK_OP = ord("(")
_MEMOIZE = 0x94
_BINGET = ord("h")
_LONG_BINGET = ord("j")
_LONG_BINPUT = ord("r")
_SHORT_BINUNICODE = 0x8C
_FRAME = 0x95
_STOP = ord(".")
_DICT = ord("d")
_SETITEM = ord("s")
_SETITEMS = ord("u")

#: REDUCE, NEWOBJ, TUPLE2, BUILD and APPEND: of the two things on top of the stack one is left.
_TWO_TO_ONE = frozenset(b"R\x81\x86ba")

#: A mark, things of the kinds in `_PUSHES` and BINGET, and APPENDS or SETITEMS, which puts them away.
_VALUE = rb"(?:[N\x88\x89)\]}\x8f]|[hK].|M..|G.{8}|J.{4})"
_GROUP = re.compile(rb"\((?:(?:%b%b)*+u|%b*+e)" % (_VALUE, _VALUE, _VALUE), re.DOTALL).match

#: TUPLE1 to TUPLE3, REDUCE, NEWOBJ, NEWOBJ_EX: of how many things they make one.
_COMBINED = {0x85: 1, 0x86: 2, 0x87: 3, ord("R"): 2, 0x81: 2, 0x92: 3}

#: How long the opcodes are that only push one thing, with their arguments: None, NEWTRUE, NEWFALSE, EMPTY_TUPLE,
#: EMPTY_LIST, EMPTY_DICT, EMPTY_SET, BININT1, BININT2, BININT, BINFLOAT. 0 for all others.
_PUSHES = [0] * 256
for _op in b"N\x88\x89)]}\x8f":
    _PUSHES[_op] = 1
_PUSHES[ord("K")], _PUSHES[ord("M")], _PUSHES[ord("J")], _PUSHES[ord("G")] = 2, 3, 5, 9

_HANDLERS: list[Callable[[Reader, bytes, int], int]] = [Reader._unknown] * 256
for _ops, _handler in (
    (b"\x80", Reader._do_proto),
    (b"\x95", Reader._do_frame),
    (b".", Reader._do_stop),
    (b"\x94", Reader._do_memoize),
    (b"q", Reader._do_binput),
    (b"r", Reader._do_long_binput),
    (b"p", Reader._do_put),
    (b"h", Reader._do_binget),
    (b"j", Reader._do_long_binget),
    (b"g", Reader._do_get),
    (b"ILF", Reader._do_number),
    (b"P", Reader._do_persid),
    (b"Q", Reader._do_binpersid),
    (b"V", Reader._do_unicode),
    (b"S", Reader._do_string),
    (b"C\x8a", Reader._do_short_bytes),
    (b"B", Reader._do_bytes),
    (b"\x8e\x96", Reader._do_bytes8),
    (b"\x8b", Reader._do_long4),
    (b"\x8c", Reader._do_short_text),
    (b"X", Reader._do_text),
    (b"\x8d", Reader._do_text8),
    (b"U", Reader._do_short_binstring),
    (b"T", Reader._do_binstring),
    (b"\x97", Reader._do_buffer),
    (b"\x98", Reader._do_readonly),
    (b"(", Reader._do_mark),
    (b"0", Reader._do_pop),
    (b"1", Reader._do_pop_mark),
    (b"2", Reader._do_dup),
    (b"tld\x91", Reader._do_gather),
    (b"eu\x90", Reader._do_add_to),
    (b"o", Reader._do_obj),
    (bytes(_COMBINED), Reader._do_combine),
    (b"abs", Reader._do_put_into),
    (b"c", Reader._do_global),
    (b"i", Reader._do_inst),
    (b"\x93", Reader._do_stack_global),
    (b"\x82", Reader._do_ext1),
    (b"\x83", Reader._do_ext2),
    (b"\x84", Reader._do_ext4),
):
    for _op in _ops:
        _HANDLERS[_op] = _handler


#: temporary
MOST_IMPORTS = 300


def imported(reading: Reading) -> dict[str, Any]:
    """Return what a record tells of what a pickle imports."""
    found = sorted(map(str, reading.imports))
    more = (f"more imports than these, {len(found):,} in all",) if len(found) > MOST_IMPORTS else ()
    return {
        "imports": tuple(found[:MOST_IMPORTS]),
        "troubles": (*map(str, reading.troubles), *more),
        "has_code": reading.has_code,
    }
