"""The one family of errors that this package raises.

Every message names the store file, the model where there is one, and what to do next. The
command line prints the message and exits with 1.
"""

from typing import Any


class StorageError(Exception):
    """The base of every error that a store raises.

    >>> str(StorageError("cannot fetch 'm': models.db is not there"))
    "cannot fetch 'm': models.db is not there"
    """

    def __str__(self) -> str:
        # Children are KeyErrors or OSErrors too, which would put quotes or brackets around the text.
        return str(self.args[0]) if self.args else ""


class InvalidNameError(StorageError, ValueError):
    """A model cannot have this name."""


class InvalidMetadataError(StorageError, ValueError):
    """This metadata would not come back as it was given."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        #: Where in the metadata the trouble is, as Python would write it: ``history[0].when``.
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key)


class QueryError(StorageError, ValueError):
    """A condition on models cannot be read."""

    def __init__(self, message: str, condition: str = "", place: int = 0) -> None:
        super().__init__(message)
        #: What was written.
        self.condition = condition
        #: Where in it the trouble is: the index of a character.
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.condition, self.place)


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
