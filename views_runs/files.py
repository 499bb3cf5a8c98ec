"""Files that are written beside others: never over one by accident, never seen half, never over the store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from views_runs.exceptions import StorageError

#: What lies beside a database file and belongs to it; the last two only in a mode that is not used here.
COMPANIONS = ("-journal", "-wal", "-shm")


def companion(path: Path, ending: str) -> Path:
    """Return the file that SQLite keeps beside a database: it follows links first."""
    return Path(os.path.realpath(path) + ending)


def target(
    file: str | os.PathLike[str] | None, name: str, store: Path, overwrite: bool, kind: type[StorageError], doing: str
) -> Path:
    """Return where to write a file.

    Args:
        file: where to; a folder, for a file in it; None for the current folder.
        name: of the file in a folder.
        store: what must not be written over.
        overwrite: replace a file that is there.

    Raises:
        StorageError: of this kind, when a file must not be written there.
    """
    try:
        if file is not None and not os.fspath(file):
            raise ValueError("that is no file's name")
        path = Path("." if file is None else os.path.expanduser(file))
        path = path / name if path.is_dir() else path
        trouble = _trouble(path, store, overwrite)
    except (OSError, ValueError, TypeError) as error:
        raise kind(
            f"cannot {doing}: {file!r}: {getattr(error, 'strerror', None) or error}. Give another file"
        ) from error
    if trouble:
        raise kind(f"cannot {doing}: {path.absolute()}: {trouble}")
    return path


def _trouble(target: Path, store: Path, overwrite: bool) -> str:
    own = {os.path.realpath(store), *(str(companion(store, ending)) for ending in COMPANIONS)}
    if os.path.realpath(target) in own or _same(target, store):
        return "that is the store itself: give another file"
    if target.exists() and not target.is_file():
        return "that is not a regular file: give another one"
    if target.is_symlink():
        # To replace it would leave what it leads to, and its journal, where they are.
        return f"that is a link to {os.path.realpath(target)}: give that file itself, or another"
    if target.exists() and not overwrite:
        return "there is such a file, and it was kept. Give another name, or overwrite=True (--force) to replace it"
    return ""


@contextmanager
def written(target: Path, overwrite: bool, kind: type[StorageError], doing: str) -> Iterator[Path]:
    """Yield the path of an empty file beside the target, to be written, that becomes the target when the block ends.

    Raises:
        StorageError: of this kind, when the system cannot write it; the target is as it was.
    """
    beside = None
    try:
        beside = target.with_name(f".views_runs.{os.getpid()}.{os.urandom(8).hex()}")
        beside.touch(exist_ok=False)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            beside.replace(target)
        else:
            _put(beside, target)
        _remember_name(target)
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", None) or error
        raise kind(f"cannot {doing}: {target.absolute()}: {trouble}. Give another file") from error
    finally:
        if beside is not None:
            for ending in ("", *COMPANIONS):
                with suppress(OSError):
                    beside.with_name(beside.name + ending).unlink(missing_ok=True)


def _put(beside: Path, target: Path) -> None:
    """Give a file its name, unless there is one of that name by now."""
    try:
        target.hardlink_to(beside)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no hard links.
        beside.replace(target)


def _remember_name(target: Path) -> None:
    """Let a new name outlive a power failure; where a folder cannot be opened, as on Windows, the system sees to it."""
    with suppress(OSError):
        folder = os.open(target.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
