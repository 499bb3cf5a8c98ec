"""Scripts and pickles of 1.x, with the packages of the extra; tests/slow/test_views.py runs this where they are.

``$COMPARED`` is a folder with what scenario.py wrote here (``here``), and beside the real 1.14 (``real``).
"""

import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import views_schema
from sklearn.linear_model import LinearRegression

import views_runs
from views_runs import (
    DataPartitioner,
    ModelLoadError,
    StepshiftedModels,
    Storage,
    StorageError,
    StoreReadOnlyError,
    ViewsRun,
    operations,
)
from views_runs.run_result import RunResult
from views_runs.validation import UnknownPartitionError, ValidationError

COMPARED = Path(os.environ["COMPARED"])
SCENARIO = runpy.run_path(str(Path(__file__).with_name("scenario.py")))
KINDS = ["linear", "forest", "logistic"]
DATA = dict(SCENARIO["datasets"]("linear"))["full"]


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    """A store that is empty."""
    return Storage(tmp_path / "models.db")


def models(steps: list[int] = [1, 3]) -> Any:
    """Return models that are not fitted."""
    return StepshiftedModels(LinearRegression(), steps, "y")


def arguments(store: Storage, **changes: Any) -> dict[str, Any]:
    """Return what scripts call `retrain_or_retrieve` with."""
    return {
        "retrain": False,
        "store": store,
        "partitioner": views_runs.DataPartitioner(SCENARIO["PARTITIONS"]),
        "stepshifted_models": models(),
        "dataset": DATA,
        "queryset_name": "fatalities",
        "partition_name": "one",
        "timespan_name": "train",
        "storage_name": "forest",
        "author_name": "ines",
        **changes,
    }


def written(name: str) -> dict[str, Any]:
    """Return what scenario.py wrote."""
    found: dict[str, Any] = pickle.loads((COMPARED / f"{name}.pickle").read_bytes())
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare what was predicted, to the last bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(found[name], value, check_exact=True, obj=name)
        else:
            assert found[name] == value, name


def viewser(store: Storage, *line: str, code: int = 0) -> str:
    """Run a command on the store, and return what it prints."""
    command = [sys.executable, "-m", "views_runs", "--store", str(store.path), "model", *line]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_this_package_is_what_is_installed() -> None:
    """What the extra installs does not bring the views_runs that PyPI has."""
    assert metadata.version("views_runs") == views_runs.__version__ and views_runs.__version__[0] == "2"


def test_predictions_are_those_of_1x() -> None:
    """Each method returns what the real one returns, or both raise an exception."""
    found = written("here/made")
    assert sum(isinstance(value, pd.DataFrame) for value in found.values()) > 80
    assert_same(found, written("real/made"))


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_of_1x(kind: str, store: Storage) -> None:
    """A pickle that the real one made can be uploaded, checked and fetched, and predicts what it predicted there."""
    viewser(store, "upload", str(COMPARED / "real" / f"{kind}.pickle"), "old")
    [checked] = json.loads(viewser(store, "check", "old", "--json"))
    # Such a pickle does not say which versions of pandas and stepshift it was created with.
    assert checked["verdict"] == "may not load" and "created with unknown versions of" in str(checked["reasons"])
    run = store.fetch("old")
    assert type(run) is ViewsRun
    data = dict(SCENARIO["datasets"](kind))["full"]
    found = {f"{kind}, full: {what}": value for what, value in SCENARIO["predictions"](run, data)}
    assert_same(found, {name: value for name, value in written("real/made").items() if name in found})


def test_model_that_was_moved_is_not_trained_again(store: Storage) -> None:
    """Uploaded with its metadata as JSON, as the guide does it, a run of 1.x is fetched, with its own date."""
    trained = datetime(2024, 5, 1, 8, 30)
    run = ViewsRun(DataPartitioner(SCENARIO["PARTITIONS"]), models(SCENARIO["STEPS"]))
    known = run.create_model_metadata("ines", "fatalities", "one", training_date=trained).model_dump_json()
    store.upload(COMPARED / "real" / "linear.pickle", "forest", json.loads(known))
    result = RunResult.retrain_or_retrieve(**arguments(store, stepshifted_models=models(SCENARIO["STEPS"])))
    assert (result.retrained, result.metadata.training_date) == (False, trained)
    assert repr(result) == "RunResult(training_date = 2024-05-01)"


