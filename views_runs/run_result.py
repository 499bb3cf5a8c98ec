"""`RunResult`: train a `ViewsRun` and store it, or fetch it, as scripts of 1.x do."""

from datetime import date
from typing import TYPE_CHECKING

from views_runs.run import ViewsRun
from views_runs.validation import dataframe_is_right_format

if TYPE_CHECKING:
    from pandas import DataFrame
    from stepshift.views import StepshiftedModels
    from views_partitioning.data_partitioner import DataPartitioner
    from views_schema import ModelMetadata

    from views_runs.storage import Storage


class RunResult:
    """A run that was trained or fetched, with its metadata and its data.

    Attributes:
        run: the `ViewsRun`, fitted.
        metadata: its metadata, a ``views_schema.ModelMetadata``, with the date on which the run was trained.
        data: the DataFrame that was given.
        retrained: whether this call trained the run.
    """

    def __init__(
        self, views_run: ViewsRun, metadata: "ModelMetadata", data: "DataFrame", retrained: bool = False
    ) -> None:
        self.run = views_run
        self.metadata = metadata
        self.data = data
        self.retrained = retrained

    def __repr__(self) -> str:
        return f"RunResult(training_date = {self.metadata.training_date:%Y-%m-%d})"

    @classmethod
    def retrain_or_retrieve(
        cls,
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
    ) -> "RunResult":
        """Fetch the stored run if it matches this call; otherwise train and store a new one.

        Compares the author, the queryset, the first and last training month, and the steps. Logs whether and why it
        trains (logger ``views_runs``, level INFO). Before training, checks the data, the partition, and whether the
        store is writable.

        Args:
            store: where the run is stored.
            partitioner: a ``views_partitioning.DataPartitioner``.
            stepshifted_models: ``stepshift.views.StepshiftedModels``; they are fitted if the run has to be trained.
            dataset: a DataFrame as `ViewsRun` needs it.
            queryset_name: the queryset that the dataset is from.
            partition_name, timespan_name: what to train on.
            storage_name: the name of the run in the store.
            author_name: who trains it.
            retrain: always train; a stored version is kept as an earlier one.

        Raises:
            ValidationError, UnknownPartitionError: as for `ViewsRun.fit`; nothing was trained or stored.
            StorageError: the store cannot be read or written, as for `Storage.obtain`.
        """
        dataframe_is_right_format(dataset)
        run = ViewsRun(partitioner, stepshifted_models)
        metadata = run.create_model_metadata(author_name, queryset_name, partition_name, timespan_name)

        def train() -> ViewsRun:
            run.fit(partition_name, timespan_name, dataset)
            return run

        obtained = store.obtain(storage_name, train, metadata, retrain=retrain)
        stored = obtained.record.metadata
        trained_at = stored.training_date if stored is not None and not obtained.trained else None
        return cls(obtained.model, _dated(metadata, trained_at), dataset, obtained.trained)


def _dated(metadata: "ModelMetadata", training_date: date | str | None) -> "ModelMetadata":
    """Return metadata with another training date, in which alone that of a fetched run differs; None keeps it."""
    if training_date is None:
        return metadata
    return type(metadata)(**{**metadata.model_dump(), "training_date": training_date})
