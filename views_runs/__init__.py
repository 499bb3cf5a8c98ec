"""Store trained models with their metadata in one SQLite file, and fetch them instead of retraining."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# PEP 8 allows this to publish names; `__all__` below has all of them.
from views_runs.exceptions import *
from views_runs.version import __version__

if TYPE_CHECKING:
    from stepshift.views import StepshiftedModels
    from views_partitioning.data_partitioner import DataPartitioner

    from views_runs import operations, run, run_result, storage, validation
    from views_runs.metadata import Metadata, ModelMetadata, month
    from views_runs.pickles.loadability import Verdict
    from views_runs.records import (
        Backup,
        Damage,
        Deletion,
        Disposition,
        Event,
        Finding,
        Lifetime,
        ModelRecord,
        Obtained,
        RunModel,
        RunRecord,
        Verification,
    )
    from views_runs.run import ViewsRun
    from views_runs.runs import Run
    from views_runs.storage import Storage

__all__ = [
    "AliasNotFoundError",
    "Backup",
    "BackupError",
    "CorruptModelError",
    "Damage",
    "Deletion",
    "DigestMismatchError",
    "Disposition",
    "DownloadError",
    "Event",
    "Finding",
    "InvalidMetadataError",
    "InvalidNameError",
    "InvalidPathError",
    "Lifetime",
    "Metadata",
    "MetadataExistsError",
    "MetadataNotFoundError",
    "ModelExistsError",
    "ModelInUseError",
    "ModelLoadError",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelPickleError",
    "ModelRecord",
    "NotAStoreError",
    "Obtained",
    "OpenPermissionsError",
    "QueryError",
    "Run",
    "RunModel",
    "RunNotFoundError",
    "RunRecord",
    "Storage",
    "StorageError",
    "StoreAccessError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreFullError",
    "StoreNotFoundError",
    "StoreReadOnlyError",
    "UnsafeShareError",
    "UntrustedModelError",
    "UploadError",
    "UploadLostError",
    "Verdict",
    "Verification",
    "__version__",
    "month",
    "storage",
]


#: Modules that are imported when they are first asked for.
_MODULES = ("metadata", "names", "operations", "query", "records", "run", "run_result", "storage", "validation")

#: The modules of public names that are not in `storage`.
_HOMES = {
    "Run": "runs",
    "RunModel": "records",
    "Verdict": "pickles.loadability",
    "ViewsRun": "run",
    "month": "metadata",
}

#: What 1.x published too. Not in `__all__`: `from views_runs import *` has to work without the extra.
_OF_THE_EXTRA = {"DataPartitioner": "views_partitioning.data_partitioner", "StepshiftedModels": "stepshift.views"}


def __getattr__(name: str) -> Any:
    # Imported when it is first asked for: `viewser --help` does not need the library, and would take twice as long.
    if name in _MODULES:
        return import_module(f"views_runs.{name}")
    if name in _OF_THE_EXTRA:
        module = import_module("views_runs.extra").load(_OF_THE_EXTRA[name], f"views_runs.{name}")
    elif name in __all__ or name in _HOMES:
        module = import_module(f"views_runs.{_HOMES.get(name, 'storage')}")
    else:
        raise AttributeError(f"module 'views_runs' has no attribute {name!r}")
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
