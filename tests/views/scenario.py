"""Runs of the views_runs that is imported, whichever it is: `python scenario.py FOLDER [OTHER]`.

It trains runs, and writes each as FOLDER/NAME.pickle, and all that they predict as FOLDER/made.pickle. With OTHER, it
also loads the runs in that folder, and writes what these predict as FOLDER/loaded.pickle.

1.14 imports `viewser` for its storage, which is not used here, and which brings a hundred packages: there is a stand-in
where it is not installed.
"""

import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

PARTITIONS = {"one": {"train": (101, 130), "test": (131, 150)}}
STEPS = [1, 3, 6]
CLASSIFIERS = {
    "linear": LinearRegression(),
    "forest": RandomForestRegressor(5, random_state=1),
    "logistic": LogisticRegression(),
}


class StandIn(ModuleType):
    """A module in which every name is there."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Return a class that has nothing in it."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__getattr__": lambda self, name: self, "get": staticmethod(lambda *given: "")})


class Finder:
    """Finds stand-ins for what only the storage of 1.x needs."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find the packages that are not installed."""
        needed = name.split(".")[0] in ("viewser", "views_storage")
        return ModuleSpec(name, self, is_package=True) if needed else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make one."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def datasets(kind: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield data of different shapes, with a name for each; all shapes for one kind of model only."""
    index = pd.MultiIndex.from_product([range(100, 161), range(1, 6)], names=["month_id", "country_id"])
    data = pd.DataFrame(np.random.default_rng(1).random((len(index), 3)), index=index, columns=["y", "a", "b"])
    if kind == "logistic":
        data = data.assign(y=(data.y > 0.5).astype(float))
    yield "full", data
    if kind != "linear":
        return
    yield "with holes", data.drop(index=[(131, 1), (150, 3), (120, 4), *((month, 2) for month in range(140, 161))])
    yield "ends early", data.loc[:146]
    yield "other names", data.rename_axis(["time", "unit"])
    yield "no names", data.rename_axis([None, None])
    yield "has the column", data.assign(step_pred_1=1.0)


def attempt(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or None if it raises an exception."""
    try:
        return call()
    except Exception:
        return None


def predictions(run: Any, data: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield all that a run predicts, with a name for each."""
    for proba in False, True:
        for span in "train", "test":
            yield f"predict {span} {proba}", attempt(lambda: run.predict("one", span, data, proba=proba))
        for keep in False, True:
            options = {"keep_specific": keep, "proba": proba}
            yield f"future {options}", attempt(lambda: run.future_predict("one", "test", data, **options))
            for time in 103, 150, 163, 190:
                yield f"point {time} {options}", attempt(lambda: run.future_point_predict(time, data, **options))


def make(folder: Path) -> dict[str, Any]:
    """Train runs, write each to a file, and return what they predict."""
    from views_runs import DataPartitioner, StepshiftedModels, ViewsRun

    found: dict[str, Any] = {}
    for kind, classifier in CLASSIFIERS.items():
        for name, data in datasets(kind):
            run = ViewsRun(DataPartitioner(PARTITIONS), StepshiftedModels(classifier, STEPS, "y"))
            run.fit("one", "train", data)
            found |= {f"{kind}, {name}: {what}": value for what, value in predictions(run, data)}
            if name == "full":
                (folder / f"{kind}.pickle").write_bytes(pickle.dumps(run))
                known = run.create_model_metadata("ines", "fatalities", "one").model_dump(exclude={"training_date"})
                found[f"{kind}: metadata"] = known
                found[f"{kind}: steps"] = (run.steps, [*run.models], sorted(vars(run)))
    return found


def load(folder: Path) -> dict[str, Any]:
    """Load the runs in a folder, and return what they predict from all data."""
    found: dict[str, Any] = {}
    for kind in CLASSIFIERS:
        run, data = pickle.loads((folder / f"{kind}.pickle").read_bytes()), dict(datasets(kind))["full"]
        found |= {f"{kind}, full: {what}": value for what, value in predictions(run, data)}
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.meta_path.append(Finder())  # type: ignore[arg-type]
    here, *others = map(Path, sys.argv[1:])
    here.mkdir()
    (here / "made.pickle").write_bytes(pickle.dumps(make(here)))
    for other in others:
        (here / "loaded.pickle").write_bytes(pickle.dumps(load(other)))
    import views_runs

    print(views_runs.__file__)
