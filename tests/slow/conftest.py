"""These tests are about what a disk and a crash do: their files lie on the disk, and not in memory."""

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import need
from tests.support.victims import shared_page

#: A file system in memory, if there is one.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="views_runs-")).resolve()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, for tests of what is in the files: they try ten times as much there."""
    folder = Path(tempfile.mkdtemp(prefix="views_runs-", dir=MEMORY)).resolve()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    """Where workers that are to be killed show what they are doing."""
    need(hasattr(os, "fork"), "this system does not fork")
    with shared_page() as memory:
        yield memory
