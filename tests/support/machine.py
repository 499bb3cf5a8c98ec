"""What a test needs of the machine that it runs on."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from views_runs import Storage

#: The folder that holds the package and its tests.
ROOT = Path(__file__).parents[2]

#: A user and a group without rights.
NOBODY = 65534


def need(condition: object, reason: str) -> None:
    """Skip a test where the machine cannot run it; in continuous integration that is a failure."""
    if not condition:
        if os.environ.get("CI"):
            pytest.fail(f"cannot be skipped here: {reason}")
        pytest.skip(reason)


def copy_source(folder: Path) -> None:
    """Copy the files of this repository to a folder: building there leaves nothing beside the originals."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())


def as_nobody(code: str, store: Storage, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user without rights; root ignores mode bits."""
    need(os.name == "posix" and os.geteuid() == 0, "only root can drop its privileges")
    # All is imported before the privileges go, by using it once: Python's folder may be closed to others.
    code = (
        "import os, sys, tempfile, difflib, platformdirs\nfrom views_runs import *\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    other = Storage(folder + '/other.db')\n"
        "    other.store('m', 'x' * 3_000_000), other.fetch('m'), other.store_metadata('m', {}), other.delete('m')\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\nstore = Storage(sys.argv[1])\n{code}"
    )
    for folder in [store.path.parent, *store.path.parent.parents][:-1]:
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, env=environment
    )
