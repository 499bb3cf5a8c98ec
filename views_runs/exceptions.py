"""The exceptions that this package raises, all derived from `StorageError`.

Every message names the store file, the model if one is involved, and what to do next. The command line prints the
message and exits with status 1.
"""

import os
from typing import Any, Self

from views_runs.texts import printable, printable_lines


class StorageError(Exception):
    """Base class of all exceptions that a store raises.

    Args:
        trouble: what is wrong, as a clause without a full stop.
        advice: what to do next, in sentences without the last full stop; may be empty.

    An open store fills in the operation and the file, with `locate`, when an exception leaves it.

    >>> error = StoreFullError("the disk is full", "Free some space and try again")
    >>> print(error.locate("store 'forest'", "models.db"))
    cannot store 'forest': models.db: the disk is full. Free some space and try again
    """

    def __init__(self, trouble: str = "", advice: str = "") -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.advice = advice
        #: The operation that failed, as in ``store 'forest'``; empty until known.
        self.operation = ""
        #: The file concerned; None until known.
        self.path: str | os.PathLike[str] | None = None

    def locate(self, operation: str = "", path: str | os.PathLike[str] | None = None) -> Self:
        """Set the operation and the file, unless they are already set, and return the error."""
        self.operation = self.operation or operation
        self.path = path if self.path is None else self.path
        return self

    def __str__(self) -> str:
        # Some subclasses are also KeyErrors or OSErrors, which would add quotes or brackets to the text. It can contain
        # what anyone wrote to the file, and is escaped here: the attributes remain as they are, for comparisons.
        where = f"cannot {self.operation}: " if self.operation else ""
        where += f"{os.fspath(self.path)}: " if self.path is not None else ""
        return printable(where) + printable_lines(self.trouble + (f". {self.advice}" if self.advice else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        # Process pools pickle exceptions; OSError's own __reduce__ would lose the attributes. The model that
        # `fetch_or_train` attaches stays behind: it may be large, or be what cannot be pickled.
        state = {name: value for name, value in self.__dict__.items() if name != "model"}
        return type(self), (self.trouble,), state


class InvalidNameError(StorageError, ValueError):
    """The name is not valid for a model."""


class InvalidMetadataError(StorageError, ValueError):
    """The metadata is invalid, or would not compare equal when fetched.

    Args:
        trouble, advice: as for `StorageError`.
        key: the location of the problem in the metadata, in Python notation: ``history[0].when``.
    """

    def __init__(self, trouble: str = "", key: str = "", advice: str = "") -> None:
        super().__init__(trouble, advice)
        self.key = key


class QueryError(StorageError, ValueError):
    """A search condition is invalid.

    Args:
        trouble, advice: as for `StorageError`.
        condition: the text of the condition.
        place: the index in it of the offending character.
    """

    def __init__(self, trouble: str = "", condition: str = "", place: int = 0, advice: str = "") -> None:
        super().__init__(trouble, advice)
        self.condition = condition
        self.place = place


class ModelExistsError(StorageError, FileExistsError):
    """A model with this name already exists, and ``overwrite=True`` was not given; ``record`` is that model's."""

    record: Any = None


class ModelNotFoundError(StorageError, KeyError):
    """The model, or this version of it, does not exist."""


class AliasNotFoundError(ModelNotFoundError):
    """The model has no such alias."""


class ModelInUseError(StorageError):
    """A version to delete has an alias, or another would become current, without permission; nothing was deleted."""


class RunNotFoundError(StorageError, KeyError):
    """There is no such run."""


class MetadataExistsError(StorageError, FileExistsError):
    """The model already has metadata, and ``overwrite=True`` was not given."""


class MetadataNotFoundError(StorageError, KeyError):
    """The model was stored without metadata."""


class ModelPickleError(StorageError):
    """The object cannot be pickled; ``__cause__`` is the original error."""


class ModelLoadError(StorageError):
    """The stored pickle cannot be loaded on this machine; ``__cause__``, if set, is the original error."""


class CorruptModelError(StorageError):
    """The model's bytes have changed since it was stored. Nothing after the damage was unpickled."""


class DownloadError(StorageError):
    """The pickle cannot be written to the requested file."""


class UntrustedModelError(StorageError):
    """The pickle would import something untrusted, or its imports cannot be determined; nothing was loaded."""


class DigestMismatchError(StorageError):
    """The pickle does not have the expected SHA-256 digest; nothing was loaded."""


class OpenPermissionsError(StorageError, PermissionError):
    """Everyone on the system can write to the store, and so run code as anyone who fetches from it."""


class UploadError(StorageError):
    """The file is not a pickle or cannot be read; nothing was stored."""


class BackupError(StorageError):
    """The backup cannot be written to the requested file."""


class InvalidPathError(StorageError, ValueError):
    """The path is not valid for a store."""


class StoreNotFoundError(StorageError, FileNotFoundError):
    """The store file or its folder does not exist."""


class NotAStoreError(StorageError):
    """The file is not a store, or was created by a newer version of this package."""


class StoreDamagedError(StorageError):
    """The store file is damaged."""


class StoreBusyError(StorageError, TimeoutError):
    """Another program kept the file locked for longer than ``timeout``."""


class StoreFullError(StorageError):
    """The disk is full; the existing models are intact."""


class StoreReadOnlyError(StorageError, PermissionError):
    """Permission to read or write the file, its journal or its folder was denied."""


class StoreAccessError(StorageError):
    """The operating system could not read or write the file."""


class UnsafeShareError(StoreReadOnlyError):
    """The file is on an SMB share, where writing would lose models or is not possible; nothing was changed."""


class UploadLostError(StorageError):
    """Storing made no progress for so long that another process took the parts for leftovers and removed them."""
