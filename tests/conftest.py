"""What every test has: a home of its own, a store, and the command line; and how the quick tests are run."""

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.support.budgets import IN_FULL
from tests.support.machine import need
from views_runs import Storage
from views_runs.cli import main

#: What must not come from the environment of whoever runs the tests.
UNWANTED = (
    "VIEWS_RUNS_STORE",
    "VIEWS_RUNS_TRUSTED_ONLY",
    "VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS",
    "VIEWS_RUNS_ALLOW_UNSAFE_SHARE",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "COLUMNS",
    "FORCE_COLOR",
)

#: A file system in memory, where a first store takes 4 ms instead of 30; and the bytes that the tests may need there.
MEMORY, ENOUGH = Path("/dev/shm"), 2_000_000_000

# Hypothesis tries a tenth of its examples in the quick tests.
settings.register_profile("dev", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None)
settings.load_profile("ci" if IN_FULL else "dev")

if not IN_FULL and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
    # pytest puts its temporary folders there; those of tests/slow are on the disk.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Threads that wait for each other take more than what they train on a few rows.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tests start some hundred interpreters, each of which would compile the package again where nothing is to be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What the tests import stays for good: to look for garbage in it takes a twentieth of the time.
gc.disable()

# A shell lets what it runs in the background ignore Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def is_quick(config: pytest.Config) -> bool:
    """Tell whether pytest was called without paths: then it runs all quick tests."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run all quick tests on two to four processors, and chosen ones in pytest's own process."""
    return min(4, os.cpu_count() or 1) if is_quick(config) else 0


def pytest_collection_finish() -> None:
    """Collect garbage from here on, of what the tests make."""
    gc.freeze()
    gc.enable()


class Scheduler(LoadFileScheduling):
    """Gives each file's tests to one process, and all of the documentation's to one, which runs the examples once."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/docs" if nodeid.startswith("tests/docs/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Choose which process runs which tests."""
    return Scheduler(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to run the tests that were not run."""
    if is_quick(config):
        terminalreporter.section("not run")
        terminalreporter.line("The tests of crashes, failing system calls, shares, other versions and whole budgets:")
        terminalreporter.line(f"    {os.path.relpath(sys.executable, config.rootpath)} -m pytest tests/slow")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the user's own store and folders."""
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    # On Windows, platformdirs asks the system for the user's folders, whatever the home is.
    for name in ("HOME", "USERPROFILE", "WIN_PD_OVERRIDE_LOCAL_APPDATA"):
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
    """The file of the store, as another program opens it; a large model is written in a thread of its own."""
    connection = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root on Linux can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "views_runs_test", folder], capture_output=True
    )
    need(mounted.returncode == 0, f"mount failed: {mounted.stderr!r}")
    yield folder
    subprocess.run(["umount", folder], check=True)
