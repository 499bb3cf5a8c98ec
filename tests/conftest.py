"""What every test has: a home of its own, a store, and the command line."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from views_runs import Storage
from views_runs.cli import main


#: What must not come from the environment of whoever runs the tests.
UNWANTED = (
    "VIEWS_RUNS_STORE",
    "VIEWS_RUNS_TRUSTED_ONLY",
    "VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "COLUMNS",
    "FORCE_COLOR",
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the user's own store and folders."""
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in UNWANTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(work)
    return home


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    """A store that is not there yet."""
    return Storage(tmp_path / "models.db")


@pytest.fixture
def sql(store: Storage) -> Iterator[sqlite3.Connection]:
    """The file of the store, as another program opens it."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def viewser(store: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line on the store; by default it has to succeed."""
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(store.path))

    def run(*arguments: str, exit_code: int | None = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, arguments, **options)
        assert exit_code in (None, result.exit_code), result.output
        assert isinstance(result.exception, SystemExit | None), result.output
        return result

    return run


def need(condition: object, reason: str) -> None:
    """Skip a test where the machine cannot run it; in continuous integration that is a failure."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"cannot be skipped here: {reason}")
        pytest.skip(reason)


def leftovers(store: Storage) -> dict[str, int]:
    """Count what should not be in the file: parts that no model has, and uploads."""
    connection = sqlite3.connect(store.path)
    try:
        orphans = (
            "SELECT count(*) FROM model_parts WHERE upload NOT IN (SELECT upload FROM models WHERE upload NOT NULL)"
        )
        return {
            "parts": connection.execute(orphans).fetchone()[0],
            "uploads": connection.execute("SELECT count(*) FROM uploads").fetchone()[0],
        }
    finally:
        connection.close()


NOTHING = {"parts": 0, "uploads": 0}
