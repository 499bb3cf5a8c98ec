"""What the tests of the documentation share: the examples are run once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.machine import ROOT
from tests.support.programs import Programs
from views_runs import Storage

#: Runs Python with arguments in a folder, and returns what it prints.
Run = Callable[[list[str], Path], str]


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Run Python as a user named ines does."""
    with Programs() as programs:
        yield programs.run


@pytest.fixture(scope="session")
def store_a_model(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, list[str], list[str]]:
    """Run the first example twice; return its store, and the lines that each run printed."""
    folder = tmp_path_factory.mktemp("store_a_model")
    first, second = (run([str(ROOT / "examples" / "store_a_model.py")], folder).splitlines() for _ in range(2))
    return Storage(folder / "example.db"), first, second


@pytest.fixture
def reader(
    store_a_model: tuple[Storage, list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Be ines in a folder of her own, with a copy of the example's store; return the folder."""
    folder = tmp_path / "ines"
    folder.mkdir()
    shutil.copy(store_a_model[0].path, folder / "example.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LOGNAME", "ines")
    return folder
