"""The objects that are stored: how each is made at a scale, and what it needs."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Object(NamedTuple):
    """A kind of object; at scale 1, its pickle has the size in its title.

    The first baseline is what the others are multiples of.
    """

    title: str
    make: Callable[[float], Any]
    package: str
    baselines: tuple[str, ...] = ("plain file",)
    #: How many there are in each store before one more is stored; these are small.
    before: int = 0


class Instance:
    """One of a million."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, str(number)


def random_rows(rows: int, columns: int) -> Any:
    import numpy

    return numpy.random.default_rng(1).random((rows, columns))


def make_forest(scale: float) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    rows = random_rows(40_000, 11)
    return RandomForestRegressor(at_least_one(80 * scale), n_jobs=2, random_state=1).fit(rows[:, 1:], rows[:, 0])


def make_xgboost(scale: float) -> Any:
    import xgboost

    rows = random_rows(20_000, 11)
    data = xgboost.DMatrix(rows[:, 1:], rows[:, 0])
    return xgboost.train({"max_depth": 8}, data, at_least_one(500 * scale))


def make_lightgbm(scale: float) -> Any:
    import lightgbm

    rows = random_rows(20_000, 11)
    parameters = {"num_leaves": 255, "verbose": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(rows[:, 1:], rows[:, 0]), at_least_one(500 * scale))


def make_statsmodels(scale: float) -> Any:
    import statsmodels.api

    rows = random_rows(100 + int(200_000 * scale), 11)
    return statsmodels.api.OLS(rows[:, 0], rows[:, 1:]).fit()


def make_dicts(scale: float) -> Any:
    count = at_least_one(1_000_000 * scale)
    return [{"id": number, "name": str(number), "values": [number, number / 2]} for number in range(count)]


def at_least_one(count: float) -> int:
    return max(1, round(count))


OBJECTS = {
    "forest": Object("a random forest", make_forest, "sklearn"),
    "float64": Object("an array of float64", lambda scale: random_rows(at_least_one(3_750_000 * scale), 10), "numpy"),
    "dicts": Object("many small dicts", make_dicts, ""),
    "instances": Object(
        "many instances of a class",
        lambda scale: [Instance(number) for number in range(at_least_one(1_000_000 * scale))],
        "",
    ),
    "xgboost": Object("an xgboost booster", make_xgboost, "xgboost"),
    "lightgbm": Object("a lightgbm booster", make_lightgbm, "lightgbm"),
    "statsmodels": Object("a statsmodels result", make_statsmodels, "statsmodels"),
    "small": Object(
        "one of {:,} models",
        lambda scale: {"coefficients": random_rows(1240, 1), "columns": ["x"]},
        "numpy",
        ("bare SQLite", "kept open", "plain file"),
        10_000,
    ),
}


def make(name: str, scale: float, folder: str) -> int:
    """Leave the pickles of an object, and of a tiny one of its kind, in a folder; return the bytes of the first."""
    for size, path in ((0.0001, pickle_of(folder, f"tiny {name}")), (scale, pickle_of(folder, name))):
        with path.open("wb") as file:
            pickle.dump(OBJECTS[name].make(size), file, 5)
    return path.stat().st_size


def pickle_of(folder: str, name: str) -> Path:
    return Path(folder, f"{name}.pickle")


def load(folder: str, name: str) -> Any:
    with pickle_of(folder, name).open("rb") as file:
        return pickle.load(file)
