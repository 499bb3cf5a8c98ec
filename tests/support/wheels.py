"""The package as a wheel, and the commands that install it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.machine import copy_source


def run(*command: object, **environment: str) -> str:
    """Run a command, which has to succeed, and return what it prints."""
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd="/", env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def build_wheel(folder: Path) -> Path:
    """Build the package in a folder, from the files that git knows, and return the wheel."""
    copy_source(folder / "source")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source")
    [wheel] = folder.glob("views_runs*.whl")
    return wheel
