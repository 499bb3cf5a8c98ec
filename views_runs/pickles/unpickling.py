"""Unpickle a stored model: check it first, and explain failures."""

import hashlib
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from views_runs import extra, signals
from views_runs.exceptions import DigestMismatchError, ModelLoadError, StorageError, UntrustedModelError
from views_runs.pickles import loadability, opcodes, packages
from views_runs.pickles.loadability import Needs
from views_runs.pickles.opcodes import Import, Trouble, TroubleKind
from views_runs.pickles.parts import PickleReader

#: The maximum number of untrusted imports named in a message.
MOST_NAMED = 10

#: Opens the verified bytes of a pickle at the beginning.
Opens = Callable[[], AbstractContextManager[Iterator[memoryview]]]


def load(
    opens: Opens,
    needs: Needs,
    trusted: frozenset[Import] | None = None,
    sha256: str | None = None,
    trust_command: str = "",
) -> Any:
    """Check a pickle, unpickle it, and return the object.

    If it must have a digest, or may make only trusted imports, all of it is checked first, and then it is opened again.
    """
    allowed = digests = None
    if trusted is not None or sha256 is not None:
        reading, found, digests = _read_through(opens)
        # Use what was read, not what was recorded: an attacker could have forged the record.
        needs = replace(needs, imports=tuple(map(str, reading.imports)), troubles=reading.troubles, files={})
        if sha256 is not None:
            _refuse_other_digest(found, sha256)
        if trusted is not None:
            _refuse_strangers(reading, trusted, trust_command)
            allowed = reading.asked
    _refuse_missing(needs)
    with opens() as pieces:
        return _unpickle(pieces if digests is None else _compare_digests(pieces, digests), needs, allowed)


def _read_through(opens: Opens) -> tuple[opcodes.Reading, str, list[bytes]]:
    """Read a whole pickle; return its imports, its digest, and the digest of each piece.

    The digests stored in the file are not sufficient: an attacker could have forged them.
    """
    reader, whole, digests = opcodes.Reader(), hashlib.sha256(), []
    with opens() as pieces:
        for piece in pieces:
            reader.feed(piece)
            whole.update(piece)
            digests.append(hashlib.sha256(piece).digest())
    return reader.result(), whole.hexdigest(), digests


def _compare_digests(pieces: Iterator[memoryview], digests: list[bytes]) -> Iterator[memoryview]:
    """Yield the pieces of the second pass, each after checking that it is the same as in the first."""
    for number, piece in enumerate(pieces):
        if digests[number : number + 1] != [hashlib.sha256(piece).digest()]:
            advice = "Find out who writes to this store, and why"
            raise DigestMismatchError("the pickle changed while being read", advice)
        yield piece


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that makes only the allowed imports."""

    def __init__(self, file: PickleReader, allowed: frozenset[Import]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise UntrustedModelError(f"the pickle imports {module}.{name}, which is not on the list")
        return super().find_class(module, name)


def _unpickle(pieces: Iterator[memoryview], needs: Needs, allowed: frozenset[Import] | None) -> Any:
    reader = PickleReader(pieces)
    unpickler = pickle.Unpickler(reader) if allowed is None else _RestrictedUnpickler(reader, allowed)
    try:
        return unpickler.load()
    except StorageError:
        raise
    except Exception as error:
        signals.let_through(error)
        raise ModelLoadError(
            "its bytes are intact, but unpickling them failed: "
            + ": ".join(filter(None, (type(error).__name__, str(error)))),
            _advise(_learn(needs, error)),
        ) from error


def _learn(needs: Needs, error: Exception) -> Needs:
    """Add to what was recorded of a pickle what the failure to unpickle it shows."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return replace(needs, imports=(*(needs.imports or ()), str(Import(error.name, "*"))))
    known = any(Trouble(trouble).kind is TroubleKind.BYTE_STRINGS for trouble in needs.troubles)
    # Python 3 writes byte strings in no protocol, and Python 2 has none above 2.
    if isinstance(error, UnicodeDecodeError) and not known and (needs.protocol or 0) <= 2:
        return replace(needs, troubles=(*needs.troubles, TroubleKind.BYTE_STRINGS.value))
    return needs


def _advise(needs: Needs) -> str:
    """Return how this machine differs from the one that stored a model."""
    packages.forget()
    verdict = loadability.verdict(needs)
    if not verdict.reasons and needs.python is None:
        return "The environment that created it was not recorded; ask whoever stored the model"
    if not verdict.reasons:
        return "This machine has everything that was recorded as needed; ask whoever stored the model"
    lines = [f"\n  {reason}" for reason in verdict.reasons]
    return f"Possible reasons:{''.join(lines)}" + (f"\nTry: {verdict.fix}" if verdict.fix else "")


def _refuse_missing(needs: Needs) -> None:
    missing = loadability.missing_modules(needs.modules)
    if not missing:
        return
    suppliers = loadability.suppliers(missing, needs)
    command = loadability.format_command(suppliers.values(), needs)
    advice = [f"Try: {command}"] if command else []
    if any(map(extra.supplies, missing)) and not extra.can_be_installed():
        advice.insert(0, extra.WHERE)
    files = {module: file for module in missing if module not in suppliers and (file := needs.find_file(module))}
    for module, file in files.items():
        advice.append(f"When stored, {module} came from {file}. Copy that here and add its folder to sys.path")
    if unknown := [module for module in missing if module not in {**suppliers, **files}]:
        package = f"The package that provides {', '.join(unknown)}"
        advice.append(f"{package} was not recorded; ask whoever stored the model")
    which = f"module {missing[0]}, which is" if len(missing) == 1 else f"modules {', '.join(missing)}, which are"
    raise ModelLoadError(f"it needs the {which} not installed here; nothing was loaded", ". ".join(advice))


def _refuse_other_digest(found: str, sha256: str) -> None:
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise DigestMismatchError(f"{sha256!r} is not a SHA-256 digest (64 hexadecimal digits)")
    if found != sha256.lower():
        raise DigestMismatchError(
            f"the SHA-256 of its bytes is {found}, not {sha256.lower()}; nothing was loaded",
            "It is a different model or was changed: ask whoever stored it",
        )


def _refuse_strangers(reading: opcodes.Reading, trusted: frozenset[Import], trust_command: str) -> None:
    reasons = [*map(str, reading.troubles)]
    if strangers := sorted(map(str, reading.imports - trusted)):
        more = ", ..." if strangers[MOST_NAMED:] else ""
        reasons.insert(0, f"it imports {', '.join(strangers[:MOST_NAMED])}{more}")
    if reasons:
        raise UntrustedModelError(
            f"the list of trusted imports does not cover it: {'; '.join(reasons)}; nothing was loaded",
            f"If you trust whoever stored it, run `{trust_command}`",
        )
