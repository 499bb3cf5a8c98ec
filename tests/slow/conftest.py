"""These tests are about what a disk and a crash do: their files lie on the disk, and not in memory."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="views_runs-")).resolve()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
