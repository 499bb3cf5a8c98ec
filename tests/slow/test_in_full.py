"""The quick tests that try a part of what there is try all of it, on the disk."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.machine import ROOT

ABRIDGED = re.compile(r"pytest\.mark\.abridged|^@given\(", re.MULTILINE)
FILES = [
    str(file.relative_to(ROOT))
    for folder in ("unit", "store", "cli", "docs")
    for file in sorted((ROOT / "tests" / folder).glob("test_*.py"))
    if ABRIDGED.search(file.read_text("utf-8"))
]


@pytest.mark.parametrize("file", FILES)
def test_in_full(file: str) -> None:
    """What a file's tests leave out otherwise is tried, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "abridged or hypothesis", file]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_DEBUG_TEMPROOT"}
    environment["TESTS_IN_FULL"] = "1"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
