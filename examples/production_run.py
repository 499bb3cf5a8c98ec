"""A monthly run: each model is trained for each partition once, and fetched from then on.

Run it with ``python examples/production_run.py [STORE]``; run it again, and nothing is trained. Next month the
future partition ends a month later, and only its models are trained again.
"""

import argparse
import getpass
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
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
    summary = pd.DataFrame(dict(run(store, panel))).T
    print(f"\nFatalities predicted in all {panel.index.unique('country_id').size} countries, by months ahead:")
    print(summary.round().astype(int).to_string())


def run(store: Storage, panel: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Yield the name of each model, and what it predicts for each step after its partition."""
    for short_name in MODELS:
        for partition, (start, end) in PARTITIONS.items():
            name = f"fatalities_sb_{short_name}_{partition}"
            model = trained(store, name, MODELS[short_name], panel, wanted(start, end))
            yield name, forecast(model, panel, end).sum().set_axis(STEPS)


def wanted(start: int, end: int) -> ModelMetadata:
    """Return what makes a stored model the one that this run needs, whoever trained it, and in whichever run."""
    return ModelMetadata(
        queryset_name="example_country_month",
        level_of_analysis="country_month",
        outcome=OUTCOME,
        train_start=start,
        train_end=end,
        steps=STEPS,
    )


def trained(store: Storage, name: str, model: Any, panel: pd.DataFrame, metadata: ModelMetadata) -> Any:
    """Fetch the model of this name if it has this metadata; otherwise train and store it.

    A model of this name with other metadata, last month's for instance, stays as an older version.
    """
    # A store that was given by its path has to be there before one can read it; the first model stored makes it.
    if store.path.exists() and store.exists_with_metadata(name, metadata):
        print(f"fetched {name}")
        return store.fetch(name)
    covariates, targets = training_data(panel, metadata.train_start, metadata.train_end)
    model = clone(model).fit(covariates, targets)
    made = replace(metadata, author=getpass.getuser(), run_id=RUN_ID, training_date=datetime.now())
    record = store.store(name, model, made, overwrite=True)
    print(f"trained {name}, version {record.version}")
    return model


def store_path() -> str:
    """Return the path that the command line gives, or example.db in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", default="example.db", help="the store file (default: %(default)s)")
    return str(parser.parse_args().store)


if __name__ == "__main__":
    main()
