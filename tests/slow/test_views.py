"""Scripts and pickles of 1.x, in an environment with the extra `views`, beside the real 1.14 as a black box."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import ROOT, copy_source, need

TESTS = ROOT / "tests" / "views"

#: The last version of 1.x. Without what it requires: the extra installs most of it, and its storage is not used.
REAL = "views_runs==1.14.2"


def find_python() -> str | None:
    """Return a Python 3.11: pandas 1 has no wheels for later ones."""
    if sys.version_info[:2] == (3, 11):
        return sys.executable
    found = shutil.which("python3.11")
    works = found and not subprocess.run([found, "-c", "import venv"], capture_output=True).returncode
    return found if works else None


def run(python: Path, *arguments: object, cwd: Path, codes: tuple[int, ...] = (0,), **environment: str) -> str:
    """Run a Python, and return what it prints."""
    done = subprocess.run(
        [python, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode in codes, done.stdout
    return done.stdout


def install(python: Path, *arguments: object) -> bool:
    """Install distributions for a Python; return whether that worked."""
    # stepshift 2 is not there as a wheel.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--prefer-binary"]
    return not subprocess.run([*map(str, [*pip, *arguments])], capture_output=True).returncode


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """The interpreter of an environment with `.[views]`, and pytest; beside it is a folder with the real 1.14."""
    newest = find_python()
    need(newest, "there is a Python 3.11")
    assert newest
    folder = Path(tempfile.mkdtemp(prefix="views_runs-"))
    subprocess.run([newest, "-m", "venv", "--without-pip", folder / "env"], check=True)
    made = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    copy_source(folder / "source")
    need(install(made, f"{folder / 'source'}[views]", "scikit-learn>=1.3", "pytest>=8.2"), "pip can install the extra")
    need(install(made, "--no-deps", "--target", folder / "real", REAL), "pip can install the real 1.14")
    yield made
    shutil.rmtree(folder, ignore_errors=True)


def test_scripts_and_pickles_of_1x(python: Path) -> None:
    """Both predict the same, each loads the other's pickles, and the tests that need the extra pass."""
    folder = python.parents[2]
    scenario = TESTS / "scenario.py"
    here = run(python, scenario, folder / "here", cwd=folder)
    assert Path(here.strip()).is_relative_to(folder / "env")
    real = run(python, scenario, folder / "real-made", folder / "here", cwd=folder, PYTHONPATH=str(folder / "real"))
    assert Path(real.strip()).is_relative_to(folder / "real")
    (folder / "compared").mkdir()
    (folder / "here").rename(folder / "compared" / "here")
    (folder / "real-made").rename(folder / "compared" / "real")
    # The settings of this project's tests are for another environment.
    options = ["-q", "-c", os.devnull, f"--rootdir={TESTS}", "--noconftest", "--import-mode=importlib"]
    plain = [*options, "-p", "no:cacheprovider", TESTS]
    said = run(python, "-m", "pytest", *plain, cwd=folder, COMPARED=str(folder / "compared"))
    assert " passed" in said and "skipped" not in said
