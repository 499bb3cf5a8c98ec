"""Determine what a pickle would import from its opcodes, without unpickling it.

A `Reader` follows the opcodes as the unpickler does, but keeps little: for the stack, which items are marks and which
are strings that may be names; for the memo, only such strings. It never runs anything and never fails. A pickle without
troubles imports what is in `Reading.imports` and nothing else, as far as its opcodes are concerned. What the imported
functions do when called cannot be determined.

It is modelled on CPython's `_pickle.c`. It does not check values, such as numbers that make the unpickler fail, but
reports an opcode that crosses the end of its frame, because the unpickler reads it differently from a file and from
memory, and a frame that begins inside another.
"""

import codecs
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from typing import Any, NamedTuple

from views_runs.records import MOST_IMPORTS

#: The maximum length of a string, in bytes, that is considered as a name.
NAME_BYTES = 500

#: Limits on memory use, beyond what any legitimate pickle has: distinct imports, distinct troubles, and memo entries
#: that are out of order.
MAX_IMPORTS = 4096
MAX_TROUBLES = 20
MAX_OUT_OF_ORDER = 65536

#: The number of possible names in a dict, which takes 150 bytes for each. Of more on the stack, those near its top are
#: kept; of more in the memo, the others are packed.
MAX_NAMES = 10_000

#: The bytes of packed names. A text of one byte takes 4 bytes in a pickle and 9 here, and a longer one less for each
#: byte, so that a pickle of 64 MiB does not reach this. Fewer would do for most models, but not for models of text.
MAX_PACKED = 160_000_000

#: Bytes to copy and read at a time.
CHUNK = 2**16

_FOREVER = 2**70
_HIGHEST_PROTOCOL = 5

#: Items on the stack. Three marks are at its bottom, so that the last three items can always be examined.
_OTHER, _STRING, _MARK = range(3)
_BOTTOM = 3


class Import(NamedTuple):
    """An import of a pickle: a module, and a name in it, which may have dots.

    >>> str(Import("collections", "OrderedDict")), str(Import("shapes", "Circle.Style"))
    ('collections.OrderedDict', 'shapes:Circle.Style')
    """

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Import":
        """Parse the text of an import: the module in ``a.b.c`` is ``a.b``, and in ``a:b.c`` it is ``a``."""
        module, _, name = text.rpartition(":" if ":" in text else ".")
        return cls(module, name)

    def __str__(self) -> str:
        """Escape unprintable characters; also colons and backslashes, so that no two imports have the same text."""
        module, name = map(_escape, self)
        return f"{module}{':' if '.' in name else '.'}{name}"


def _escape(text: str) -> str:
    if text.isprintable() and not {":", "\\"} & set(text):
        return text
    return text.encode("unicode_escape").decode("ascii").replace(":", "\\x3a")


class TroubleKind(Enum):
    """Why imports of a pickle may be missing; each value is the beginning of the text of its troubles."""

    #: A STACK_GLOBAL of anything but two strings known to the reader.
    COMPUTED_NAME = "a name that is computed at load time"
    #: The same, where the reader no longer has all strings.
    FORGOTTEN_NAME = "a name after more text than the reader keeps"
    #: A number that represents whatever the process has registered for it (`copyreg`).
    EXTENSION = "extension code"
    #: An object outside the pickle; BUFFER is data outside it.
    PERSISTENT = "a persistent id"
    BUFFER = "a buffer that is kept elsewhere"
    REST = "data after the end"
    #: Strings of Python 2 outside ASCII: the unpickler fails, unless it is given their encoding.
    BYTE_STRINGS = "Python 2 byte strings"
    #: The unpickler fails at the same place.
    BROKEN = "broken after byte"
    #: The unpickler may continue; the reader does not.
    NOT_FOLLOWED = "not followed after byte"
    #: The stored bytes cannot be read; recorded by the store.
    DAMAGED = "damaged"
    #: Not all imports were recorded.
    LIMIT = "more imports than these"
    OTHER = ""


