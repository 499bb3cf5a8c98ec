"""The package as pip installs it."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from tests.support.machine import ROOT


def run(*command: object, **environment: str) -> str:
    """Run a command, which has to succeed, and return what it prints."""
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd="/", env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def build_wheel(folder: Path) -> Path:
    """Build the package in a folder, from the files that git knows, and return the wheel."""
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    [wheel] = folder.glob("views_runs*.whl")
    return wheel


def test_a_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    """It brings the command line and the guide, and no tests."""
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    information = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"views_runs", information}
    assert "views_runs/py.typed" in names and "views_runs/guide/index.rst" in names
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": ""}
    assert run(programs / "viewser", "model", "list", "--json", **home) == "[]\n"
    assert "conditions" in run(programs / "views-runs", "model", "guide", **home)
    assert run(programs / "python", "-m", "views_runs", "model", "guide", "conditions", **home)
