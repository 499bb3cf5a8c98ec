"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import views_runs

#: These need an extra that the tests do not install, or are not in this version: importing them says so.
MISSING = [f"views_runs.{name}" for name in ("operations", "run", "run_result", "stats", "utilities")]

MODULES = [module.name for module in pkgutil.walk_packages(views_runs.__path__, "views_runs.")]


@pytest.mark.parametrize("name", sorted({*MODULES} - {*MISSING, "views_runs.__main__", "views_runs.cli.__main__"}))
def test_examples_run(name: str) -> None:
    """Each example prints what its docstring says."""
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    for test in tests:
        # Each starts without the file that the one before made.
        for file in ("models.db", "models.db-journal", "forest.pickle"):
            importlib.import_module("pathlib").Path(file).unlink(missing_ok=True)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        assert runner.run(test).failed == 0, f"{test.name}: run `python -m doctest` on {name} to see"
