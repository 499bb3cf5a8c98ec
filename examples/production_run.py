"""Two monthly runs: each trains what earlier runs did not, and reuses the rest.

Run it with ``python examples/production_run.py [STORE]``. The first run trains every model for every partition. In the
second, the panel, and with it the future partition, ends a month later: only the models of that partition are trained
again. When both runs are complete, running this again trains nothing. See them with ``views-runs run list``.
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

from views_runs import ModelMetadata, Run, Storage

#: The runs, and the last month of the data of each.
RUNS = {"2025-12": LAST_MONTH - 1, "2026-01": LAST_MONTH}

#: The last month of the training data, by partition; None is the last month of the run's data.
PARTITIONS = {"calibration": 396, "test": 444, "future": None}

#: The models that are not trained yet, by their short names.
MODELS = {
    "rf": RandomForestRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "xt": ExtraTreesRegressor(30, min_samples_leaf=20, n_jobs=2, random_state=1),
    "ridge": make_pipeline(StandardScaler(), Ridge()),
}

#: The name of each model, with its short name and its partition.
NAMES = {f"fatalities_sb_{model}_{partition}": (model, partition) for model, partition in product(MODELS, PARTITIONS)}


def main() -> None:
    """Produce each run that is not complete, and summarise the predictions of the last one."""
    # The store logs which models it fetches, and which are trained and why.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = Storage(store_path())
    panel = country_month()
    for run_id, last_month in RUNS.items():
        with store.run(run_id) as run:
            run.expect(NAMES)
            if run.missing():
                produce(run, panel, last_month)
        print_run(run)
    print_summary({name: forecast(run.fetch(name), panel, last_training_month(name, last_month)) for name in NAMES})


def produce(run: Run, panel: pd.DataFrame, last_month: int) -> None:
    """Fetch each model if any run has trained it with the wanted metadata; otherwise train and store it.

    One that was trained otherwise, on last month's data for instance, stays as an older version.
    """
    for name, (model, _) in NAMES.items():
        months = FIRST_MONTH, last_training_month(name, last_month)

        def train(model: str = model, months: tuple[int, int] = months) -> Any:
            return clone(MODELS[model]).fit(*training_data(panel, *months))

        # The run adds the field run_id.
        run.fetch_or_train(name, train, wanted_metadata(*months), recorded={"author": getpass.getuser()})


def last_training_month(name: str, last_month: int) -> int:
    """Return the last month of a model's training data, in a run whose data ends with `last_month`."""
    return PARTITIONS[NAMES[name][1]] or last_month


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


def print_run(run: Run) -> None:
    """Print how many models a run trained, and which it reused from which run."""
    trained, reused = ([model for model in run.models() if model.state == state] for state in ("trained", "reused"))
    print(f"\nThe run {run.id} trained {len(trained)} models and reused {len(reused)}.")
    for model in reused:
        print(f"  {model.name}, version {model.version}, was trained in the run {model.trained_in}")


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
