"""Two virtual environments with different versions of scikit-learn: what `check` says in each, and what fetch does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import need

ROOT = Path(__file__).parents[2]

#: Trees of scikit-learn 1.2 cannot be loaded by later versions; for newer Pythons there is no such old version.
ARE_FAR_APART = sys.version_info < (3, 12)
SCIKIT_LEARN = {"old": "scikit-learn==1.2.2" if ARE_FAR_APART else "scikit-learn<1.8", "new": "scikit-learn>=1.8"}
NEEDED = {
    "old": [SCIKIT_LEARN["old"], *(["numpy<2"] if ARE_FAR_APART else [])],
    "new": [SCIKIT_LEARN["new"]],
    "bare": [],
}

STORE = """
import sys
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from views_runs import Storage

rows = np.random.default_rng(1).random((40, 3))
store = Storage(sys.argv[1])
store.store("plain", {"a": [1]})
for model in RandomForestRegressor(3), HistGradientBoostingRegressor(max_iter=3), Ridge():
    store.store(type(model).__name__, model.fit(rows, rows[:, 0]))
"""

FETCH = """
import json, sys, warnings
warnings.simplefilter("ignore")
from views_runs import ModelLoadError, Storage

outcomes = {}
store = Storage(sys.argv[1])
for name in store.list():
    try:
        store.fetch(name)
        outcomes[name] = ""
    except ModelLoadError as error:
        outcomes[name] = str(error)
print(json.dumps(outcomes))
"""

MODELS = {"plain", "RandomForestRegressor", "HistGradientBoostingRegressor", "Ridge"}


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(self, *arguments: Any, codes: tuple[int, ...] = (0,)) -> str:
        """Run its Python; return what it writes."""
        settings = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([self.python, *arguments], env=settings, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode in codes, done.stderr
        return done.stdout

    def install(self, *requirements: str) -> bool:
        """Install distributions; return whether that worked."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        # Most of what is installed is never imported: to compile it takes minutes.
        command = [*pip, "--no-compile", "--only-binary=:all:", *requirements]
        return not subprocess.run(command, capture_output=True).returncode

    def check(self, store: Path) -> dict[str, dict[str, Any]]:
        """Return what `check` says of all models there, by their names."""
        output = self.run(*"-m views_runs --json --store".split(), store, "model", "check", "--all", codes=(0, 1))
        return {one["name"]: one for one in json.loads(output)}

    def fetch(self, store: Path) -> dict[str, str]:
        """Fetch all models; return the errors, empty where there is none."""
        found: dict[str, str] = json.loads(self.run("-c", FETCH, store))
        return found

    def version(self, distribution: str) -> str:
        """Return the version that is installed."""
        return self.run("-c", f"from importlib import metadata; print(metadata.version({distribution!r}))").strip()


@pytest.fixture(scope="module")
def environments() -> Iterator[dict[str, Environment]]:
    """Two environments, and one without scikit-learn; in the first two the same models were stored."""
    folder = Path(tempfile.mkdtemp())

    def make(name: str) -> tuple[Environment, bool]:
        one = Environment(folder / name)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", one.folder], check=True)
        return one, one.install("click>=8.1", "platformdirs>=3", "rich>=13", *NEEDED[name])

    with ThreadPoolExecutor() as threads:
        made = dict(zip(NEEDED, threads.map(make, NEEDED)))
    need(all(done for _, done in made.values()), "pip can install two versions of scikit-learn")
    for name in SCIKIT_LEARN:
        made[name][0].run("-c", STORE, folder / f"{name}.db")
    yield {name: one for name, (one, _) in made.items()}
    shutil.rmtree(folder)


@pytest.fixture
def store_of(environments: dict[str, Environment]) -> Callable[[str], Path]:
    """Return where the store is that an environment made."""
    return lambda name: environments[name].folder.parent / f"{name}.db"


@pytest.mark.parametrize("name", SCIKIT_LEARN)
def test_where_it_was_stored(environments: dict[str, Environment], store_of: Callable[[str], Path], name: str) -> None:
    """Where a model was stored it loads, and nothing is to be done."""
    checked = environments[name].check(store_of(name))
    assert checked.keys() == MODELS
    assert all((one["verdict"], one["reasons"], one["fix"]) == ("loads", [], "") for one in checked.values())
    assert not any(environments[name].fetch(store_of(name)).values())


@pytest.mark.parametrize("stored, here", [("old", "new"), ("new", "old")])
def test_in_the_other(
    environments: dict[str, Environment], store_of: Callable[[str], Path], stored: str, here: str
) -> None:
    """In the other environment each model of scikit-learn may not load; where it does not, the error says why."""
    checked, errors = environments[here].check(store_of(stored)), environments[here].fetch(store_of(stored))
    assert checked.keys() == errors.keys() == MODELS
    versions = {name: one.version("scikit-learn") for name, one in environments.items() if name != "bare"}
    reason = f"stored with scikit-learn {versions[stored]}, but {versions[here]} is installed"
    for name in MODELS - {"plain"}:
        assert checked[name]["verdict"] == "may not load" and reason in checked[name]["reasons"]
        assert f"scikit-learn=={versions[stored]}" in checked[name]["fix"]
        assert not errors[name] or reason in errors[name] and checked[name]["fix"] in errors[name]
    assert (checked["plain"]["verdict"], errors["plain"]) == ("loads", "")
    # What `check` warns of does happen.
    assert errors["RandomForestRegressor"] or not ARE_FAR_APART


def test_without_it_and_with_the_line_that_mends_it(
    environments: dict[str, Environment], store_of: Callable[[str], Path]
) -> None:
    """Without scikit-learn no model of it loads; after the line of `check` was run, all of them do."""
    bare, store = environments["bare"], store_of("old")
    checked, errors = bare.check(store), bare.fetch(store)
    for name in MODELS - {"plain"}:
        assert checked[name]["verdict"] == "will not load"
        assert "the module sklearn is not installed" in checked[name]["reasons"]
        assert (
            "nothing was loaded" in errors[name] and "pip install" in errors[name] and "scikit-learn==" in errors[name]
        )
    assert (checked["plain"]["verdict"], errors["plain"]) == ("loads", "")
    lines = {checked[name]["fix"] for name in MODELS - {"plain"}}
    for line in lines:
        assert line.startswith("pip install ")
        need(bare.install(*line.split()[2:]), "pip can install an old scikit-learn")
    assert not any(bare.fetch(store).values())
    assert {one["verdict"] for one in bare.check(store).values()} == {"loads"}
