"""`ViewsRun`: step-shifted models with the partitions of their data, as scripts and pickles of 1.x use them.

It is not what `Storage` calls a run, which is a set of stored models.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from views_runs import extra
from views_runs.validation import UnknownPartitionError, ValidationError, views_validate

extra.require("views_runs.run")

if TYPE_CHECKING:
    from pandas import DataFrame
    from stepshift.views import StepshiftedModels
    from views_partitioning.data_partitioner import DataPartitioner
    from views_schema import ModelMetadata


class ViewsRun:
    """Models that predict several steps ahead, and a partitioner that cuts out the data to train and test them with.

    Data is a pandas DataFrame with an index of two levels, the views month and the unit, sorted by month, and with
    float64 columns only: the outcome and what it is predicted from. The model for step n predicts the outcome n months
    after a row. The timespans of the input data are therefore shifted left by the largest step, the extent.

    Args:
        partitioner: a ``views_partitioning.DataPartitioner``.
        models: ``stepshift.views.StepshiftedModels``.
    """

    # Pickles of 1.x have these three attributes, and 1.x reads them from pickles that are made here.
    _models: "StepshiftedModels"
    _partitioner: "DataPartitioner"
    _shifted_partitioner: "DataPartitioner"

    def __init__(self, partitioner: "DataPartitioner", models: "StepshiftedModels") -> None:
        self._models = models
        self._partitioner = partitioner
        self._shifted_partitioner = partitioner.shift_left(models._steps_extent)

    @property
    def models(self) -> dict[int, Any]:
        """The fitted models by their steps; empty before `fit`."""
        fitted: dict[int, Any] = self._models.models
        return fitted

    @property
    def steps(self) -> list[int]:
        """The steps of the fitted models, in months; empty before `fit`."""
        return list(self.models)

    @views_validate
    def fit(self, partition_name: str, timespan_name: str, data: "DataFrame") -> None:
        """Fit the models on a timespan of a partition, shifted left by the extent.

        Raises:
            ValidationError: the data is not as described for the class, or has no rows in these months.
            UnknownPartitionError: there is no such partition or timespan.
        """
        self._models.fit(_cut(self._shifted_partitioner, partition_name, timespan_name, data))

    @views_validate
    def predict(
        self, partition_name: str, timespan_name: str, data: "DataFrame", proba: bool = False
    ) -> "DataFrame":
        """Return the rows of a timespan, each with the predictions for its month, one for each step.

        Args:
            partition_name, timespan_name: the timespan to predict, not shifted.
            data: what to predict from; it must also have the months of the extent before the timespan.
            proba: predict the probability of class 1 rather than the outcome.

        Returns:
            The columns of the data, and a column ``step_pred_N`` for each step N; the index is that of the data.

        Raises:
            ValidationError, UnknownPartitionError: as for `fit`.
        """
        cut = _cut(self._shifted_partitioner, partition_name, timespan_name, data)
        predictions = self._predict(cut, combine=False, proba=proba)
        predictions.index.names = data.index.names
        joined = data.merge(predictions, how="left", left_index=True, right_index=True)
        return _cut(self._partitioner, partition_name, timespan_name, joined)

    @views_validate
    def future_predict(
        self,
        partition_name: str,
        timespan_name: str,
        data: "DataFrame",
        keep_specific: bool = False,
        proba: bool = False,
    ) -> "DataFrame":
        """Return the predictions for the months after the end of a timespan that is shifted left by the extent.

        Args:
            partition_name, timespan_name: the timespan whose data is predicted from, before it is shifted.
            data: what to predict from.
            keep_specific: also return the columns ``step_pred_N``, with what the model for each step predicts.
            proba: predict the probability of class 1 rather than the outcome.

        Returns:
            The column ``step_combined``: for the n-th month after the data, what the model for step n predicts, and NaN
            where there is none. The index is by month and unit.

        Raises:
            ValidationError, UnknownPartitionError: as for `fit`.
        """
        end = _find_timespan(self._shifted_partitioner, partition_name, timespan_name).end
        cut = _cut(self._shifted_partitioner, partition_name, timespan_name, data)
        predictions = self._predict(cut, combine=True, proba=proba).loc[end + 1 :]
        return predictions if keep_specific else predictions[["step_combined"]]

    @views_validate
    def future_point_predict(
        self, time: int, data: "DataFrame", keep_specific: bool = False, proba: bool = False
    ) -> "DataFrame":
        """Return the predictions for the months of the extent that follow a month.

        Args:
            time: the views month that is the last to be predicted from.
            data: what to predict from; only the months from ``time`` minus the extent to ``time`` are used.
            keep_specific, proba: as for `future_predict`.

        Returns:
            The columns of `future_predict`, by month and unit.

        Raises:
            ValidationError: the data is not as described for the class, or has no rows in these months.
        """
        extent = self._models._steps_extent
        recent = _refuse_empty(data.loc[time - extent : time], time - extent, time)
        predictions = self._predict(recent, combine=True, proba=proba).loc[time + 1 : time + extent]
        return predictions if keep_specific else predictions[["step_combined"]]

    def create_model_metadata(
        self,
        author: str,
        queryset_name: str,
        training_partition_name: str,
        training_timespan_name: str = "train",
        training_date: datetime | None = None,
    ) -> "ModelMetadata":
        """Return the metadata to store with the models, a ``views_schema.ModelMetadata``.

        Args:
            author: who trains the models.
            queryset_name: the queryset that the data is from.
            training_partition_name, training_timespan_name: what they are trained on; its first and its last month are
                recorded.
            training_date: when they are trained; defaults to now.

        Raises:
            UnknownPartitionError: there is no such partition or timespan.
        """
        from views_schema import ModelMetadata

        timespan = _find_timespan(self._partitioner, training_partition_name, training_timespan_name)
        return ModelMetadata(
            author=author,
            queryset_name=queryset_name,
            train_start=timespan.start,
            train_end=timespan.end,
            steps=self._models._steps,
            training_date=datetime.now() if training_date is None else training_date,
        )

    def _predict(self, data: "DataFrame", combine: bool, proba: bool) -> "DataFrame":
        predict = self._models.predict_proba if proba else self._models.predict
        return predict(data, combine=combine)


def _find_timespan(partitioner: "DataPartitioner", partition_name: str, timespan_name: str) -> Any:
    """Return the first and the last month of a timespan, as its attributes ``start`` and ``end``."""
    partitions = partitioner.partitions.partitions
    if partition_name not in partitions:
        known = ", ".join(partitions) or "none"
        raise UnknownPartitionError(f"there is no partition {partition_name!r}", f"The partitions are: {known}")
    timespans = partitions[partition_name].timespans
    if timespan_name not in timespans:
        trouble = f"there is no timespan {timespan_name!r} in the partition {partition_name!r}"
        raise UnknownPartitionError(trouble, f"Its timespans are: {', '.join(timespans) or 'none'}")
    return timespans[timespan_name]


def _cut(partitioner: "DataPartitioner", partition_name: str, timespan_name: str, data: "DataFrame") -> "DataFrame":
    """Return the rows of a timespan; if there are none, raise a clearer error than views-partitioning and stepshift."""
    timespan = _find_timespan(partitioner, partition_name, timespan_name)
    return _refuse_empty(partitioner(partition_name, timespan_name, data), timespan.start, timespan.end)


def _refuse_empty(data: "DataFrame", start: int, end: int) -> "DataFrame":
    if data.empty:
        raise ValidationError(
            f"the data has no rows in the months {start} to {end}", "The first level of its index must be the month"
        )
    return data
