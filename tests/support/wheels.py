"""The package as a wheel, and the commands that install it."""

import os
import subprocess
import sys
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
