"""A stand-in for the table of known fields in `metadata`: import the same names from there, and delete this module."""

from collections.abc import Mapping
from dataclasses import dataclass

TEXT, MONTH, MONTHS, TIME = "text", "month", "months", "time"


@dataclass(frozen=True)
class KnownField:
    """A known field of the metadata, its option on the command line, and its column in a list of models."""

    name: str
    kind: str
    help: str
    option: str | None = None
    column: str | None = None


KNOWN_FIELDS: Mapping[str, KnownField] = {
    field.name: field
    for field in (
        KnownField("author", TEXT, "who trained the model", "--author", "author"),
        KnownField("run_id", TEXT, "the run that the model was trained for", "--run-id", "run"),
        KnownField("queryset_name", TEXT, "the queryset of the training data", "--queryset"),
        KnownField("level_of_analysis", TEXT, "what a row of the data is", "--loa", "level of analysis"),
        KnownField("outcome", TEXT, "what is predicted", "--outcome"),
        KnownField("train_start", MONTH, "the first month of the training data", "--train-start"),
        KnownField("train_end", MONTH, "the last month of the training data", "--train-end"),
        KnownField("training_date", TIME, "when the model was trained", "--training-date", "trained"),
        KnownField("steps", MONTHS, "how many months ahead the model predicts", "--step"),
    )
}
