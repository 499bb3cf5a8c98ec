"""Pickles that nobody should load, each written by hand in a file beside this one.

A file begins with what it tries, and what comes of it:

- ``tries``: in a line;
- ``unpickling``: ``runs`` something, which makes the file that ``$VIEWS_RUNS_CANARY`` names (``runs from a file`` when
  it does not from memory), ``loads`` without harm, ``fails`` without harm, or ``is not tried``, since it would fill
  the memory;
- ``imports``: what is read from its bytes, by the names of Python 3;
- ``troubles``: how each trouble begins that is read from its bytes.

Then there is one opcode a line, under its name in `pickletools`, with its arguments as Python writes them. ``RAW`` is
for bytes, ``TIMES n`` repeats an opcode (among the quick tests a bomb is shorter), and ``COMMAND`` stands for the text
that makes the canary.
"""

import ast
import copyreg
import pickletools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.budgets import budget

#: What the shell is told.
COMMAND = 'touch "$VIEWS_RUNS_CANARY"'

#: The extension code that the pickles use, which stands for `os.system` inside `extension`.
CODE = 240


@dataclass(frozen=True)
class Hostile:
    """A pickle, and what its file says about it."""

    data: bytes
    tries: str
    unpickling: str
    imports: frozenset[str]
    troubles: tuple[str, ...]


def _counted(layout: str) -> Callable[[Any], bytes]:
    """Encode a text or bytes behind their length."""

    def encode(value: str | bytes) -> bytes:
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        return struct.pack(layout, len(raw)) + raw

    return encode


def _line(value: Any) -> bytes:
    return (value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")) + b"\n"


#: How the arguments are encoded, by the names that `pickletools` gives to their kinds.
_ARGUMENTS: dict[str, Callable[..., bytes]] = {
    "uint1": lambda value: struct.pack("<B", value),
    "uint2": lambda value: struct.pack("<H", value),
    "int4": lambda value: struct.pack("<i", value),
    "uint4": lambda value: struct.pack("<I", value),
    "uint8": lambda value: struct.pack("<Q", value),
    "float8": lambda value: struct.pack(">d", value),
    "string1": _counted("<B"),
    "string4": _counted("<I"),
    "bytes1": _counted("<B"),
    "bytes4": _counted("<I"),
    "bytes8": _counted("<Q"),
    "bytearray8": _counted("<Q"),
    "unicodestring1": _counted("<B"),
    "unicodestring4": _counted("<I"),
    "unicodestring8": _counted("<Q"),
    "long1": _counted("<B"),
    "long4": _counted("<I"),
    "stringnl_noescape_pair": lambda module, name: _line(module) + _line(name),
}

_OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}


def assemble(text: str) -> bytes:
    """Return the bytes of a pickle written one opcode a line."""
    return b"".join(_one(line) for line in text.splitlines() if line and not line.startswith("#"))


def _one(line: str) -> bytes:
    name, _, rest = line.strip().partition(" ")
    if name == "TIMES":
        count, _, rest = rest.partition(" ")
        return _one(rest) * (int(count) if len(count) < 6 else budget(int(count), int(count) // 50))
    arguments = ast.literal_eval(f"({rest.replace('COMMAND', repr(COMMAND))},)") if rest else ()
    if name == "RAW":
        return b"".join(arguments)
    opcode = _OPCODES[name]
    encode = _ARGUMENTS.get(opcode.arg.name, _line) if opcode.arg else bytes
    return opcode.code.encode("latin-1") + encode(*arguments)


def _parse(text: str) -> Hostile:
    header = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("# "))
    return Hostile(
        data=assemble(text),
        tries=header["tries"],
        unpickling=header["unpickling"],
        imports=frozenset(filter(None, header.get("imports", "").split("; "))),
        troubles=tuple(filter(None, header.get("troubles", "").split("; "))),
    )


@cache
def catalogue() -> dict[str, Hostile]:
    """Return all of them, by the names of their files."""
    return {path.stem: _parse(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.txt"))}


def hostile() -> dict[str, bytes]:
    """Return the bytes of all of them, by name; inside `extension` some do what they cannot do outside."""
    return {name: entry.data for name, entry in catalogue().items()}


@contextmanager
def extension(warm: bool = True) -> Iterator[None]:
    """Let the extension code mean `os.system`, and be in the cache, so that no `find_class` is asked any more."""
    import os

    copyreg.add_extension("os", "system", CODE)
    if warm:
        copyreg._extension_cache[CODE] = os.system  # type: ignore[attr-defined]
    try:
        yield
    finally:
        copyreg.remove_extension("os", "system", CODE)
