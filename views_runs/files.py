"""Write files safely: never over another file by accident, never visible half-written, never over the store."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from views_runs.exceptions import StorageError

#: The suffixes of the files that SQLite keeps beside a database; the last two only in WAL mode, which is not used here.
COMPANIONS = ("-journal", "-wal", "-shm")

#: The name prefix of files that are still being written; they are renamed when complete.
TEMPORARY = ".views_runs."


def companion(path: Path, ending: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database; except on Windows, SQLite first resolves links."""
    return Path((os.path.abspath if os.name == "nt" else os.path.realpath)(path) + ending)


def choose_target(
    file: str | os.PathLike[str] | None, name: str, store: Path, kind: type[StorageError], overwrite: bool | None = None
) -> Path:
    """Return the path of a file to write: `name`, if a folder or nothing is given.

    It must not be one of the store's own files. If the caller offers to replace files, `overwrite` is not None. Errors
    are of class `kind`.
    """
    trouble, advice = "", "Give another file"
    try:
        if file is not None and not os.fspath(file):
            raise ValueError("the file name is empty")
        path = Path("." if file is None else os.path.expanduser(file))
        path = path / name if path.is_dir() else path
        # On Windows, a name can have a short form too.
        own = {Path(os.path.realpath(companion(store, ending))) for ending in ("", *COMPANIONS)}
        if Path(os.path.realpath(path)) in own or is_same(path, store):
            trouble = "this is the store itself"
        elif path.exists() and not path.is_file():
            trouble = "this is not a regular file"
        elif path.is_symlink():
            # Replacing the link would leave the file it points to, and that file's journal, in place.
            trouble, advice = f"this is a link to {os.path.realpath(path)}", "Give that file itself, or another one"
        elif path.exists() and not overwrite:
            trouble = "the file already exists and was not changed"
            replace = "Remove it first" if overwrite is None else "Replace it with overwrite=True (--force)"
            advice = f"{replace}, or give another file"
        if trouble:
            raise kind(trouble, advice).locate(path=path.absolute())
    except (OSError, ValueError, TypeError) as error:
        raise kind(f"{file!r}: {getattr(error, 'strerror', None) or error}", "Give another file") from error
    return path


def make_folder(folder: str | os.PathLike[str], kind: type[StorageError]) -> Path:
    """Return the path of a folder, and create it if only it is missing: a missing folder above it may be a share."""
    path = Path(os.path.expanduser(folder))
    try:
        path.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        trouble = f"the folder cannot be created ({getattr(error, 'strerror', None) or error})"
        raise kind(trouble, "Give another folder").locate(path=path.absolute()) from error
    return path


def is_same(one: str | os.PathLike[str], other: Path) -> bool:
    """Return whether both paths refer to the same existing file."""
    try:
        return os.path.samefile(os.path.expanduser(one), other)
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def written(target: Path, kind: type[StorageError], overwrite: bool = False, tag: str = "") -> Iterator[Path]:
    """Yield the path of an empty temporary file beside the target; it is renamed to the target when the block ends.

    Its name contains `tag`. If it cannot be written, the error is of class `kind`, and the target is unchanged.
    """
    beside = target.with_name(f"{TEMPORARY}{tag or os.getpid()}.{os.urandom(8).hex()}")
    try:
        beside.touch(exist_ok=False)
        yield beside
        with beside.open("rb+") as file:
            sync(file.fileno())
        if overwrite:
            beside.replace(target)
        else:
            _link(beside, target)
        _sync_folder(target.absolute().parent)
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        trouble = getattr(error, "strerror", None) or str(error)
        # Windows replaces no file that is open.
        is_open = os.name == "nt" and isinstance(error, PermissionError) and target.exists()
        advice = "Close the program that has this file open, or give another file" if is_open else "Give another file"
        raise kind(trouble, advice).locate(path=target.absolute()) from error
    finally:
        remove(beside)


def sync(descriptor: int) -> None:
    """Write an open file or folder to the disk; on macOS, `os.fsync` alone leaves it in the disk's cache."""
    if sys.platform == "darwin":
        import fcntl

        # Not every volume knows it.
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def remove(file: Path) -> None:
    """Remove a file and anything that SQLite left beside it; ignore errors."""
    for ending in ("", *COMPANIONS):
        with suppress(OSError):
            file.with_name(file.name + ending).unlink(missing_ok=True)


def _link(beside: Path, target: Path) -> None:
    """Rename a file to its target, unless the target has been created in the meantime."""
    try:
        target.hardlink_to(beside)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no hard links.
        beside.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure; where a folder cannot be opened, as on Windows, the system does this."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
