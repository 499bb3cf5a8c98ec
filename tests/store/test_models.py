"""Real models of the libraries that ViEWS uses: stored, fetched, and predicting the same."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from views_runs import Storage


def panel() -> tuple[pd.DataFrame, pd.Series]:
    """Return covariates and an outcome by month and country."""
    random = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([range(121, 161), range(1, 21)], names=["month_id", "country_id"])
    covariates = pd.DataFrame(random.random((len(index), 4)), index=index, columns=["gdp", "pop", "dem", "lag"])
    return covariates, pd.Series(random.poisson(covariates["lag"] * 3), index=index, name="fatalities")


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestRegressor(20, random_state=0),
    "classifier": lambda: RandomForestClassifier(10, random_state=0),
    "boosted": lambda: HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "pipeline": lambda: make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["gdp", "pop"])]), Ridge()),
    "xgboost": lambda: xgboost.XGBRegressor(n_estimators=20, n_jobs=1),
    "lightgbm": lambda: lightgbm.LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_a_trained_model_predicts_the_same(store: Storage, kind: str) -> None:
    """Each library's model comes back as it was trained."""
    covariates, outcome = panel()
    model = MODELS[kind]().fit(covariates, outcome)
    record = store.store(kind, model, {"outcome": "ged_sb"})
    fetched = store.fetch(kind)
    assert type(fetched) is type(model)
    assert record.type == f"{type(model).__module__}.{type(model).__qualname__}"
    np.testing.assert_array_equal(fetched.predict(covariates), model.predict(covariates))


def test_a_booster(store: Storage) -> None:
    """xgboost's and lightgbm's own boosters too."""
    covariates, outcome = panel()
    matrix = xgboost.DMatrix(covariates, outcome)
    xgb = xgboost.train({"nthread": 1}, matrix, 5)
    lgb = lightgbm.train({"num_threads": 1, "verbose": -1}, lightgbm.Dataset(covariates, outcome), 5)
    store.store("xgb", xgb)
    store.store("lgb", lgb)
    np.testing.assert_array_equal(store.fetch("xgb").predict(matrix), xgb.predict(matrix))
    np.testing.assert_array_equal(store.fetch("lgb").predict(covariates), lgb.predict(covariates))


def test_an_ensemble_by_step(store: Storage) -> None:
    """A dict of models, one a step ahead, as stepshifted ensembles are."""
    covariates, outcome = panel()
    model = {step: Ridge().fit(covariates, outcome.groupby("country_id").shift(-step).fillna(0)) for step in (1, 2, 3)}
    store.store("ensemble", model, {"steps": [1, 2, 3]})
    fetched = store.fetch("ensemble")
    assert list(fetched) == store.fetch_metadata("ensemble").steps
    for step, part in model.items():
        np.testing.assert_array_equal(fetched[step].predict(covariates), part.predict(covariates))


def test_pandas_objects(store: Storage) -> None:
    """Data may be stored beside the models."""
    covariates, outcome = panel()
    store.store("panel", [covariates, outcome])
    fetched, series = store.fetch("panel")
    pd.testing.assert_frame_equal(fetched, covariates)
    pd.testing.assert_series_equal(series, outcome)


def test_all_but_fetch_need_none_of_the_models_libraries(store: Storage, tmp_path: Any) -> None:
    """Listing, inspecting and downloading work where scikit-learn is not installed; fetching says what is missing."""
    covariates, outcome = panel()
    record = store.store("forest", RandomForestRegressor(3, random_state=0).fit(covariates, outcome), {"author": "me"})
    code = f"""
import sys
for name in ("sklearn", "numpy", "pandas"):
    sys.modules[name] = None
from views_runs import Storage, ModelLoadError
store = Storage({str(store.path)!r})
assert store.list() == ["forest"] and store.inspect("forest").sha256 == {record.sha256!r}
assert store.fetch_metadata("forest") == {{"author": "me"}}
store.download("forest", {str(tmp_path / "forest.pickle")!r})
try:
    store.fetch("forest")
except ModelLoadError as error:
    assert "it needs the modules numpy, sklearn, which are not installed here; nothing was loaded" in str(error), error
    assert "pip install numpy==" in str(error) and "scikit-learn==" in str(error), error
    print("told")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("told\n", "")
