"""The user's own list of what stored models may import: in the user's folder, never in the file that others write."""

import os
import shlex
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from views_runs import files
from views_runs.pickles import packages
from views_runs.exceptions import StorageError, UntrustedModelError
from views_runs.pickles.opcodes import Import
from views_runs.records import ModelRecord


def path() -> Path:
    """Return the file with the list.

    Raises:
        StorageError: there is no home folder.
    """
    from platformdirs import user_config_path

    try:
        return user_config_path("views_runs", appauthor=False) / "trusted.txt"
    except RuntimeError as error:
        raise StorageError("there is no home folder that could hold the list of what you trust: set HOME") from error


def listed() -> frozenset[Import]:
    """Return what is on the list; nothing when there is none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        _refuse_open(path())
        return parsed(line.strip() for line in _lines() if line.strip() and not line.lstrip().startswith("#"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the list of what you trust, {path()}: {error}") from error


def parsed(entries: Iterable[str]) -> frozenset[Import]:
    """Return the imports that these texts name, each ``module.name``, or ``module:name`` if the name has dots.

    Raises:
        ValueError: one names none.
    """
    found = {entry: Import.parse(entry) for entry in ([entries] if isinstance(entries, str) else entries)}
    wrong = [entry for entry, one in found.items() if not one.module or not one.name or "*" in entry]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r} is no import: write module.name, as in sklearn.svm._classes.SVC; there is no * for several"
        )
    return frozenset(found.values())


def _refuse_open(file: Path) -> None:
    """Refuse a list that everyone may change."""
    for place in (file, file.parent):
        if os.name == "posix" and place.exists() and place.stat().st_mode & stat.S_IWOTH:
            raise ValueError(f"everyone on this system may write {place}: chmod o-w {shlex.quote(str(place))}")


def as_installed(record: ModelRecord) -> ModelRecord:
    """Return a record with the distributions that supply its imports here, whatever the store says of them."""
    modules = {Import.parse(text).module.split(".")[0] for text in record.imports or ()}
    suppliers = packages.suppliers(modules)
    return replace(record, suppliers=suppliers, packages=packages.versions(suppliers.values()))


def add_all(record: ModelRecord) -> list[Import]:
    """Put what a model imports on the list, and return what was not on it.

    Args:
        record: of `Storage.inspect`, which has read the pickle's bytes.

    Raises:
        UntrustedModelError: it cannot be told what it imports.
        StorageError: as `add`.
    """
    if record.troubles or record.imports is None:
        raise UntrustedModelError(
            f"cannot trust {record.name!r}: it cannot be told all that it imports: {'; '.join(record.troubles)}. Pin it "
            f"instead, if you trust whoever stored it, where no list is in force: fetch({record.name!r}, "
            f"sha256={record.sha256!r})"
        )
    return add(map(Import.parse, record.imports))


def add(imports: Iterable[Import]) -> list[Import]:
    """Put imports on the list, and return those that were not on it.

    Raises:
        StorageError: it cannot be written, or one of them cannot be written in a line.
    """
    doing = "change the list of what you trust"
    new = sorted(set(imports) - listed())
    odd = [one for one in new if not _fits_a_line(one)]
    if odd:
        raise StorageError(f"cannot {doing}: no honest model imports {str(odd[0])!r}. Ask who stored it")
    if new:
        file = path()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [*_lines(), *map(str, new)]
        except OSError as error:
            raise StorageError(f"cannot {doing}: {file}: {error.strerror}") from error
        with files.written(file, StorageError, overwrite=True) as beside:
            beside.write_text("\n".join(lines) + "\n", "utf-8")
    return new


def _fits_a_line(one: Import) -> bool:
    """Whether an import that is written in a line of the list is read from it again."""
    line = str(one)
    try:
        return line == line.strip() and not line.startswith("#") and parsed([line]) == {one}
    except ValueError:
        return False


def _lines() -> list[str]:
    try:
        return path().read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


def is_asked_for(variable: str) -> bool:
    """Whether an environment variable is set to something that does not mean no."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")