def test_pickles_made_here_load_in_1x() -> None:
    """In the real one, they predict what they predicted here."""
    made = written("here/made")
    loaded = written("real/loaded")
    assert len(loaded) > 40
    assert_same(loaded, {name: made[name] for name in loaded})


def test_run_result_trains_once(store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """Only what would have been trained otherwise is trained again; the log says why."""
    caplog.set_level("INFO")
    first, second = (RunResult.retrain_or_retrieve(**arguments(store)) for _ in range(2))
    assert (first.retrained, second.retrained) == (True, False)
    assert first.data is DATA and type(second.run) is ViewsRun and second.run is not first.run
    pd.testing.assert_frame_equal(first.run.predict("one", "test", DATA), second.run.predict("one", "test", DATA))
    # When it was trained, not when it was fetched.
    assert second.metadata == first.metadata == store.fetch_metadata("forest")
    assert RunResult.retrain_or_retrieve(**arguments(store, retrain=True)).retrained
    for changes in {"author_name": "zoe"}, {"queryset_name": "other"}, {"stepshifted_models": models([1, 2])}:
        assert RunResult.retrain_or_retrieve(**arguments(store, **changes)).retrained
    assert RunResult.retrain_or_retrieve(**arguments(store, timespan_name="test")).retrained
    assert len(store.versions("forest")) == 6
    assert "training forest: author ines -> zoe" in caplog.text


def test_nothing_is_printed(store: Storage, capfd: pytest.CaptureFixture[str]) -> None:
    """1.x printed what it did."""
    RunResult.retrain_or_retrieve(**arguments(store))
    assert capfd.readouterr().out == ""


def test_operations(store: Storage) -> None:
    """The function returns the run and the data; it may change the data before."""
    run, data = operations.retrain_or_retrieve(**arguments(store))
    assert type(run) is ViewsRun and data is DATA
    _, changed = operations.retrain_or_retrieve(**arguments(store), data_preprocessing=lambda data: data * 2)
    pd.testing.assert_frame_equal(changed, DATA * 2)


def test_what_operations_has_no_longer() -> None:
    """Importing it says so; what never was there is no attribute."""
    with pytest.raises(ImportError, match="views_runs 2 has no views_runs.operations.hurdle_feature_importances"):
        exec("from views_runs.operations import hurdle_feature_importances")
    assert not hasattr(operations, "nothing")


def test_metadata_of_views_schema(store: Storage) -> None:
    """What was stored equals what is fetched, in either order."""
    known = views_schema.ModelMetadata(
        author="ines", queryset_name="q", train_start=1, train_end=2, steps=[1], training_date=datetime.now()
    )
    store.store("forest", 1, known)
    assert known == store.fetch_metadata("forest") and store.fetch_metadata("forest") == known
    assert store.exists_with_metadata("forest", known)


BAD = {
    "not a DataFrame": ([1], "must be a pandas DataFrame, not list"),
    "one level": (DATA.reset_index(level=1, drop=True), "has 1 level, not 2"),
    "integers": (DATA.assign(a=1), "the column a is int64, not float64"),
    "another month": (DATA.loc[:99], "no rows in the months"),
}


@pytest.mark.parametrize("data, trouble", BAD.values(), ids=BAD)
def test_bad_data(data: Any, trouble: str, store: Storage) -> None:
    """Each method refuses it, and nothing is stored."""
    run = ViewsRun(DataPartitioner(SCENARIO["PARTITIONS"]), models())
    run.fit("one", "train", DATA)
    for call in (
        lambda: run.fit("one", "train", data),
        lambda: run.predict("one", "test", data),
        lambda: run.predict(partition_name="one", timespan_name="test", data=data, proba=False),
        lambda: run.future_predict("one", "test", data, True),
        lambda: run.future_point_predict(150, data, True),
        lambda: RunResult.retrain_or_retrieve(**arguments(store, dataset=data)),
    ):
        with pytest.raises(ValidationError, match=trouble):
            call()
    assert store.list() == []


def test_missing_partition(store: Storage) -> None:
    """The error names what there is; it is the KeyError that 1.x raised."""
    run = ViewsRun(DataPartitioner(SCENARIO["PARTITIONS"]), models())
    for call in (
        lambda: run.fit("two", "train", DATA),
        lambda: run.future_predict("two", "test", DATA),
        lambda: run.create_model_metadata("ines", "fatalities", "two"),
        lambda: RunResult.retrain_or_retrieve(**arguments(store, partition_name="two")),
    ):
        with pytest.raises(KeyError, match="there is no partition 'two'. The partitions are: one"):
            call()
    with pytest.raises(UnknownPartitionError, match="Its timespans are: train, test"):
        run.predict("one", "future", DATA)
    assert not store.path.exists()


class Untrainable(LinearRegression):  # type: ignore[misc]
    """A model that must not be trained."""

    def fit(self, *given: Any) -> None:
        """Fail."""
        raise AssertionError("trained")


def test_store_that_cannot_be_written(tmp_path: Path) -> None:
    """Nothing is trained for hours first."""
    (tmp_path / "notes.txt").write_text("not a store", "utf-8")
    untrainable = StepshiftedModels(Untrainable(), [1], "y")
    for path in tmp_path / "no folder" / "models.db", tmp_path / "notes.txt":
        with pytest.raises(StorageError, match="no folder: the folder does not exist|notes.txt"):
            RunResult.retrain_or_retrieve(**arguments(Storage(path), stepshifted_models=untrainable))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can drop its privileges")
def test_store_that_may_only_be_read() -> None:
    """Nothing is trained for hours first; what is stored is fetched."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    store = Storage(folder / "models.db")
    RunResult.retrain_or_retrieve(**arguments(store))
    # All that is needed is imported before the rights go: other users may not read Python's folder.
    assert not RunResult.retrain_or_retrieve(**arguments(store)).retrained
    with pytest.raises(StorageError):
        Storage(folder / "nothing" / "models.db").store("forest", 1)
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            fetched = RunResult.retrain_or_retrieve(**arguments(store))
            changed = arguments(store, author_name="zoe", stepshifted_models=StepshiftedModels(Untrainable(), [1], "y"))
            with pytest.raises(StoreReadOnlyError, match="models.db"):
                RunResult.retrain_or_retrieve(**changed)
            os._exit(int(fetched.retrained))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    shutil.rmtree(folder)


def test_another_process_stores_the_same_name(store: Storage) -> None:
    """What was trained here is returned; it is stored only if what another has stored meanwhile is not equivalent."""

    class Interrupted(LinearRegression):  # type: ignore[misc]
        def fit(self, *given: Any) -> Any:
            if not store.list():
                store.store("forest", "of another", {**known, "author": author})
            return super().fit(*given)

    def __reduce__(self: Any) -> Any:
        return LinearRegression, ()

    Interrupted.__reduce__ = __reduce__
    run = ViewsRun(DataPartitioner(SCENARIO["PARTITIONS"]), models())
    known = run.create_model_metadata("ines", "fatalities", "one").model_dump()
    for author, versions in ("ines", 1), ("zoe", 2):
        interrupted = StepshiftedModels(Interrupted(), [1, 3], "y")
        result = RunResult.retrain_or_retrieve(**arguments(store, stepshifted_models=interrupted))
        assert result.retrained and result.run.steps == [1, 3] and result.metadata.author == "ines"
        assert len(store.versions("forest")) == versions
        store.delete("forest")


def test_another_stepshift(store: Storage, tmp_path: Path) -> None:
    """`check` and the error of `fetch` say what cannot be found, and which line installs it."""
    (tmp_path / "stepshift.py").write_text('"""A module, as it was before stepshift 2."""\n', "utf-8")
    store.upload(COMPARED / "real" / "linear.pickle", "old")
    code = "import sys, views_runs\nviews_runs.Storage(sys.argv[1]).fetch('old')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "views_runs", "--store", str(store.path), "model", "check", "old"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True)
    fetched = subprocess.run(
        [sys.executable, "-c", code, str(store.path)], env=environment, capture_output=True, text=True
    )
    for said in checked.stdout + checked.stderr, fetched.stderr:
        assert "the module stepshift.views cannot be found" in said and "'stepshift>=2.2.1,<3'" in said
    assert ModelLoadError.__name__ in fetched.stderr


def test_numpy_scalars_as_months() -> None:
    """Scripts take the month from the data."""
    run = ViewsRun(DataPartitioner(SCENARIO["PARTITIONS"]), models())
    run.fit("one", "train", DATA)
    last = DATA.index.get_level_values(0).max()
    assert isinstance(last, int | np.integer)
    assert len(run.future_point_predict(last, DATA)) == 15
