"""Store trained models with their metadata in one SQLite file, and fetch them instead of retraining."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# PEP 8 allows this to publish names; `__all__` below has all of them.
from views_runs.exceptions import *
from views_runs.version import __version__

if TYPE_CHECKING:
    from views_runs import storage
    from views_runs.metadata import Metadata, ModelMetadata
    from views_runs.pickles.loadability import Verdict
    from views_runs.records import Backup, Damage, Finding, ModelRecord, Obtained, Verification
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
    "Obtained",
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


def __getattr__(name: str) -> Any:
    # Imported when it is first asked for: `viewser --help` does not need the library, and would take twice as long.
    if name in ("metadata", "names", "query", "records", "storage"):
        return import_module(f"views_runs.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'views_runs' has no attribute {name!r}")
    globals()[name] = getattr(import_module("views_runs.storage"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
