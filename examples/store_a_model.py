"""Train three models, store them, and use them again from the store.

Run it with ``python examples/store_a_model.py [STORE]``; run it again, and nothing is trained.
"""

import argparse
import getpass
from datetime import datetime

import pandas as pd
from panel import OUTCOME, STEPS, country_month, forecast, training_data
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from views_runs import ModelMetadata, Storage

TRAIN_START, TRAIN_END = 121, 480  # January 1990 to December 2019

#: The models that are not trained yet, by the name that each is stored under.
MODELS = {
    "fatalities_sb_rf": RandomForestRegressor(50, min_samples_leaf=20, n_jobs=2, random_state=1),
    "fatalities_sb_hgb": MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=50, random_state=1)),
    "fatalities_sb_ridge": make_pipeline(StandardScaler(), Ridge()),
}


def main() -> None:
    """Store what is not stored yet; then list, inspect, fetch and predict."""
    store = Storage(store_path())
    panel = country_month()
    train_and_store(store, panel)
    show(store)
    predict(store, panel)


def train_and_store(store: Storage, panel: pd.DataFrame) -> None:
    """Train and store each model, unless it is there."""
    # A store that was given by its path has to be there before one can read it; the first model stored makes it.
    stored = store.list() if store.path.exists() else []
    covariates, targets = training_data(panel, TRAIN_START, TRAIN_END)
    for name, model in MODELS.items():
        if name in stored:
            print(f"{name} is stored already")
            continue
        model.fit(covariates, targets)
        record = store.store(name, model, metadata())
        print(f"{name} trained and stored as version {record.version}: {record.size:,} bytes")


def metadata() -> ModelMetadata:
    """Return what others will want to know of a model that was trained just now."""
    return ModelMetadata(
        author=getpass.getuser(),
        run_id="example",
        queryset_name="example_country_month",
        level_of_analysis="country_month",
        outcome=OUTCOME,
        train_start=TRAIN_START,
        train_end=TRAIN_END,
        training_date=datetime.now(),
        steps=STEPS,
    )


def show(store: Storage) -> None:
    """Look at what is stored, without loading it."""
    print(f"\n{store.path} holds {', '.join(store.list())}")
    record = store.inspect("fatalities_sb_rf")
    print(f"{record.name}, version {record.version}, is a {record.type}, stored by {record.stored_by}")
    known = store.fetch_metadata("fatalities_sb_rf")
    print(f"{known.author} trained it on the months {known.train_start} to {known.train_end}")


def predict(store: Storage, panel: pd.DataFrame) -> None:
    """Fetch a model and predict with it."""
    model = store.fetch("fatalities_sb_rf")
    predicted = forecast(model, panel, TRAIN_END)
    print("\nThe fatalities that it predicts in the months after, where they are most:")
    print(predicted.sort_values(predicted.columns[0], ascending=False).head().round(1).to_string())


def store_path() -> str:
    """Return the path that the command line gives, or example.db in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", default="example.db", help="the store file (default: %(default)s)")
    return str(parser.parse_args().store)


if __name__ == "__main__":
    main()
