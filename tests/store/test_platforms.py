"""What other systems need, as far as it can be tried here: paths, names, and a Python without the modules of POSIX."""

import errno
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import click
import pytest

from tests.support.machine import need
from tests.support.stores import start_storing
from views_runs import DownloadError, Finding, Storage, files, filesystems, texts
from views_runs.cli import main, move
from views_runs.database import database, locks, owners, uploads
from views_runs.database.connection import SETTINGS, format_uri
from views_runs.filesystems import SHARE, Mount, find_mount, has_modes, is_unc
from views_runs.health import doctor, permissions
from views_runs.names import file_name
from views_runs.texts import shell_line

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
        ("COM²", "_COM².pickle"),
        ("conflict", "conflict.pickle"),
        ("com", "com.pickle"),
        ("aux:2", "aux_2.pickle"),
    ],
)
def test_names_of_devices(name: str, file: str) -> None:
    """A file of such a name is a device in every folder of Windows."""
    assert file_name(name) == file


def test_the_journal_of_windows_is_not_replaced(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path can have several forms there, of which SQLite takes the one that was given."""
    need(os.name == "posix", "Wine makes no links")
    store.store("m", 1)
    link = store.path.parent / "short"
    link.symlink_to(store.path.parent)
    monkeypatch.setattr(files, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))
    assert files.companion(link / "models.db", "-journal") == link / "models.db-journal"
    for folder in (store.path.parent, link):
        with pytest.raises(DownloadError, match="this is the store itself"):
            Storage(link / "models.db").download("m", folder / "models.db-journal", overwrite=True)


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
    assert found[0].state == "failure" and len(found) == 2
    assert "OneDrive - Institute appears to be synchronised" in found[0].text


def test_a_commit_reaches_the_disk_of_a_mac() -> None:
    """Elsewhere SQLite ignores the setting."""
    assert "PRAGMA fullfsync = ON;" in SETTINGS


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("forest:1", "forest:1"),
        ("C:\\Program Files\\models.db", '"C:\\Program Files\\models.db"'),
        ("numpy<2", '"numpy<2"'),
        ("", '""'),
        ("a & calc", '"a & calc"'),
        ("a' & calc", "..."),
        ("$(calc)", "..."),
        ("`calc`", "..."),
        ("%PATH%", "..."),
        ('a" & calc & "', "..."),
        ("a\u201d; calc; \u201c", "..."),
        ("a\ncalc", "..."),
    ],
)
def test_lines_for_the_shells_of_windows(monkeypatch: pytest.MonkeyPatch, word: str, line: str) -> None:
    """What cmd or PowerShell would run is left out; the rest is in double quotes, which both know."""
    monkeypatch.setattr(texts, "os", SimpleNamespace(name="nt"))
    assert shell_line("inspect", word) == f"inspect {line}"
    monkeypatch.setattr(texts, "os", SimpleNamespace(name="posix"))
    assert shell_line("inspect", word) == shlex.join(["inspect", word])


def test_a_loop_for_powershell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives upload several files is shown a line that works."""
    for module in (texts, move):
        monkeypatch.setattr(module, "os", SimpleNamespace(name="nt"))
    shown = move.format_loop(["a.pickle", "b 2.pickle"])
    assert shown == '"a.pickle", "b 2.pickle" | ForEach-Object { views-runs model upload $_ }'


#: What the command `mount` prints on a Mac, with a disk image at /Volumes/image, a stick, and two shares.
MAC = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect, root data)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
/dev/disk5s1 on /Volumes/image (apfs, local, nodev, nosuid, journaled, noowners, mounted by ann)
/dev/disk4s1 on /Volumes/A STICK (1) (exfat, local, nodev, nosuid, noowners)
//ann@server/models on /Volumes/models (smbfs, nodev, nosuid, mounted by ann)
server:/export on /Volumes/export (nfs, nodev, nosuid, mounted by ann)
something else
"""


def on_a_mac(monkeypatch: pytest.MonkeyPatch, mounts: str = MAC) -> None:
    """Find mounts as on macOS."""
    printed = SimpleNamespace(stdout=mounts.encode())
    monkeypatch.setattr(filesystems, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(subprocess, "run", lambda command, **settings: printed)


@pytest.mark.parametrize(
    ("path", "kind", "point", "modes"),
    [
        ("/Users/ann/models.db", "apfs", "/", True),
        ("/Volumes/image/models.db", "apfs", "/Volumes/image", False),
        ("/Volumes/image 2/models.db", "apfs", "/", True),
        ("/Volumes/A STICK (1)/models.db", "exfat", "/Volumes/A STICK (1)", False),
        ("/Volumes/models/a/models.db", "smbfs", "/Volumes/models", False),
        ("/Volumes/export/models.db", "nfs", "/Volumes/export", True),
    ],
)
def test_mounts_of_a_mac(monkeypatch: pytest.MonkeyPatch, path: str, kind: str, point: str, modes: bool) -> None:
    """They are what `mount` prints; where owners are ignored, modes mean nothing."""
    need(os.name == "posix", "these are paths of POSIX")
    on_a_mac(monkeypatch)
    mount = find_mount(Path(path))
    assert mount and (mount.kind, mount.point, has_modes(Path(path))) == (kind, point, modes)
    assert point != "/" or "read-only" not in mount.options


def test_a_mac_without_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is claimed if it prints nothing, or is not there."""
    on_a_mac(monkeypatch, "")
    assert find_mount(tmp_path) is None

    def fail(*arguments: object, **settings: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", fail)
    assert find_mount(tmp_path) is None


def test_a_volume_without_owners(
    store: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files look as if they were everyone's: fetch is not refused, and no chmod is advised."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", [1])
    store.path.chmod(0o777)
    store.path.parent.chmod(0o777)
    on_a_mac(monkeypatch, f"/dev/disk4s1 on {store.path.parent} (exfat, local, nodev, nosuid, noowners)\n")
    assert store.fetch("m") == [1] and "mode bits do not show who can write here" in caplog.text
    [finding] = permissions.check_permissions(store.path)
    assert finding.state == "warning" and "chmod" not in finding.advice
    assert finding.text.startswith("on exfat with ownership ignored (noowners), mode bits do not show")
    assert "Everyone who uses this computer can write to it" in finding.advice
    [finding] = doctor.check_file_system(store.path)
    assert finding.state == "warning" and finding.advice == "Eject it before you unplug it"


def test_nfs_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mount` does not say which version it is, so nothing is promised."""
    need(os.name == "posix", "these are paths of POSIX")
    on_a_mac(monkeypatch)
    [finding] = doctor.check_file_system(Path("/Volumes/export/models.db"))
    assert finding.state == "warning" and "its version cannot be determined" in finding.text


def test_locks_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a Mac has no such locks, SQLite uses others: whether they work is not known. Elsewhere, it is a failure."""
    need(sys.platform != "win32", "locks cannot be tested")
    # The children report what `print` is given.
    monkeypatch.setattr(locks, "_CHILD", f"import sys; print({errno.ENOTSUP}, flush=True); sys.stdin.read()")
    [finding] = doctor.check_locks(tmp_path / "models.db")
    assert (finding.state, finding.text) == ("failure", f"a lock is refused: {os.strerror(errno.ENOTSUP)}")
    monkeypatch.setattr(locks, "sys", SimpleNamespace(platform="darwin", executable=sys.executable))
    [finding] = doctor.check_locks(tmp_path / "models.db")
    assert finding.state == "warning" and finding.text.startswith("locks could not be tested: this volume has no locks")
    assert [*tmp_path.glob(f"{locks.PROBE}*")] == []


@pytest.mark.parametrize(
    ("path", "share"),
    [
        (r"\\server\share\models.db", True),
        ("//server/share/models.db", True),
        (r"\\?\UNC\server\share\models.db", True),
        (r"\\?\C:\models.db", False),
        (r"\\.\C:\models.db", False),
        (r"C:\models.db", False),
        ("/home/ann/models.db", False),
    ],
)
def test_paths_that_name_a_server(path: str, share: bool) -> None:
    """Others begin with two slashes too."""
    assert is_unc(path) == share


def test_a_share_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log warns once of a store on a network drive of Windows, and doctor does each time."""
    Storage(tmp_path / "models.db").store("m", 1)
    database._warn_of_share.cache_clear()
    monkeypatch.setattr(filesystems, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(filesystems, "_find_drive", lambda path: Mount(SHARE, "Z:\\", "Z:\\", ()))
    monkeypatch.setattr(filesystems, "is_share", lambda path: True)
    monkeypatch.setattr(database, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))
    for _ in range(2):
        Storage(tmp_path / "models.db").list()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in warnings if "stores on Windows shares were not tested" in text] == [
        f"{tmp_path / 'models.db'} is on a network drive: stores on Windows shares were not tested, and may lose models"
    ]
    [finding] = doctor.check_file_system(tmp_path / "models.db")
    assert finding.state == "warning" and finding.text.startswith("a network drive at Z:\\: stores on Windows shares")


def test_what_a_killed_store_left(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell whether a process has ended, doctor says why its parts stay, and for how long."""
    store.store("first", 1)
    process = start_storing(store)
    process.kill()
    process.communicate()
    with database.connect(store.path, 1) as connection:
        owner = {**json.loads(connection.value("SELECT owner FROM uploads")), "kernel": None, "start": None}
        connection.change("UPDATE uploads SET owner = ?", (json.dumps(owner),))
    store.store("second", 2)
    [finding] = [one for one in store.doctor() if one.topic == "uploads in progress"]
    assert "unless it was killed: this cannot be determined on Windows and macOS" in finding.text
    assert f" no progress {uploads.STALE / 60:.0f} minutes after " in finding.text
    monkeypatch.setattr(uploads, "STALE", 0)
    store.store("third", 3)
    assert Finding("leftovers", "ok", "none from interrupted uploads") in store.doctor()


def test_what_a_killed_backup_left(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be this computer's, where that cannot be known."""
    monkeypatch.setattr(owners, "kernel", lambda: None)
    store.store("m", 1)
    store.path.with_name(f".views_runs.{owners.process_tag()}.0123").touch()
    [finding] = [one for one in store.doctor() if one.topic == "backups"]
    assert finding.text.endswith("belongs to a backup that is still running, or was killed")