class Trouble(str):
    """A reason why imports may be missing: the text that is recorded, which begins with its kind."""

    @property
    def kind(self) -> TroubleKind:
        return next(kind for kind in TroubleKind if self.startswith(kind.value))


@dataclass(frozen=True)
class Reading:
    """The result of reading a pickle. Without troubles, the imports are complete."""

    #: Its imports, under their Python 3 names.
    imports: frozenset[Import]
    #: The same as the unpickler passes them to `find_class`: up to protocol 2, these may be Python 2 names such as
    #: ``__builtin__.set``, which it maps itself.
    asked: frozenset[Import]
    troubles: tuple[Trouble, ...]
    #: The highest protocol declared; None if none is, as in protocols 0 and 1.
    protocol: int | None
    size: int
    #: Whether it was read to its end, with no data after it.
    is_whole: bool
    #: Whether it ends in the middle, without anything wrong before.
    is_cut_off: bool = False
    #: The versions of distributions that wrote theirs into the pickle.
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_code(self) -> bool:
        """Whether it contains code by value, as written by cloudpickle and dill, for a single version of Python."""
        return any(
            name in _CODE_TYPES.get(module, ()) or name in _CODE_MAKERS and module.rpartition(".")[2] in _CODE_PICKLERS
            for module, name in self.imports
        )


#: What code objects and functions are made with, without a pickler for them.
_CODE_TYPES = {"types": ("CodeType", "FunctionType"), "marshal": ("load", "loads")}

#: The modules of cloudpickle and dill, also where another package has a copy of them, and how these make functions;
#: ``_builtin_type`` is how cloudpickle names the type of code objects.
_CODE_PICKLERS = ("cloudpickle", "cloudpickle_fast", "_dill")
_CODE_MAKERS = ("_make_function", "_make_skel_func", "_builtin_type", "_create_function", "_create_code")

#: The first bytes of compressed files from joblib, including old versions; no pickle begins like this.
_COMPRESSED = {
    **dict.fromkeys((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), "zlib"),
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
    b"ZF": "zlib",
}


def compression(start: bytes) -> str | None:
    """Return the compression that joblib used for a file with these first bytes; None if it is not compressed."""
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


#: Where joblib has the stand-ins for arrays: also as a copy in another package, such as scikit-learn before 0.23.
_JOBLIB = re.compile(r"(?:.*\.)?joblib\.numpy_pickle(?:_compat)?", re.DOTALL)


def joblib_wrappers(reading: Reading) -> list[Import]:
    """Return what joblib put into a pickle in place of arrays; these lie between the opcodes or in files beside it."""
    return sorted(
        found for found in reading.imports if _JOBLIB.fullmatch(found.module) and found.name.endswith("ArrayWrapper")
    )


def imported(reading: Reading) -> dict[str, Any]:
    """Return the values to record about a pickle's imports."""
    found = sorted(map(str, reading.imports))
    more = (f"{TroubleKind.LIMIT.value}, {len(found):,} in all",) if len(found) > MOST_IMPORTS else ()
    return {
        "imports": tuple(found[:MOST_IMPORTS]),
        "troubles": (*map(str, reading.troubles), *more),
        "has_code": reading.has_code,
    }


def read(pieces: Iterable[Any]) -> Reading:
    """Read a pickle in pieces: bytes, or memory that may be overwritten once the next is requested.

    >>> reading = read([b"cos\\nsystem\\n(S'ls'\\ntR."])
    >>> [str(found) for found in reading.imports], reading.troubles
    (['os.system'], ())
    """
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    return reader.result()


class _Incomplete(Exception):
    """An opcode continues in the next bytes."""


class _Over(Exception):
    """The unpickler cannot continue, or only the reader does not: why, and the kind of trouble if not BROKEN."""


