"""A monthly run: each model is trained for each partition once, and fetched from then on.

Run it with ``python examples/production_run.py [STORE]``; run it again, and nothing is trained. Next month the
future partition ends a month later, and only its models are trained again.
"""

import argparse
import getpass
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any

import pandas as pd
from panel import OUTCOME, STEPS, country_month, forecast, training_data
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from views_runs import ModelMetadata, Storage

RUN_ID = "2026-01"

#: The first and last month that a model may learn from, by partition.
PARTITIONS = {"calibration": (121, 396), "test": (121, 444), "future": (121, 552)}

#: The models that are not trained yet, by their short names.
MODELS = {
    "rf": RandomForestRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "xt": ExtraTreesRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "ridge": make_pipeline(StandardScaler(), Ridge()),
}


def main() -> None:
    """Train or fetch every model, and sum up what they predict."""
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
    wanted = wanted_metadata(*PARTITIONS[partition])
    # A store that was given by its path has to be there before one can read it; the first model stored makes it.
    if store.path.exists() and store.exists_with_metadata(name, wanted):
        print(f"fetched {name}")
        return store.fetch(name)
    trained = clone(MODELS[model]).fit(*training_data(panel, *PARTITIONS[partition]))
    metadata = replace(wanted, author=getpass.getuser(), run_id=RUN_ID, training_date=datetime.now())
    record = store.store(name, trained, metadata, overwrite=True)
    print(f"trained {name}, version {record.version}")
    return trained


def wanted_metadata(start: int, end: int) -> ModelMetadata:
    """Return what makes a stored model the wanted one, whoever trained it, and in whichever run."""
    return ModelMetadata(
        queryset_name="example_country_month",
        level_of_analysis="country_month",
        outcome=OUTCOME,
        train_start=start,
        train_end=end,
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
