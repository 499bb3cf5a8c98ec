"""Unpickling a stored model: what is refused before, and what is said when it fails."""

import hashlib
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from views_runs.database import rows
from views_runs.pickles import loadability, opcodes, packages, pickling
from views_runs.database.connection import Connection
from views_runs.exceptions import (
    DigestMismatchError,
    ModelLoadError,
    UntrustedModelError,
)
from views_runs.pickles.loadability import Needs
from views_runs.pickles.opcodes import Import

#: How many imports that are not trusted are named.
MOST_NAMED = 10


def load(
    connection: Connection, stored: rows.Stored, trusted: frozenset[Import] | None = None, sha256: str | None = None
) -> Any:
    """Return the object that a pickle makes.

    Args:
        connection: to the store.
        stored: the pickle.
        trusted: what it may import, and nothing else; None for anything.
        sha256: what its bytes must be; None for any.

    Raises:
        UntrustedModelError: it would import something else, or that cannot be told; nothing was imported.
        DigestMismatchError: its bytes are others; nothing was imported.
        ModelLoadError: a module is missing, and nothing was imported; or unpickling failed.
    """
    needs = rows.needs(stored)
    if trusted is None and sha256 is None:
        _refuse_missing(connection, needs)
        return _unpickle(connection, stored, needs, None)
    seen = _read_through(connection, stored)
    # What was read counts, and not what whoever wrote the file says of it.
    needs = replace(needs, imports=tuple(sorted(seen.reading.imports)), troubles=seen.reading.troubles)
    if sha256 is not None:
        _hold_to_digest(connection, seen, sha256)
    if trusted is not None:
        _hold_to_list(connection, stored, seen.reading, trusted)
    _refuse_missing(connection, needs)
    return _unpickle(connection, stored, needs, seen, only_listed=trusted is not None)


@dataclass(frozen=True)
class Seen:
    """What a first pass over a pickle saw: the digests in the file are whoever wrote the file's."""

    reading: opcodes.Reading
    sha256: str
    #: Of each piece, in order.
    digests: tuple[bytes, ...]

    def again(self, connection: Connection, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        """Yield the pieces of a second pass, each after it was found to be as in the first."""
        for number, piece in enumerate(pieces):
            if self.digests[number : number + 1] != (hashlib.sha256(piece).digest(),):
                raise connection.failure(
                    DigestMismatchError,
                    "the pickle was changed while it was read. Ask who writes to this store, and why",
                )
            yield piece


def _read_through(connection: Connection, stored: rows.Stored) -> Seen:
    reader, whole, digests = opcodes.Reader(), hashlib.sha256(), []
    with closing(rows.pieces(connection, stored)) as pieces:
        for piece in pieces:
            reader.feed(piece)
            whole.update(piece)
            digests.append(hashlib.sha256(piece).digest())
    return Seen(reader.result(), whole.hexdigest(), tuple(digests))


def _unpickle(
    connection: Connection, stored: rows.Stored, needs: Needs, seen: Seen | None, only_listed: bool = False
) -> Any:
    def advice() -> str:
        packages.forget()
        return _differences(needs)

    with closing(rows.pieces(connection, stored)) as first:
        pieces = first if seen is None else seen.again(connection, first)
        allowed = seen.reading.asked if seen is not None and only_listed else None
        return pickling.load(pieces, f"{connection.doing} from {connection.path}", advice, allowed)


def _differences(needs: Needs) -> str:
    """Return how this machine differs from the one that stored a model, for a message."""
    verdict = loadability.verdict(needs)
    if not verdict.reasons:
        return "This machine has what it needs, as far as that was recorded; ask who stored it"
    lines = [f"\n  {reason}" for reason in verdict.reasons]
    return f"It may be that:{''.join(lines)}" + (f"\nTry: {verdict.fix}" if verdict.fix else "")


def _refuse_missing(connection: Connection, needs: Needs) -> None:
    missing = loadability.missing_modules(found.module for found in needs.imports)
    if missing:
        one = f"the module {missing[0]}" if len(missing) == 1 else f"the modules {', '.join(missing)}"
        line = loadability.install(missing, needs)
        unknown = [module for module in missing if not loadability.suppliers([module], needs)]
        advice = [f"Try: {line}"] if line else []
        advice += [f"It is not known what package has {', '.join(unknown)}: ask who stored it"] if unknown else []
        raise connection.failure(ModelLoadError, f"it needs {one}, not here. Nothing was loaded. {'. '.join(advice)}")


def _hold_to_digest(connection: Connection, seen: Seen, sha256: str) -> None:
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise connection.failure(DigestMismatchError, f"{sha256!r} is no SHA-256: it has 64 hexadecimal digits")
    if seen.sha256 != sha256.lower():
        raise connection.failure(
            DigestMismatchError,
            f"the SHA-256 of its bytes is {seen.sha256}, not {sha256.lower()}. Nothing was loaded. It is another model, or "
            "was changed: ask who stored it",
        )


def _hold_to_list(
    connection: Connection, stored: rows.Stored, reading: opcodes.Reading, trusted: frozenset[Import]
) -> None:
    strangers = sorted(map(str, reading.imports - trusted))
    reasons = [f"it imports {', '.join(strangers[:MOST_NAMED])}" + (", ..." if strangers[MOST_NAMED:] else "")]
    reasons = [*(reasons if strangers else []), *reading.troubles]
    if reasons:
        # Whoever may write the store has given the name, and the line is there to be pasted into a shell.
        line = ["viewser", "model", "--store", str(connection.path), "trust", "--", f"{stored.name}:{stored.version}"]
        raise connection.failure(
            UntrustedModelError,
            f"{'; '.join(reasons)}: that is not on the list. Nothing was loaded. If you trust whoever stored it, see "
            f"`{shlex.join(line)}`",
        )
