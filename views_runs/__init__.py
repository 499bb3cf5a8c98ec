"""Store trained models with their metadata in one SQLite file, and fetch them instead of retraining."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from views_runs.exceptions import (
    BackupError,
    CorruptModelError,
    DigestMismatchError,
    DownloadError,
    InvalidMetadataError,
    InvalidNameError,
    InvalidPathError,
    MetadataExistsError,
    MetadataNotFoundError,
    ModelExistsError,
    ModelLoadError,
    ModelNotFoundError,
    ModelPickleError,
    NotAStoreError,
    OpenPermissionsError,
    QueryError,
    StorageError,
    StoreAccessError,
    StoreBusyError,
    StoreDamagedError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UntrustedModelError,
    UploadError,
    UploadLostError,
)
from views_runs.version import __version__

if TYPE_CHECKING:
    from views_runs import storage
    from views_runs.metadata import Metadata, ModelMetadata
    from views_runs.pickles.loadability import Verdict
    from views_runs.records import Backup, Damage, Finding, ModelRecord, Verification
    from views_runs.storage import Storage

__all__ = [
    "Backup",
    "BackupError",
    "CorruptModelError",
    "Damage",
    "DigestMismatchError",
    "DownloadError",
    "Finding",
    "InvalidMetadataError",
    "InvalidNameError",
    "InvalidPathError",
    "Metadata",
    "MetadataExistsError",
    "MetadataNotFoundError",
    "ModelExistsError",
    "ModelLoadError",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelPickleError",
    "ModelRecord",
    "NotAStoreError",
    "OpenPermissionsError",
    "QueryError",
    "Storage",
    "StorageError",
    "StoreAccessError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreFullError",
    "StoreNotFoundError",
    "StoreReadOnlyError",
    "UntrustedModelError",
    "UploadError",
    "UploadLostError",
    "Verdict",
    "Verification",
    "__version__",
    "storage",
]

#: What is imported when it is first asked for, and the module that has it: `viewser --help` needs none of it, and would
#: take twice as long.
_PLACES = {
    **dict.fromkeys(["Metadata", "ModelMetadata"], "metadata"),
    "Verdict": "pickles.loadability",
    **dict.fromkeys(["Backup", "Damage", "Finding", "ModelRecord", "Verification"], "records"),
    "Storage": "storage",
}

#: Modules that are attributes of the package without an import of their own.
_MODULES = ("metadata", "names", "query", "records", "storage")


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        globals()[name] = getattr(import_module(f"views_runs.{_PLACES[name]}"), name)
        return globals()[name]
    if name in _MODULES:
        return import_module(f"views_runs.{name}")
    raise AttributeError(f"module 'views_runs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
