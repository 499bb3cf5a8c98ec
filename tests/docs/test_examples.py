"""The examples: each is run twice, as a process, as a researcher would run it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.machine import ROOT
from tests.support.stores import copied
from views_runs import ModelRecord, Storage

pytestmark = pytest.mark.abridged

#: A store that an example made, and what its first and its second run printed.
Runs = tuple[Storage, list[str], list[str]]

#: Runs Python with arguments in a folder, and returns what it prints.
Run = Callable[[list[str], Path], str]

EXAMPLES = ROOT / "examples"
PRODUCTION = str(EXAMPLES / "production_run.py")

MODELS = ["fatalities_sb_rf", "fatalities_sb_hgb", "fatalities_sb_ridge"]

PARTITIONS = {"calibration": (121, 396), "test": (121, 444), "future": (121, 551)}

RUN = [f"fatalities_sb_{model}_{partition}" for model in ("rf", "xt", "ridge") for partition in PARTITIONS]
FUTURE = [name for name in RUN if name.endswith("future")]
REUSED = [name for name in RUN if name not in FUTURE]


def reuse(path: Path, before: int, after: int) -> list[str]:
    """Return what a run logs that has a month more than the one before it."""
    trained, fetched = f"training {{}}: train_end {before} -> {after}", f"fetching {{}}, version 1, from {path}"
    return [(trained if name in FUTURE else fetched).format(name) for name in RUN]


def summary(run: str, reused_from: str) -> list[str]:
    """Return what is printed of a run that reused the models that do not end with the data."""
    lines = [f"  {name}, version 1, was trained in the run {reused_from}" for name in sorted(REUSED)]
    return ["", f"The run {run} trained 3 models and reused 6.", *lines]


#: What is printed of the first run.
FIRST = ["", "The run 2025-12 trained 9 models and reused 0."]


def given_metadata(record: ModelRecord) -> dict[str, object]:
    """Return the metadata of a record, without when it was trained."""
    assert record.metadata is not None
    return {field: value for field, value in record.metadata.items() if field != "training_date"}


@pytest.fixture(scope="module")
def production_run(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Run the second example twice; return its store, and what each run printed."""
    folder = tmp_path_factory.mktemp("production_run")
    first, second = (run([PRODUCTION, "run.db"], folder).splitlines() for _ in range(2))
    return Storage(folder / "run.db"), first, second


def test_store_a_model_stores_each_model_once(store_a_model: Runs) -> None:
    """After two runs there is one version of each model."""
    store, _, _ = store_a_model
    assert [(record.name, record.version) for record in store.find(all_versions=True)] == [
        (name, 1) for name in reversed(MODELS)
    ]


def test_store_a_model_gives_each_model_its_metadata(store_a_model: Runs) -> None:
    """Each model has all the known fields."""
    store, _, _ = store_a_model
    assert [given_metadata(record) for record in store.find()] == 3 * [
        {
            "author": "ines",
            "run_id": "example",
            "queryset_name": "example_country_month",
            "level_of_analysis": "country_month",
            "outcome": "ged_sb",
            "train_start": 121,
            "train_end": 480,
            "steps": [1, 3, 6],
        }
    ]


def test_store_a_model_says_what_it_trained(store_a_model: Runs) -> None:
    """The first run trains and stores every model, and says so."""
    _, first, _ = store_a_model
    assert [line.partition(":")[0] for line in first[:3]] == [
        f"{name} trained and stored as version 1" for name in MODELS
    ]


def test_store_a_model_finds_what_is_stored(store_a_model: Runs) -> None:
    """The second run trains nothing, says so, and predicts the same."""
    _, first, second = store_a_model
    assert second == [f"{name} is stored already" for name in MODELS] + first[3:]


def test_store_a_model_stores_only_classes_that_others_can_import(store_a_model: Runs) -> None:
    """No stored object is of a class that only the script has."""
    store, _, _ = store_a_model
    assert {record.type.partition(".")[0] for record in store.find()} == {"sklearn"}


def test_production_run_trains_and_reuses(production_run: Runs) -> None:
    """The first run makes the store and trains all; the second trains what ends with the data, and says why."""
    store, printed, _ = production_run
    trained = [f"training {name}: no such model in {store.path}" for name in RUN]
    created = [f"{store.path} does not exist; creating it", f"created a new store, {store.path}"]
    begin = [*created, *trained, *FIRST, *reuse(store.path, 551, 552), *summary("2026-01", "2025-12")]
    assert printed[: len(begin)] == begin


def test_production_run_trains_nothing_twice(production_run: Runs) -> None:
    """Run again, both runs are complete; it says what they used, and predicts the same."""
    _, first, again = production_run
    said = [*FIRST, *summary("2026-01", "2025-12")]
    assert again[: len(said)] == said and again[len(said) :] == first[-len(RUN) - 3 :]


def test_production_run_sums_up_every_model(production_run: Runs) -> None:
    """The summary has a row for each model."""
    _, first, _ = production_run
    assert [line.split()[0] for line in first[-len(RUN) :]] == RUN


