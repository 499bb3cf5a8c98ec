"""The one family of errors that this package raises.

Every message names the store file, the model where there is one, and what to do next. The
command line prints the message and exits with 1.
"""

import os
from typing import Any, Self


class StorageError(Exception):
    """The base class of every error that a store raises.

    Args:
        trouble: what is wrong, as a clause without a full stop.
        advice: what to do next, as sentences without the last full stop; empty if there is nothing to say.

    The operation and the file are filled in by `locate`, once, where `Storage` opens the file.

    >>> error = StoreFullError("the disk is full", "Free some space and try again")
    >>> print(error.locate("store 'forest'", "models.db"))
    cannot store 'forest': models.db: the disk is full. Free some space and try again
    """

    def __init__(self, trouble: str = "", advice: str = "") -> None:
        super().__init__(trouble)
        #: What is wrong.
        self.trouble = trouble
        #: What to do next.
        self.advice = advice
        #: What could not be done, as in ``store 'forest'``; empty until it is known.
        self.operation = ""
        #: The file that this is about; None until it is known.
        self.path: str | os.PathLike[str] | None = None

    def locate(self, operation: str = "", path: str | os.PathLike[str] | None = None) -> Self:
        """Fill in the operation and the file, each unless that was done before; return the error."""
        self.operation = self.operation or operation
        self.path = path if self.path is None else self.path
        return self

    def __str__(self) -> str:
        # Subclasses are KeyErrors and OSErrors too, which would put quotes or brackets around the text.
        where = f"cannot {self.operation}: " if self.operation else ""
        where += f"{os.fspath(self.path)}: " if self.path is not None else ""
        return f"{where}{self.trouble}" + (f". {self.advice}" if self.advice else "")

    def __reduce__(self) -> tuple[Any, ...]:
        # A process pool sends errors as pickles; OSError's own way would lose the attributes.
        return type(self), (self.trouble,), self.__dict__


class InvalidNameError(StorageError, ValueError):
    """A model cannot have this name."""


class InvalidMetadataError(StorageError, ValueError):
    """This metadata would not come back equal to what was given.

    Args:
        trouble, advice: as for `StorageError`.
        key: where in the metadata the trouble is, as Python would write it: ``history[0].when``.
    """

    def __init__(self, trouble: str = "", key: str = "", advice: str = "") -> None:
        super().__init__(trouble, advice)
        #: Where in the metadata the trouble is.
        self.key = key


class QueryError(StorageError, ValueError):
    """A condition on models is invalid.

    Args:
        trouble, advice: as for `StorageError`.
        condition: what was written.
        place: the index of the character in it where the trouble is.
    """

    def __init__(self, trouble: str = "", condition: str = "", place: int = 0, advice: str = "") -> None:
        super().__init__(trouble, advice)
        #: What was written.
        self.condition = condition
        #: The index of the character where the trouble is.
        self.place = place


class ModelExistsError(StorageError, FileExistsError):
    """A model of this name is there, and ``overwrite=True`` was not given."""


class ModelNotFoundError(StorageError, KeyError):
    """There is no model, or no version of it, with this name."""


class MetadataExistsError(StorageError, FileExistsError):
    """The model has metadata, and ``overwrite=True`` was not given."""


class MetadataNotFoundError(StorageError, KeyError):
    """The model was stored without metadata."""


class ModelPickleError(StorageError):
    """The object cannot be pickled; the error that says why is the cause of this one."""


class ModelLoadError(StorageError):
    """The stored pickle cannot be loaded here; the error that says why is the cause of this one."""


class CorruptModelError(StorageError):
    """The stored bytes are not those that were stored. Nothing from the damage on was unpickled."""


class DownloadError(StorageError):
    """The pickle cannot be written where it was asked to go."""


class UntrustedModelError(StorageError):
    """The stored pickle would import what is not on the list, or it cannot be told what; nothing was loaded."""


class DigestMismatchError(StorageError):
    """The bytes of the pickle are not those that were asked for; nothing was loaded."""


class OpenPermissionsError(StorageError, PermissionError):
    """Everyone on the system may write the store, and so run code as whoever fetches from it."""


class UploadError(StorageError):
    """The file is not a pickle, or cannot be read; nothing was stored."""


class BackupError(StorageError):
    """The store cannot be copied where the copy was asked to go."""


class InvalidPathError(StorageError, ValueError):
    """A store cannot be at this path."""


class StoreNotFoundError(StorageError, FileNotFoundError):
    """The store file, or its folder, is not there."""


class NotAStoreError(StorageError):
    """The file is something else than a store, or a store of a newer version of this package."""


class StoreDamagedError(StorageError):
    """SQLite finds that the file does not hold together."""


class StoreBusyError(StorageError, TimeoutError):
    """Another program kept the file locked for longer than ``timeout``."""


class StoreFullError(StorageError):
    """The disk is full; what was there is as it was."""


class StoreReadOnlyError(StorageError, PermissionError):
    """The file, its journal or its folder may not be written, or not be read."""


class StoreAccessError(StorageError):
    """The operating system failed to read or write the file."""


class UploadLostError(StorageError):
    """A store was silent for so long that its parts were taken for leftovers and cleared."""
