"""Files written beside others: never over one by accident, never visible half written, never over the store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from views_runs.exceptions import StorageError

#: What SQLite keeps beside a database file; the last two only in a mode that is not used here.
COMPANIONS = ("-journal", "-wal", "-shm")

#: How the name of a file begins that is being written, and gets its own name when it is whole.
TEMPORARY = ".views_runs."


def companion(path: Path, ending: str) -> Path:
    """Return the file that SQLite keeps beside a database: it follows links first."""
    return Path(os.path.realpath(path) + ending)


def choose_target(
    file: str | os.PathLike[str] | None, name: str, store: Path, kind: type[StorageError], overwrite: bool = False
) -> Path:
    """Return where to write a file.

    Args:
        file: the file, or a folder for a file of this name in it; None for the current folder.
        name: of the file in a folder.
        store: the store, which must not be overwritten.
        kind: of the error.
        overwrite: replace an existing file.

    Raises:
        StorageError: of this kind; a file must not be written there.
    """
    try:
        if file is not None and not os.fspath(file):
            raise ValueError("a file name must not be empty")
        path = Path("." if file is None else os.path.expanduser(file))
        path = path / name if path.is_dir() else path
        _refuse_target(path, store, kind, overwrite)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, StorageError):
            raise
        raise kind(f"{file!r}: {getattr(error, 'strerror', None) or error}", "Give another file") from error
    return path


def _refuse_target(target: Path, store: Path, kind: type[StorageError], overwrite: bool) -> None:
    own = {os.path.realpath(store), *(str(companion(store, ending)) for ending in COMPANIONS)}
    trouble, advice = "", "Give another file"
    if os.path.realpath(target) in own or is_same(target, store):
        trouble = "this is the store itself"
    elif target.exists() and not target.is_file():
        trouble = "this is not a regular file"
    elif target.is_symlink():
        # Replacing it would leave the file that it leads to, and that one's journal, where they are.
        trouble, advice = f"this is a link to {os.path.realpath(target)}", "Give that file itself, or another one"
    elif target.exists() and not overwrite:
        trouble = "the file exists, and was not changed"
        advice = "Remove it first, or give another file"
    if trouble:
        raise kind(trouble, advice).locate(path=target.absolute())


def is_same(one: Path, other: Path) -> bool:
    """Return whether both paths lead to one file that exists."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


@contextmanager
def written(target: Path, kind: type[StorageError], overwrite: bool = False, tag: str = "") -> Iterator[Path]:
    """Yield the path of an empty file beside the target, which becomes the target when the block ends.

    Args:
        target: the file.
        kind: of the error.
        overwrite: replace an existing file.
        tag: something to recognise the file by while it is being written.

    Raises:
        StorageError: of this kind, when the system cannot write the file; the target is as it was.
    """
    beside = None
    try:
        beside = target.with_name(f"{TEMPORARY}{tag or os.getpid()}.{os.urandom(8).hex()}")
        beside.touch(exist_ok=False)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            beside.replace(target)
        else:
            _link(beside, target)
        _sync_folder(target.absolute().parent)
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", None) or str(error)
        raise kind(trouble, "Give another file").locate(path=target.absolute()) from error
    finally:
        if beside is not None:
            remove(beside)


def remove(file: Path) -> None:
    """Remove a file, and what SQLite may have left beside it, as far as that is possible."""
    for ending in ("", *COMPANIONS):
        with suppress(OSError):
            file.with_name(file.name + ending).unlink(missing_ok=True)


def _link(beside: Path, target: Path) -> None:
    """Give a file its name, unless another file has it by now."""
    try:
        target.hardlink_to(beside)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no hard links.
        beside.replace(target)


def _sync_folder(folder: Path) -> None:
    """Let a new name outlive a power failure; where a folder cannot be opened, as on Windows, the system does that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