def test_production_run_stores_each_model_once(production_run: Runs) -> None:
    """There is one version of each, with the months of its partition, and one more of what ends with the data."""
    store, _, _ = production_run
    stored = {
        str(record.reference): (record.metadata.train_start, record.metadata.train_end)
        for record in store.find(all_versions=True)
        if record.metadata is not None
    }
    later = {f"{name}:2": (121, 552) for name in FUTURE}
    assert stored == {f"{name}:1": PARTITIONS[name.rpartition("_")[2]] for name in RUN} | later
    assert [(run.id, run.state, run.models, run.complete) for run in store.runs()] == [
        ("2026-01", "succeeded", 9, True),
        ("2025-12", "succeeded", 9, True),
    ]


def test_production_run_gives_each_model_its_metadata(production_run: Runs) -> None:
    """What a run stores says who trained it, for which run, and what it predicts."""
    store, _, _ = production_run
    assert given_metadata(store.inspect("fatalities_sb_rf_future")) == {
        "author": "ines",
        "run_id": "2026-01",
        "queryset_name": "example_country_month",
        "level_of_analysis": "country_month",
        "outcome": "ged_sb",
        "train_start": 121,
        "train_end": 552,
        "steps": [1, 3, 6],
    }


def test_production_run_takes_what_others_trained(run: Run, production_run: Runs) -> None:
    """A colleague's models of an earlier run will do, and stay theirs."""
    store, printed, _ = production_run
    theirs = Storage(store.path.parent / "theirs.db")
    for name in RUN:
        metadata = {**store.fetch_metadata(f"{name}:1"), "author": "jon", "run_id": "2025-11"}
        theirs.store(name, store.fetch(f"{name}:1"), metadata)
    output = run([PRODUCTION, "theirs.db"], store.path.parent).splitlines()
    assert output[: len(RUN)] == [f"fetching {name}, version 1, from {theirs.path}" for name in RUN]
    assert output[len(RUN) :][:2] == ["", "The run 2025-12 trained 0 models and reused 9."]
    assert output[-len(RUN) :] == printed[-len(RUN) :]
    assert {model.trained_in for model in theirs.run("2025-12").models()} == {"2025-11"}
    assert {record.name for record in theirs.find(author="jon", all_versions=True)} == {*RUN}


def test_production_run_trains_only_the_future_next_month(run: Run, production_run: Runs, tmp_path: Path) -> None:
    """With a month more, the models that end with the data are trained again; the log says why, and the older stay."""
    store, _, _ = production_run
    later = copied(store, tmp_path / "run.db")
    for script in EXAMPLES.glob("*.py"):
        text = script.read_text(encoding="utf-8").replace("LAST_MONTH = 121, 552", "LAST_MONTH = 121, 553")
        runs = 'LAST_MONTH - 2, "2026-01": LAST_MONTH - 1, "2026-02": LAST'
        text = text.replace('LAST_MONTH - 1, "2026-01": LAST', runs)
        (tmp_path / script.name).write_text(text, encoding="utf-8")
    output = run([str(tmp_path / "production_run.py"), "run.db"], tmp_path).splitlines()
    before = [*FIRST, *summary("2026-01", "2025-12")]
    begin = [*before, *reuse(later.path, 552, 553), *summary("2026-02", "2025-12")]
    assert output[: len(begin)] == begin
    assert later.list(author="ines", run_id="2026-02", train_end=553) == FUTURE[::-1]
    assert later.list(run="2026-01", train_end=552) == [f"{name}:2" for name in FUTURE[::-1]]


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import the module of the panel, as the examples do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import panel

    yield panel
    del sys.modules["panel"]


def test_panel_is_the_same_at_every_call(panel: ModuleType) -> None:
    """The seed is fixed."""
    assert panel.country_month().equals(panel.country_month())


def test_panel_has_a_row_for_each_country_and_month(panel: ModuleType) -> None:
    """It has the index and the columns of the real one, and no gaps."""
    frame = panel.country_month()
    assert frame.index.names == ["month_id", "country_id"]
    assert frame.index.is_unique and frame.index.is_monotonic_increasing
    assert len(frame) == panel.COUNTRIES * (panel.LAST_MONTH - panel.FIRST_MONTH + 1)
    assert sorted(frame) == sorted(panel.COVARIATES)
    assert frame.notna().all(axis=None)


def test_panel_has_many_zeros_and_long_conflicts(panel: ModuleType) -> None:
    """Most months have no fatalities; those of one month say much of the next."""
    fatalities = panel.country_month()["ged_sb"].unstack()
    assert 0.8 < (fatalities == 0).mean(axis=None) < 0.95
    assert fatalities.stack().corr(fatalities.shift(1).stack()) > 0.8


def test_panel_shows_a_model_nothing_of_later(panel: ModuleType) -> None:
    """What is learnt from the months up to an end does not change with the months after it."""
    frame = panel.country_month()
    later = frame.copy()
    later.loc[481:] = 0
    for known, changed in zip(panel.training_data(frame, 121, 480), panel.training_data(later, 121, 480)):
        assert known.equals(changed)