class _Memo:
    """The unpickler's memo: which indices are in use, and which entries may be names."""

    def __init__(self) -> None:
        #: The indices from the first up to this are in use, and so are the others. Python 2 wrote 1 first.
        self.first = 0
        self.dense = 0
        self.others: set[int] = set()
        self.names: dict[int, bytes] = {}
        #: Strings that were used as names, which are not forgotten.
        self.used: set[bytes] = set()
        #: Whether a string that may be a name is no longer kept.
        self.has_forgotten = False
        #: The strings that are not in the dict: their indices in order, where each ends, and their text.
        self._indices = array("I")
        self._ends = array("I", [0])
        self._texts = bytearray()

    def __len__(self) -> int:
        return self.dense - self.first + len(self.others)

    def __contains__(self, index: int) -> bool:
        return self.first <= index < self.dense or index in self.others

    def put(self, index: int, name: bytes | None) -> None:
        """Add an entry, with its text if it may be a name."""
        if self._indices and index <= self._indices[-1]:
            raise _Over("a memo entry is replaced, or out of order", TroubleKind.NOT_FOLLOWED)
        if index == 1 and not len(self):
            self.first = self.dense = 1
        if index == self.dense:
            self.dense += 1
            while self.dense in self.others:
                self.others.remove(self.dense)
                self.dense += 1
        elif index > self.dense:
            if len(self.others) >= MAX_OUT_OF_ORDER:
                raise _Over("too many memo entries are out of order", TroubleKind.NOT_FOLLOWED)
            self.others.add(index)
        else:
            self.first = min(self.first, index)
        if name is None:
            self.names.pop(index, None)
        else:
            self.names[index] = name

    def get(self, index: int) -> bytes | None:
        """Return the text of an entry, or None if it cannot be a name."""
        at = bisect_left(self._indices, index)
        if at < len(self._indices) and self._indices[at] == index:
            return bytes(self._texts[self._ends[at] : self._ends[at + 1]])
        return self.names.get(index)

    def pack(self) -> None:
        """If there are too many strings in the dict, leave only the latest there, and those that BINGET can get."""
        if len(self.names) <= MAX_NAMES:
            return
        items = [*self.names.items()]
        first = [item for item in items if item[0] < 256]
        rest = [item for item in items[: -MAX_NAMES // 4] if item[0] > 255 and not self._pack_one(*item)]
        used = [item for item in rest if item[1] in self.used][-MAX_NAMES // 4 :]
        self.has_forgotten |= len(used) < len(rest)
        self.names = dict(first + used + items[-MAX_NAMES // 4 :])

    def _pack_one(self, index: int, name: bytes) -> bool:
        """Pack a string, unless there are too many already or its index is lower than the last one's."""
        last = self._indices[-1] if self._indices else 0
        if not last < index < 2**32 or len(self._texts) + 8 * len(self._indices) > MAX_PACKED:
            return False
        self._indices.append(index)
        self._texts += name
        self._ends.append(len(self._texts))
        return True


#: A mark, values that cannot be names or that BINGET gets, and APPENDS or SETITEMS, which takes them.
_VALUE = rb"(?:[N\x88\x89)\]}\x8f]|[hK].|M..|G.{8}|J.{4})"
_GROUP = re.compile(rb"\((?:(?:%b%b)*+u|%b*+e)" % (_VALUE, _VALUE, _VALUE), re.DOTALL).match


class Reader:
    """Reads a pickle, fed to it piece by piece."""

    def __init__(self) -> None:
        self._asked: set[Import] = set()
        self._imports: set[Import] = set()
        self._troubles: dict[str, Trouble] = {}
        self._protocol = 0
        self._highest: int | None = None
        self._versions: dict[str, str] = {}
        self._is_cut_off = False
        #: The number of bytes fed; the offset up to which they are read; the current opcode's position after that.
        self._size = 0
        self._offset = 0
        self._at = 0
        #: The number of bytes to skip, and whether to skip to the end of a line.
        self._skip = 0
        self._in_line = False
        #: Looks at what is skipped.
        self._watch: Callable[[bytes], None] | None = None
        #: The beginning of an opcode that continues in the next piece.
        self._rest = b""
        self._frame_end = _FOREVER
        self._has_stopped = False
        #: Whether the data read so far is known not to be a complete pickle.
        self.is_broken = False
        #: The stack: one byte for each item, and the strings by position. A string remains after its item is popped,
        #: until another replaces it, so it is valid only while the item at its position is a _STRING.
        self._stack = bytearray([_MARK] * _BOTTOM)
        self._strings: dict[int, bytes] = {}
        self._memo = _Memo()
        self._table = _make_table()

    def feed(self, piece: Any) -> None:
        """Read more bytes; no reference to them is kept."""
        view = memoryview(piece).cast("B")
        self._size += len(view)
        at = 0
        while at < len(view) and not self._has_stopped and not self.is_broken:
            try:
                at = self._advance(view, at)
            except _Over as over:
                self._break(self._offset + self._at, *over.args)
        if self._has_stopped and self._size > self._offset:
            self._at = 0
            self._note(TroubleKind.REST)
            self.is_broken = True

    def result(self) -> Reading:
        """Finish reading and return the result; nothing may be fed after this."""
        if not self._has_stopped and not self.is_broken:
            self._break(self._size, "it ends too early")
            self._is_cut_off = True
        elif self._has_stopped and self._size < self._frame_end < _FOREVER:
            self._break(self._size, "its last frame is longer than what is left")
            self._is_cut_off = True
        return Reading(
            imports=frozenset(self._imports),
            asked=frozenset(self._asked),
            troubles=tuple(self._troubles.values()),
            protocol=self._highest,
            size=self._size,
            is_whole=self._has_stopped and not self.is_broken,
            is_cut_off=self._is_cut_off,
            versions=self._versions,
        )

    def _note(self, kind: TroubleKind, which: str = "", at: int | None = None) -> None:
        """Note a trouble, by default at the current opcode; unlike a break, it does not end the reading."""
        if len(self._troubles) < MAX_TROUBLES or kind is TroubleKind.REST:
            trouble = Trouble(f"{kind.value}{which} (byte {self._offset + self._at if at is None else at:,})")
            self._troubles.setdefault(kind.value + which, trouble)

    def _break(self, at: int, reason: str, kind: TroubleKind = TroubleKind.BROKEN) -> None:
        self._troubles[reason] = Trouble(f"{kind.value} {at:,}: {reason}")
        self.is_broken = True

    def _advance(self, view: memoryview, at: int) -> int:
        """Continue reading at a position in a piece; return the position reached."""
        self._at = 0
        if self._offset >= self._frame_end:
            self._frame_end = _FOREVER
        if self._skip:
            count = min(self._skip, len(view) - at)
            if self._watch:
                self._watch(bytes(view[at : at + count]))
            self._skip -= count
            self._offset += count
            return at + count
        rest = len(self._rest)
        piece = self._rest + view[at : at + min(CHUNK, self._frame_end - self._offset - rest)]
        if self._in_line:
            done = piece.find(b"\n") + 1 or len(piece)
            if self._watch:
                self._watch(piece[:done])
            self._in_line = piece[done - 1] != _NEWLINE
        else:
            done = self._follow(piece)
        self._offset += done
        self._rest = b"" if done else piece
        self._at = self._frame_end - self._offset
        reached = self._offset + self._skip + len(self._rest)
        if reached > self._frame_end or reached == self._frame_end and (self._in_line or self._rest):
            raise _Over("an opcode crosses the end of its frame", TroubleKind.NOT_FOLLOWED)
        return at + (done or len(piece)) - rest

    def _follow(self, data: bytes) -> int:
        """Follow the opcodes up to an incomplete one, a frame, or the end; return how many bytes they take.

        The most frequent opcodes are repeated here: through the table, 100,000 small dicts with a text in each would
        take 3.4 s instead of 1.0. Seven more made no difference. Without `_GROUP`, dicts of numbers would take 0.86 s
        instead of 0.35.
        """
        memo = self._memo
        memo.pack()
        if len(self._strings) > MAX_NAMES:
            # Of the strings on the stack, those near its top are kept.
            top = len(self._stack)
            self._strings = {at: text for at, text in self._strings.items() if top - MAX_NAMES // 4 <= at < top}
            memo.has_forgotten = True
        stack, strings, names = self._stack, self._strings, memo.names
        pos, end = 0, len(data)
        try:
            while pos < end:
                start = pos
                op = data[pos]
                if width := _PUSHES[op]:
                    pos += width
                    stack.append(_OTHER)
                elif op == _BINGET and memo.first <= (index := data[pos + 1]) < memo.dense:
                    pos += 2
                    if index in names:
                        strings[len(stack)] = names[index]
                        stack.append(_STRING)
                    else:
                        stack.append(_OTHER)
                elif op == _SHORT_BINUNICODE and pos + 2 + data[pos + 1] <= end:
                    pos += 2 + data[pos + 1]
                    strings[len(stack)] = data[start + 2 : pos]
                    stack.append(_STRING)
                elif op == _MEMOIZE and not memo.others and not memo.first and stack[-1] != _MARK:
                    pos += 1
                    if stack[-1] == _STRING and (name := strings.get(len(stack) - 1)) is not None:
                        names[memo.dense] = name
                    memo.dense += 1
                elif op == _MARK_OP:
                    # What is put on the stack only to be put into the object below can be skipped at once.
                    if memo.dense > 255 and not memo.first and stack[-1] == _OTHER and (group := _GROUP(data, pos)):
                        pos = group.end()
                    else:
                        pos += 1
                        stack.append(_MARK)
                else:
                    self._at = start
                    pos = self._obey(data, pos)
                    self._has_stopped = op == _STOP
                    if op == _STOP or op == _FRAME:
                        return pos
        except (IndexError, _Incomplete):
            return start
        if pos > end and _PUSHES[op]:
            stack.pop()
            return start
        self._skip = max(pos - end, 0)
        return min(pos, end)

    def _obey(self, data: bytes, pos: int) -> int:
        """Do what an opcode does; return the place after it, which may be beyond the data: that much is skipped."""
        start, opcode = pos, self._table.get(data[pos])
        if opcode is None:
            raise _Over(f"{data[pos : pos + 1]!r} is not an opcode")
        argument, pos = self._read_argument(opcode, data, pos + 1) if opcode.size else (0, pos + 1)
        _, _, multiple, takes, leaves, effect = opcode
        stack = self._stack
        if data[start] in _SETS:
            self._look_for_version()
        if multiple:
            mark = stack.rfind(_MARK)
            if mark < _BOTTOM:
                raise _Over("a mark is missing on its stack")
            if (len(stack) - mark - 1) % multiple:
                raise _Over("a key has no value")
            del stack[mark:]
        if takes:
            if _MARK in stack[-takes:]:
                raise _Over("an item is missing on its stack")
            del stack[-takes:]
        stack += leaves
        if effect and (name := effect(self, argument)) is not None:
            stack[-1] = _STRING
            self._strings[len(stack) - 1] = name
        return pos

    def _read_argument(self, opcode: "_Opcode", data: bytes, pos: int) -> tuple[Any, int]:
        """Return an opcode's argument, a number or bytes or None if it cannot be a name, and the place after it."""
        if opcode.size == _LINE:
            line, pos = self._read_line(opcode, data, pos)
            if opcode.argument != _NAMES:
                return line, pos
            name, pos = self._read_line(opcode, data, pos)
            return (line, name), pos
        size, longest = _COUNTED.get(opcode.size, (opcode.size, 0))
        start = pos + size
        if start > len(data):
            raise _Incomplete
        number = int.from_bytes(data[pos:start], "little", signed=opcode.argument == "int4")
        if opcode.size > 0:
            return number, start
        if number > longest:
            raise _Over("a length is impossible")
        if "string" not in opcode.argument or number > NAME_BYTES:
            self._watch = self._choose_watch(opcode.argument)
            if self._watch:
                self._watch(data[start : start + number])
            return None, start + number
        if start + number > len(data):
            raise _Incomplete
        return data[start : start + number], start + number

    def _read_line(self, opcode: "_Opcode", data: bytes, pos: int) -> tuple[bytes | None, int]:
        """Return a line, or None if it is too long for a name, and the position after it."""
        end = data.find(b"\n", pos)
        if (end if end >= 0 else len(data)) - pos > NAME_BYTES:
            if opcode.argument == _NAMES:
                raise _Over("a name is too long", TroubleKind.NOT_FOLLOWED)
            self._in_line = end < 0
            end = end + 1 or len(data)
            self._watch = self._watch_escapes() if opcode.argument == "stringnl" else None
            if self._watch:
                self._watch(data[pos:end])
            return None, end
        if end < 0:
            raise _Incomplete
        if end == pos and opcode.argument not in _MAY_BE_EMPTY:
            raise _Over("a line is empty")
        return data[pos:end], end + 1

    # What is not kept is looked at while it passes. The position is that of its opcode, however the bytes are cut.

    def _choose_watch(self, argument: str) -> Callable[[bytes], None] | None:
        if argument in ("string1", "string4"):
            return self._watch_byte_string()
        if _XGBOOST in self._imports and "xgboost" not in self._versions:
            return self._watch_xgboost()
        return None

    def _watch_byte_string(self) -> Callable[[bytes], None]:
        note = partial(self._note, TroubleKind.BYTE_STRINGS, at=self._offset + self._at)
        return lambda data: None if data.isascii() else note()

    def _watch_escapes(self) -> Callable[[bytes], None]:
        """Look for what is outside ASCII in a quoted line, as bytes or, as Python 2 wrote it, escaped."""
        note = partial(self._note, TroubleKind.BYTE_STRINGS, at=self._offset + self._at)
        rest = b""

        def watch(data: bytes) -> None:
            nonlocal rest
            data = rest + data
            rest = data[_ASCII(data).end() :]  # type: ignore[union-attr]
            if len(rest) > 3 or rest[:1] > b"\x7f":
                note()
                rest = b""

        return watch

    def _watch_xgboost(self) -> Callable[[bytes], None]:
        """Look for the version in the state of a booster, which has it behind its configuration, before its trees."""
        head = bytearray()

        def watch(data: bytes) -> None:
            head.extend(data[: CHUNK - len(head)])
            if found := _XGBOOST_VERSION(head):
                parts = found[1][1::2] if found[1] else found.groups()[1:]
                self._versions.setdefault("xgboost", ".".join(str(int(part)) for part in parts))
            if found or len(head) == CHUNK:
                self._watch = None

        return watch

    def _look_for_version(self) -> None:
        """Note the version that scikit-learn writes as the last item of the state of each of its objects."""
        at = len(self._stack) - 1
        if self._strings.get(at - 1) == b"_sklearn_version" and self._stack[at - 1 :] == _TWO_STRINGS:
            version = self._strings.get(at, b"")
            if len(version) < 50 and re.fullmatch(rb"\d[0-9A-Za-z.+_-]*", version):
                self._versions.setdefault("scikit-learn", version.decode("ascii"))

    # The effects of opcodes, called after items were taken from the stack and put on it, with the opcode's argument.
    # Each returns the text of the top item if it may be a name.

    def _set_protocol(self, protocol: int) -> None:
        if protocol > _HIGHEST_PROTOCOL:
            raise _Over(f"protocol {protocol} is unknown")
        self._protocol = protocol
        self._highest = max(protocol, self._highest or 0)

    def _begin_frame(self, size: int) -> None:
        start = self._offset + self._at + 9
        if start < self._frame_end < _FOREVER:
            raise _Over("a frame begins inside another", TroubleKind.NOT_FOLLOWED)
        if size > sys.maxsize:
            raise _Over("a length is impossible")
        self._frame_end = start + size

    def _look(self) -> bytes | None:
        """Return the text of the top item, or None if it has none."""
        if self._stack[-1] == _MARK:
            raise _Over("an item is missing on its stack")
        return self._strings.get(len(self._stack) - 1) if self._stack[-1] == _STRING else None

    def _pop(self, _: int) -> None:
        if len(self._stack) == _BOTTOM:
            raise _Over("an item is missing on its stack")
        self._stack.pop()

    def _duplicate(self, _: int) -> bytes | None:
        name = self._look()
        self._stack.append(_OTHER)
        return name

    def _put(self, argument: int | bytes | None) -> None:
        index = _read_index(argument)
        if index < 0:
            raise _Over("a memo index is negative")
        self._memo.put(index, self._look())

    def _get(self, argument: int | bytes | None) -> bytes | None:
        index = _read_index(argument)
        if index not in self._memo:
            raise _Over("something is missing in its memo")
        return self._memo.get(index)

    def _take_byte_string(self, text: bytes | None) -> bytes | None:
        """Return a string of Python 2, if the unpickler can read it; one that is long has been looked at."""
        if text is None or text.isascii():
            return text
        self._note(TroubleKind.BYTE_STRINGS)
        return None

    def _import_from_stack(self, _: int) -> None:
        name = self._look()
        self._stack.pop()
        module = self._look()
        self._stack[-1] = _OTHER
        if module is None or name is None:
            self._note(TroubleKind.FORGOTTEN_NAME if self._memo.has_forgotten else TroubleKind.COMPUTED_NAME)
        else:
            self._import((module, name), "utf-8", "surrogatepass")
            self._memo.used.update((module, name))

    def _import(self, names: tuple[bytes, bytes], encoding: str, errors: str = "strict") -> None:
        try:
            asked = Import(*(name.decode(encoding, errors) for name in names))
        except UnicodeDecodeError:
            raise _Over("a name is not text") from None
        if len(self._asked) >= MAX_IMPORTS:
            raise _Over(f"it imports more than {MAX_IMPORTS:,} things", TroubleKind.NOT_FOLLOWED)
        self._asked.add(asked)
        if self._protocol < 3:
            module = IMPORT_MAPPING.get(asked.module, asked.module)
            asked = Import(*NAME_MAPPING.get(asked, (module, asked.name)))
        self._imports.add(asked)


def _read_index(argument: int | bytes | None) -> int:
    """Return the index of a memo entry; if it is a line, the unpickler reads it up to the first zero byte."""
    if argument is None:
        raise _Over("a memo index is too long", TroubleKind.NOT_FOLLOWED)
    try:
        return argument if isinstance(argument, int) else int(argument.split(b"\0")[0])
    except ValueError:
        raise _Over("a memo index is not a number") from None


def _decode_unicode(line: bytes) -> bytes | None:
    """Return the text of a UNICODE in UTF-8, None if it cannot be decoded."""
    try:
        return codecs.raw_unicode_escape_decode(line)[0].encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


#: A text with only those escapes that every version of Python accepts without a warning.
_PLAIN = re.compile(rb"""(?:[^\\]|\\(?:[\\'"abfnrtv]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}))*+""", re.DOTALL)


def _decode_string(line: bytes) -> bytes | None:
    """Return the text of a STRING, None if it is not plain."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise _Over("a text is not quoted")
    if not _PLAIN.fullmatch(line[1:-1]):
        return None
    text: bytes = codecs.escape_decode(line[1:-1])[0]
    return text


class _Opcode(NamedTuple):
    """How the argument of an opcode is read, and what the opcode does."""

    #: The argument's name in `pickletools`, and its size in bytes, or `_LINE`, or one of the sizes in `_COUNTED`.
    argument: str
    size: int
    #: If it takes the last mark and the items above: what their number must be a multiple of; otherwise 0.
    multiple: int
    #: How many items it takes below these, and what it leaves on the stack.
    takes: int
    leaves: bytes
    effect: Callable[[Reader, Any], bytes | None] | None


#: The sizes of arguments whose end is in the data, as in `pickletools`: UP_TO_NEWLINE; and TAKEN_FROM_ARGUMENT1, 4, 4U
#: and 8U, which begin with their length: its size in bytes, and the greatest length that the unpickler accepts.
_LINE = -1
_COUNTED = {-2: (1, 2**8), -3: (4, 2**31 - 1), -4: (4, 2**32), -5: (8, sys.maxsize)}

#: Arguments of two lines, a module and a name; and lines that may be empty.
_NAMES = "stringnl_noescape_pair"
_MAY_BE_EMPTY = ("unicodestringnl", "stringnl_noescape")

#: What opcodes do beyond replacing items on the stack.
_EFFECTS: dict[str, Callable[[Reader, Any], bytes | None]] = {
    "PROTO": Reader._set_protocol,
    "FRAME": Reader._begin_frame,
    "POP": Reader._pop,
    "DUP": Reader._duplicate,
    "MEMOIZE": lambda reader, _: reader._put(len(reader._memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Reader._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Reader._get),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), lambda _, text: text),
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING"), Reader._take_byte_string),
    "UNICODE": lambda _, line: line and _decode_unicode(line),
    "STRING": lambda reader, line: line and reader._take_byte_string(_decode_string(line)),
    "GLOBAL": lambda reader, lines: reader._import(lines, "utf-8"),
    "INST": lambda reader, lines: reader._import(lines, "ascii"),
    "STACK_GLOBAL": Reader._import_from_stack,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda reader, code: reader._note(TroubleKind.EXTENSION, f" {code}")),
    **dict.fromkeys(("PERSID", "BINPERSID"), lambda reader, _: reader._note(TroubleKind.PERSISTENT)),
    "NEXT_BUFFER": lambda reader, _: reader._note(TroubleKind.BUFFER),
}

#: Opcodes whose effect changes the stack itself.
_OWN = ("POP", "DUP", "MEMOIZE", "STACK_GLOBAL")


@cache
def _make_table() -> dict[int, _Opcode]:
    """Return the opcodes by code, mostly from `pickletools`, whose import would add 2 ms to the start of a command."""
    from pickletools import markobject, opcodes

    table = {}
    for opcode in opcodes:
        before, after = ([], []) if opcode.name in _OWN else (opcode.stack_before, opcode.stack_after)
        takes = before.index(markobject) if markobject in before else len(before)
        table[ord(opcode.code)] = _Opcode(
            argument=opcode.arg.name if opcode.arg else "",
            size=opcode.arg.n if opcode.arg else 0,
            multiple=(2 if opcode.name in ("DICT", "SETITEMS") else 1) if markobject in before else 0,
            takes=takes,
            leaves=bytes(_MARK if item is markobject else _OTHER for item in after),
            effect=_EFFECTS.get(opcode.name),
        )
    return table


#: A quoted line, up to what is not ASCII or an escape that is not complete.
_ASCII = re.compile(rb"(?:[^\\\x80-\xff]|\\(?:x[0-7][0-9a-fA-F]|[^x\x80-\xff]))*+", re.DOTALL).match

#: Where versions are: the last key and value before SETITEM or SETITEMS; in the bytes of a booster as UBJSON or, before
#: 1.6, as JSON. LightGBM writes only the version of its format.
_SETS = b"su"
_TWO_STRINGS = bytes([_STRING, _STRING])
_XGBOOST = Import("xgboost.core", "Booster")
_XGBOOST_VERSION = re.compile(
    rb'version(?:\[#L\x00{7}\x03((?:i.){3})|":\[(\d{1,4}),(\d{1,4}),(\d{1,4})\])', re.DOTALL
).search

_MARK_OP, _BINGET, _SHORT_BINUNICODE, _MEMOIZE, _FRAME, _STOP, _NEWLINE = b"(h\x8c\x94\x95.\n"

#: The length of opcodes that only push an item that cannot be a name, with their arguments; 0 for all others.
_LENGTHS = {1: b"N\x88\x89)]}\x8f", 2: b"K", 3: b"M", 5: b"J", 9: b"G"}
_PUSHES = [next((length for length, those in _LENGTHS.items() if op in those), 0) for op in range(256)]
