"""A monthly run: each model is trained for each partition once, and fetched from then on.

Run it with ``python examples/production_run.py [STORE]``; run it again, and nothing is trained. Next month the
panel, and with it the future partition, ends a month later, and only the models of that partition are trained again.
"""

import argparse
import getpass
import logging
from datetime import datetime
from itertools import product
from typing import Any

import pandas as pd
from panel import FIRST_MONTH, LAST_MONTH, OUTCOME, STEPS, country_month, forecast, training_data
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from views_runs import ModelMetadata, Storage

RUN_ID = "2026-01"

#: The first and last month that a model may learn from, by partition.
PARTITIONS = {"calibration": (FIRST_MONTH, 396), "test": (FIRST_MONTH, 444), "future": (FIRST_MONTH, LAST_MONTH)}

#: The models that are not trained yet, by their short names.
MODELS = {
    "rf": RandomForestRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "xt": ExtraTreesRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "ridge": make_pipeline(StandardScaler(), Ridge()),
}


def main() -> None:
    """Train or fetch every model, and sum up what they predict."""
    # The store logs which models it fetches, and which are trained and why.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = Storage(store_path())
    panel = country_month()
    predicted = {}
    for model, partition in product(MODELS, PARTITIONS):
        name = f"fatalities_sb_{model}_{partition}"
        fetched = fetch_or_train(store, name, model, partition, panel)
        predicted[name] = forecast(fetched, panel, PARTITIONS[partition][1])
    print_summary(predicted)


def fetch_or_train(store: Storage, name: str, model: str, partition: str, panel: pd.DataFrame) -> Any:
    """Fetch the model of this name if it was trained as wanted; otherwise train and store it.

    One that was trained otherwise, on last month's data for instance, stays as an older version.
    """
    months = PARTITIONS[partition]

    def train() -> Any:
        return clone(MODELS[model]).fit(*training_data(panel, *months))

    recorded = {"author": getpass.getuser(), "run_id": RUN_ID}
    return store.fetch_or_train(name, train, wanted_metadata(*months), recorded=recorded)


def wanted_metadata(start: int, end: int) -> ModelMetadata:
    """Return what makes a stored model the wanted one, whoever trained it, and in whichever run.

    The training date is stored too, and does not count when models are compared.
    """
    return ModelMetadata(
        queryset_name="example_country_month",
        level_of_analysis="country_month",
        outcome=OUTCOME,
        train_start=start,
        train_end=end,
        training_date=datetime.now(),
        steps=STEPS,
    )


def print_summary(predicted: dict[str, pd.DataFrame]) -> None:
    """Print how many fatalities each model predicts in all countries together, for each step."""
    totals = pd.DataFrame({name: forecasts.sum().set_axis(STEPS) for name, forecasts in predicted.items()}).T
    print("\nFatalities predicted in all countries together, by months ahead:")
    print(totals.round().astype(int).to_string())


def store_path() -> str:
    """Return the path that the command line gives, or example.db in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", default="example.db", help="the store file (default: %(default)s)")
    return str(parser.parse_args().store)


if __name__ == "__main__":
    main()
