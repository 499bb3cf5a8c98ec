"""Check that data has the form that ViEWS models need; used by `views_runs.run`, and imported by scripts of 1.x."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from views_runs.exceptions import StorageError
from views_runs.extra import load

pandas = load("pandas", "views_runs.validation")

P = ParamSpec("P")
R = TypeVar("R")


class ValidationError(StorageError, ValueError):
    """The data is not a DataFrame with an index of two levels and only float64 columns."""


class UnknownPartitionError(ValidationError, KeyError):
    """The partitioner has no such partition, or no such timespan in it."""


def dataframe_is_right_format(data: Any) -> None:
    """Raise a `ValidationError` if data is not a DataFrame with a two-level index and only float64 columns.

    >>> index = pandas.MultiIndex.from_tuples([(480, 57)], names=["month_id", "country_id"])
    >>> dataframe_is_right_format(pandas.DataFrame({"ged_sb": [1]}, index))
    Traceback (most recent call last):
    ...
    views_runs.validation.ValidationError: the column ged_sb is int64, not float64. Convert it with .astype("float64")
    """
    if not isinstance(data, pandas.DataFrame):
        raise ValidationError(f"the data must be a pandas DataFrame, not {type(data).__qualname__}")
    if data.index.nlevels != 2:
        levels = f"the index of the data has {data.index.nlevels} level{'s'[: data.index.nlevels != 1]}, not 2"
        raise ValidationError(levels, 'Set it as in .set_index(["month_id", "country_id"])')
    if not len(data.columns):
        raise ValidationError("the data has no columns")
    for column, kind in zip(data.columns, data.dtypes):
        if str(kind) != "float64":
            raise ValidationError(f"the column {column} is {kind}, not float64", 'Convert it with .astype("float64")')


def views_validate(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it checks its data, with `dataframe_is_right_format`, each time it is called.

    The data is the parameter named ``data``; if there is none, it is the last argument.

    >>> @views_validate
    ... def count(data):
    ...     return len(data)
    >>> count([1, 2])
    Traceback (most recent call last):
    ...
    views_runs.validation.ValidationError: the data must be a pandas DataFrame, not list
    """
    signature = inspect.signature(function)

    @wraps(function)
    def check_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        dataframe_is_right_format(given["data"] if "data" in given else [*args, *kwargs.values()][-1])
        return function(*args, **kwargs)

    return check_and_call
