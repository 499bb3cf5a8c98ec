"""A store on an SMB share: it can be read, and nothing that writes begins."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.machine import need
from tests.support.shares import NAME, READING, SMB_LOCKS, WRITING, fill, find_files, refused
from views_runs import Storage, StorageError, UnsafeShareError, filesystems
from views_runs.database import database, locks

#: How Linux mounts a share, as the rest of a line of its table: as it is advised nowhere, and as it is everywhere.
NOBRL = "cifs //nas/models rw,vers=3.1.1,soft,nounix,nobrl"
DEFAULT = "cifs //nas/models rw,vers=3.1.1,cache=strict,soft,nounix"
SMB = [DEFAULT, NOBRL, "smb3 //nas/models rw,vers=3.1.1"]

#: Mounts a file system at the folder of the store.
Mount = Callable[[str], None]


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    """A store on what may become a share."""
    (tmp_path / "a share").mkdir(mode=0o700)
    return Storage(tmp_path / "a share" / "models.db")


@pytest.fixture
def mount(store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Mount file systems where a store with one model is."""
    need(sys.platform != "win32", "Windows has other paths")
    monkeypatch.setattr(filesystems, "MOUNTS", str(tmp_path / "mountinfo"))
    # The folder may be on a disk.
    monkeypatch.setattr(database, "BLOCK_DEVICE", 0)

    def mount(system: str) -> None:
        at = str(store.path.parent).replace(" ", r"\040")
        lines = ["22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw", f"77 22 0:40 / {at} rw,relatime shared:1 - {system}"]
        Path(filesystems.MOUNTS).write_text("\n".join(lines) + "\n")

    mount("nfs4 nas:/models rw,vers=4.2,hard")
    fill(store.path)
    return mount


@pytest.mark.parametrize("verb", WRITING)
@pytest.mark.parametrize("system", SMB)
def test_nothing_that_writes_begins(store: Storage, mount: Mount, tmp_path: Path, system: str, verb: str) -> None:
    """The refusal names the share and what to do, and leaves the folder as it was."""
    mount(system)
    message, _ = refused(store, WRITING[verb], tmp_path / "work")
    where = f"on this SMB share ({system.split()[0]} at {store.path.parent}), "
    assert message.startswith("cannot ") and where in message
    assert "mount the share over NFS 4.2, or keep the file on a local disk" in message
    assert ("nobrl lets two computers write at once, and models are lost" in message) == ("nobrl" in system)
    assert ("ALLOW_UNSAFE_SHARE=1" in message) == ("nobrl" in system)


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize("system", SMB)
def test_all_that_reads_works(store: Storage, mount: Mount, tmp_path: Path, system: str, verb: str) -> None:
    """And changes nothing."""
    mount(system)
    before = find_files(store.path.parent)
    assert READING[verb](store, tmp_path / "work")
    assert find_files(store.path.parent) == before


@pytest.mark.parametrize("system", SMB)
def test_a_backup_from_a_share(store: Storage, mount: Mount, system: str) -> None:
    """It goes to a disk: this is how models leave a share."""
    mount(system)
    assert store.backup("copy.db").versions == 1 and Storage("copy.db").store("m", 1).version == 1


