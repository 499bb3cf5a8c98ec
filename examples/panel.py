"""A made-up country-month panel in the shape of the real one, for the examples beside this file.

Months are views months: 1 is January 1980, so 121 is January 1990 and 552 is December 2025.
"""

import os
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

SEED = 1990
FIRST_MONTH, LAST_MONTH = 121, 552

#: How many countries there are; the tests need fewer.
COUNTRIES = int(os.environ.get("EXAMPLE_COUNTRIES", "60"))

#: What is predicted: fatalities in state-based conflict.
OUTCOME = "ged_sb"

#: What it is predicted from: the fatalities of this month, their mean over the last year, and the country.
COVARIATES = ["ged_sb", "ged_sb_12", "gdp", "population", "democracy"]

#: How many months ahead the models predict.
STEPS = [1, 3, 6]


def country_month() -> pd.DataFrame:
    """Return the panel: one row for each month_id and country_id; the same at every call.

    Most months have no fatalities, and a country that has some this month is likely to have some in the next.
    """
    random = np.random.default_rng(SEED)
    months, countries = range(FIRST_MONTH, LAST_MONTH + 1), range(1, COUNTRIES + 1)
    shape = len(months), len(countries)
    fragility = random.normal(-2.0, 2.0, COUNTRIES)
    tension = fragility + _wandering(random, shape, keep=0.97)
    columns = {
        "ged_sb": random.poisson(np.expm1(2 * tension.clip(min=0))),
        "gdp": 9 - 0.3 * fragility + _wandering(random, shape, keep=0.99),
        "population": random.normal(16, 1.5, COUNTRIES) + np.linspace(0, 0.6, len(months))[:, np.newaxis],
        "democracy": np.tanh(_wandering(random, shape, keep=0.995) - 0.3 * fragility),
    }
    index = pd.MultiIndex.from_product([months, countries], names=["month_id", "country_id"])
    panel = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)
    fatalities = panel[OUTCOME].groupby("country_id")
    return panel.assign(ged_sb_12=fatalities.transform(lambda series: series.rolling(12, min_periods=1).mean()))


def training_data(panel: pd.DataFrame, start: int, end: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what a model learns from: the covariates of each month, and the outcome of each step after it.

    Args:
        panel: as `country_month` returns it.
        start: the first month to use.
        end: the last month to use, also for the outcome: a model never sees what came later.

    Returns:
        Covariates, and a column of log(1 + fatalities) for each step.
    """
    known = panel.loc[start:end]
    outcome = np.log1p(known[OUTCOME]).groupby("country_id")
    targets = pd.DataFrame({f"step_{step}": outcome.shift(-step) for step in STEPS}).dropna()
    return known.loc[targets.index, COVARIATES], targets


def forecast(model: Any, panel: pd.DataFrame, month: int) -> pd.DataFrame:
    """Return the fatalities that a model predicts: a row for each country, a column for each month ahead.

    Args:
        model: trained on `training_data`.
        panel: as `country_month` returns it.
        month: the last month that is known.
    """
    covariates = panel.loc[month, COVARIATES]
    predicted = np.expm1(model.predict(covariates)).clip(min=0)
    months = pd.Index([month + step for step in STEPS], name="month_id")
    return pd.DataFrame(predicted, index=covariates.index, columns=months)


def _wandering(random: np.random.Generator, shape: tuple[int, int], keep: float) -> np.ndarray:
    """Return a series for each country that keeps most of its value from month to month, of variance 1."""
    first, *shocks = random.normal(size=shape)
    change = np.sqrt(1 - keep**2)
    return np.array(list(accumulate(shocks, lambda before, shock: keep * before + change * shock, initial=first)))
