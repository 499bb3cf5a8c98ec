"""Store trained models with their metadata in one SQLite file, and fetch them instead of retraining."""

from views_runs import storage
from views_runs.exceptions import (
    CorruptModelError,
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
    QueryError,
    StorageError,
    StoreAccessError,
    StoreBusyError,
    StoreDamagedError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UploadLostError,
)
from views_runs.metadata import Metadata, ModelMetadata
from views_runs.records import ModelRecord
from views_runs.storage import Storage
from views_runs.version import __version__

__all__ = [
    "CorruptModelError",
    "DownloadError",
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
    "QueryError",
    "Storage",
    "StorageError",
    "StoreAccessError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreFullError",
    "StoreNotFoundError",
    "StoreReadOnlyError",
    "UploadLostError",
    "__version__",
    "storage",
]