@pytest.mark.parametrize("given", [True, False])
def test_who_is_alone_may_go_on(store: Storage, mount: Mount, monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    """With nobrl, an argument or an environment variable lets everything work."""
    mount(NOBRL)
    if not given:
        monkeypatch.setenv("VIEWS_RUNS_ALLOW_UNSAFE_SHARE", "1")
    alone = Storage(store.path, allow_unsafe_share=given)
    assert alone.store("m", bytes(2_000_000)).version == 1 and alone.annotate("m", note="x").version == 1
    assert alone.backup("copy.db").versions == 2 and alone.delete("m") is None
    assert Storage(store.path.with_name("new.db"), allow_unsafe_share=given).store("m", 1).version == 1
    monkeypatch.delenv("VIEWS_RUNS_ALLOW_UNSAFE_SHARE", raising=False)
    with pytest.raises(UnsafeShareError):
        Storage(store.path).store("n", 1)


@pytest.mark.parametrize("verb", sorted({*WRITING} - {"upload"}))
def test_nobody_can_go_on_without_locks(
    store: Storage, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Without nobrl it is the locks that decide."""
    monkeypatch.setattr(locks, "_CHILD", SMB_LOCKS + locks._CHILD)
    monkeypatch.setenv("VIEWS_RUNS_ALLOW_UNSAFE_SHARE", "1")
    mount(DEFAULT)
    message, _ = refused(Storage(store.path), WRITING[verb], tmp_path / "work")
    assert "the server refuses the locks" in message and "the mount option nobrl makes writing possible" in message
    assert Storage(store.path).fetch(NAME)


def test_a_share_that_has_locks(store: Storage, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they work, or cannot be tried, nothing but the kind of share is against it."""
    mount(DEFAULT)
    assert Storage(store.path, allow_unsafe_share=True).store("m", 1).version == 1
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert Storage(store.path, allow_unsafe_share=True).store("n", 1).version == 1


def test_it_is_mounted_as_advised(store: Storage, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was refused goes on as soon as the share is mounted in another way."""
    mount(DEFAULT)
    with pytest.raises(UnsafeShareError):
        store.store("m", 1)
    mount("nfs4 nas:/models rw,vers=4.2,hard")
    assert store.store("m", 1).version == 1
    mount(DEFAULT)
    with pytest.raises(UnsafeShareError):
        store.delete("m")
    monkeypatch.setattr(filesystems, "MOUNTS", "/nowhere")
    store.delete("m")


def test_a_share_elsewhere(store: Storage, mount: Mount, tmp_path: Path) -> None:
    """A share that the store is not on is nothing to it, and a link to the share does not hide it."""
    mount(NOBRL)
    assert Storage("own.db").store("m", 1).version == 1
    (tmp_path / "link").symlink_to(store.path.parent)
    with pytest.raises(UnsafeShareError, match=r"SMB share \(cifs at .*a share\)"):
        Storage(tmp_path / "link" / "new.db").store("m", 1)


def test_a_home_on_a_share(store: Storage, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the default store is not created either."""
    mount(NOBRL)
    home = store.path.parent / "data"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    with pytest.raises(UnsafeShareError):
        Storage().store("m", 1)
    with pytest.raises(UnsafeShareError):
        Storage().fetch_or_train("m", list, {"author": "ines"})
    assert not home.exists() and Storage().list() == []


def test_a_journal_is_not_played_back(store: Storage, mount: Mount) -> None:
    """Under nobrl a reader does not see whether the writer lives, and would take its changes back under its hands."""
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(store.path)!r}, isolation_level=None)
connection.executescript("PRAGMA journal_mode = PERSIST; PRAGMA cache_size = 1; BEGIN")
for number in range(9):
    connection.execute("INSERT INTO required_fields VALUES (?)", (f"{{number}}" + "x" * 30_000,))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code])
    mount(NOBRL)
    before = find_files(store.path.parent)
    with pytest.raises(StorageError, match="another computer is writing, or was killed while writing.* Try again"):
        store.list()
    assert any("another computer is writing" in finding.text for finding in store.doctor())
    assert find_files(store.path.parent) == before
    assert Storage(store.path, allow_unsafe_share=True).list() == [NAME] and store.list() == [NAME]


@pytest.mark.parametrize("system", SMB)
def test_doctor(store: Storage, mount: Mount, system: str) -> None:
    """It fails, names nobrl as what loses models, and does not meet another computer."""
    mount(system)
    before = find_files(store.path.parent)
    findings = store.doctor(peer=True, say=lambda text: None)
    [failure] = [one for one in findings if (one.topic, one.state) == ("file system", "failure")]
    assert ("the mount option nobrl lets" in failure.text and "models are lost" in failure.text) == ("nobrl" in system)
    assert "NFS 4.2" in failure.advice and find_files(store.path.parent) == before
    assert (findings[-1].topic, findings[-1].state) == ("coherence", "failure") and "SMB share" in findings[-1].text
    assert not [one for one in store.doctor() if one.topic == "coherence"]


def test_on_the_command_line(store: Storage, mount: Mount, viewser: Callable[..., Result]) -> None:
    """Each command that writes prints the refusal and exits with 1; the others work."""
    mount(NOBRL)
    Path("m.pickle").write_bytes(b"\x80\x04N.")
    before, copy = find_files(store.path.parent), str(store.path.with_name("copy.db"))
    writing = [["annotate", NAME, "--set", "note=x"], ["delete", "-y", NAME], ["upload", "m.pickle", "m"]]
    for line in [*writing, ["require", "author"], ["backup", copy], ["doctor", "--peer"]]:
        output = " ".join(viewser("model", *line, exit_code=1).output.split())
        assert "on this SMB share (cifs at" in output and "nobrl lets" in output and "NFS 4.2" in output, output
    for line in (["list"], ["inspect", NAME], ["verify"], ["check", NAME], ["download", NAME, "there.pickle"]):
        viewser("model", *line)
    assert find_files(store.path.parent) == before and Path("there.pickle").exists()
