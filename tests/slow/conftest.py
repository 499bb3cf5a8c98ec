"""These tests are about what a disk and a crash do: their files lie on the disk, and not in memory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="views_runs-")).resolve()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: a fuzzer tries more there."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="views_runs-", dir=MEMORY)).resolve()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
