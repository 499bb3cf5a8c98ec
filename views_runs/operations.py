"""`retrain_or_retrieve` as a function, for scripts of 1.x; `views_runs.run_result` has what does it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from views_runs.run import ViewsRun
from views_runs.run_result import RunResult

if TYPE_CHECKING:
    from pandas import DataFrame
    from stepshift.views import StepshiftedModels
    from views_partitioning.data_partitioner import DataPartitioner

    from views_runs.storage import Storage


def retrain_or_retrieve(
    store: "Storage",
    partitioner: "DataPartitioner",
    stepshifted_models: "StepshiftedModels",
    dataset: "DataFrame",
    queryset_name: str,
    partition_name: str,
    storage_name: str,
    author_name: str,
    timespan_name: str = "train",
    retrain: bool = False,
    data_preprocessing: "Callable[[DataFrame], DataFrame] | None" = None,
) -> "tuple[ViewsRun, DataFrame]":
    """Do what `RunResult.retrain_or_retrieve` does, and return the run and the data.

    Args:
        data_preprocessing: changes the dataset before it is used; the other arguments are those of
            `RunResult.retrain_or_retrieve`.
    """
    result = RunResult.retrain_or_retrieve(
        store=store,
        partitioner=partitioner,
        stepshifted_models=stepshifted_models,
        dataset=dataset if data_preprocessing is None else data_preprocessing(dataset),
        queryset_name=queryset_name,
        partition_name=partition_name,
        storage_name=storage_name,
        author_name=author_name,
        timespan_name=timespan_name,
        retrain=retrain,
    )
    return result.run, result.data


def __getattr__(name: str) -> Any:
    if name == "hurdle_feature_importances":
        raise ImportError(f"views_runs 2 has no views_runs.operations.{name}; see `views-runs model guide migrating`")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
