"""What other systems need, as far as it can be tried here: paths, names, and a Python without the modules of POSIX."""

import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import click
import pytest

from views_runs import Storage
from views_runs.cli import main
from views_runs.database.connection import SETTINGS, format_uri
from views_runs.names import file_name

#: The modules that Windows does not have.
MISSING = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")

MAIN_JOB = f"""
import sys
for name in {MISSING}:
    sys.modules[name] = None
from pathlib import Path
from views_runs import Storage
from views_runs.cli import main
store = Storage(sys.argv[1])
store.store("small", [1], {{"author": "testuser", "train_end": 480}})
store.store("large", bytes(3_000_000))
assert store.fetch("small") == [1] and store.fetch("large") == bytes(3_000_000)
assert store.list("train_end > 2019-11") == ["small"]
assert store.verify().damaged == () and store.backup("copy.db").versions == 2
assert {{finding.state for finding in store.doctor()}} <= {{"ok", "warning"}}
store.delete("large")
main(["--store", sys.argv[1], "model", "list"])
"""


def test_without_the_modules_of_posix(store: Storage) -> None:
    """The main job needs none of them."""
    environment = {**os.environ, "USERNAME": "testuser", "LOGNAME": "testuser"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN_JOB, str(store.path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "small" in done.stdout and "testuser" in done.stdout


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (r"C:\models.db", "file:///C:/models.db?mode=rw"),
        (r"C:\a b\m#1?.db", "file:///C:/a%20b/m%231%3F.db?mode=rw"),
        (r"\\server\share\models.db", "file:////server/share/models.db?mode=rw"),
        (r"\\server\share\a b\models.db", "file:////server/share/a%20b/models.db?mode=rw"),
    ],
)
def test_uris_of_windows(path: str, uri: str) -> None:
    """SQLite knows no server in a URI: that of a share is a part of the path."""
    assert format_uri(PureWindowsPath(path), "rw") == uri


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CON", "_CON.pickle"),
        ("nul", "_nul.pickle"),
        ("com1.x", "_com1.x.pickle"),
        ("lpt9 x", "_lpt9 x.pickle"),
        ("conflict", "conflict.pickle"),
        ("com", "com.pickle"),
        ("aux:2", "aux_2.pickle"),
    ],
)
def test_names_of_devices(name: str, file: str) -> None:
    """A file of such a name is a device in every folder of Windows."""
    assert file_name(name) == file


def test_arguments_are_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, click would take a glob of models for one of files."""
    given = {}
    monkeypatch.setattr(click.Group, "main", lambda self, *arguments, **settings: given.update(settings))
    main(["model", "list", "fatalities*"])
    assert given["windows_expand_args"] is False


def test_a_synchronised_folder_is_reported_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where mounts cannot be listed, too."""
    folder = tmp_path / "OneDrive - Institute"
    folder.mkdir()
    Storage(folder / "models.db").store("m", 1)
    monkeypatch.setattr("views_runs.filesystems.MOUNTS", "/nowhere")
    found = [finding for finding in Storage(folder / "models.db").doctor() if finding.topic == "file system"]
    assert [finding.state for finding in found] == ["failure", "warning"]
    assert "OneDrive - Institute appears to be synchronised" in found[0].text


def test_a_commit_reaches_the_disk_of_a_mac() -> None:
    """Elsewhere SQLite ignores the setting."""
    assert "PRAGMA fullfsync = ON;" in SETTINGS
