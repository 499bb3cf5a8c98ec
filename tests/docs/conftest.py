"""What the tests of the documentation share: the store that the README's first command makes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT


@pytest.fixture(scope="session")
def example_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store that the first example makes for a user named ines."""
    folder = tmp_path_factory.mktemp("example")
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "store_a_model.py")],
        cwd=folder,
        env=os.environ | {"LOGNAME": "ines", "HOME": str(folder), "PYTHONUTF8": "1"},
        capture_output=True,
        check=True,
    )
    return folder / "example.db"


@pytest.fixture
def reader(example_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be ines in a folder of her own, with a copy of the example's store; return the folder."""
    folder = tmp_path / "ines"
    folder.mkdir()
    shutil.copy(example_store, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LOGNAME", "ines")
    return folder
