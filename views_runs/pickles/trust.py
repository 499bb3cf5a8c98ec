"""The user's own list of trusted imports: in the user's folder, never in the file that others can write to."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from views_runs import files
from views_runs.exceptions import StorageError, UntrustedModelError
from views_runs.pickles import packages, permissions
from views_runs.pickles.opcodes import Import
from views_runs.records import ModelRecord


def path() -> Path:
    """Return the path of the list."""
    from platformdirs import user_config_path

    try:
        return user_config_path("views_runs", appauthor=False) / "trusted.txt"
    except RuntimeError as error:
        raise StorageError("there is no home folder for the list of trusted imports", "Set HOME") from error


def listed() -> frozenset[Import]:
    """Return the imports on the list; none if the file does not exist."""
    file = path()
    try:
        for place, advice in permissions.open_to_everyone(file, "Move the list to a folder of your own"):
            trouble = f"everyone on this system can write to {place}, and so change this list"
            raise StorageError(trouble, advice).locate(path=file)
        return _parse_lines(_read_lines(file))
    except (OSError, ValueError) as error:
        trouble = f"the list of trusted imports cannot be read: {getattr(error, 'strerror', None) or error}"
        raise StorageError(trouble, "Correct or remove this file").locate(path=file) from error


def parsed(entries: Iterable[str]) -> frozenset[Import]:
    """Parse imports, each given as ``module.name``, or ``module:name`` if the name has dots.

    Raises:
        ValueError: an entry is not an import.
    """
    found = {entry: Import.parse(entry) for entry in ([entries] if isinstance(entries, str) else entries)}
    for entry, one in found.items():
        if not one.module or not one.name or "*" in entry:
            use = "use module.name, as in sklearn.svm._classes.SVC; wildcards are not supported"
            raise ValueError(f"{entry!r} is not an import: {use}")
    return frozenset(found.values())


def find_allowed(trusted: Iterable[str] | Literal[True], only_own: bool) -> frozenset[Import]:
    """Return the imports that a fetch may make.

    Args:
        trusted: imports, or True for the user's own list.
        only_own: restrict it to the user's own list too.

    Raises:
        UntrustedModelError: one of the imports is invalid.
        StorageError: the list cannot be read.
    """
    if trusted is True:
        return listed()
    try:
        allowed = parsed(trusted)
    except (ValueError, TypeError, AttributeError) as error:
        raise UntrustedModelError(f"the list of trusted imports is invalid: {error}") from error
    return allowed & listed() if only_own else allowed


def as_installed(record: ModelRecord) -> ModelRecord:
    """Return a record with the distributions that supply its imports on this machine instead of those recorded."""
    suppliers = packages.suppliers(record.needs().modules)
    return replace(record, suppliers=suppliers, packages=packages.versions(suppliers.values()))


def add_all(record: ModelRecord) -> list[Import]:
    """Add the imports in a record from `Storage.inspect` to the list, and return those that are new."""
    if record.troubles or record.imports is None:
        raise UntrustedModelError(
            f"its imports cannot be determined completely: {'; '.join(record.troubles) or 'they were not recorded'}",
            "If you trust its author, pin it by digest instead (not possible with VIEWS_RUNS_TRUSTED_ONLY): "
            f"fetch({record.name!r}, sha256={record.sha256!r})",
        ).locate(f"trust {record.name!r}")
    return add(map(Import.parse, record.imports))


def add(imports: Iterable[Import]) -> list[Import]:
    """Add imports to the list, and return those that are new."""
    file, operation = path(), "change the list of trusted imports"
    try:
        new = sorted(set(imports) - listed())
        for one in new:
            with suppress(ValueError):
                if _parse_lines([str(one)]) == {one}:
                    continue
            trouble = f"the import {str(one)!r} cannot be written to the list and looks forged"
            raise StorageError(trouble, "Ask whoever stored the model")
        if new:
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [*_read_lines(file), *map(str, new)]
            with files.written(file, StorageError, overwrite=True) as beside:
                beside.write_text("\n".join(lines) + "\n", "utf-8")
    except StorageError as error:
        raise error.locate(operation, file)
    except OSError as error:
        raise StorageError(error.strerror or str(error), "Check this path").locate(operation, file) from error
    return new


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


def _parse_lines(lines: Iterable[str]) -> frozenset[Import]:
    entries = map(str.strip, lines)
    return parsed(entry for entry in entries if entry and not entry.startswith("#"))
