"""What doctor says of a store, of those who may write it, and of where it lies."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.machine import need
from tests.support.stores import start_storing
from views_runs import Finding, Storage, filesystems
from views_runs.database import locks


def found(store: Storage, topic: str, state: str) -> list[str]:
    """Return what is said of a topic in this state, with the advice."""
    return [f"{one.text} -> {one.advice}" for one in store.doctor() if (one.topic, one.state) == (topic, state)]


def failures(store: Storage) -> list[Finding]:
    """Return what is wrong."""
    return [one for one in store.doctor() if one.state == "failure"]


@pytest.fixture(autouse=True)
def a_private_folder(tmp_path: Path) -> None:
    """Keep the folder's mode out of it, whatever the umask is."""
    tmp_path.chmod(0o700)


def test_a_store_that_is_well(store: Storage, viewser: Callable[..., Result]) -> None:
    """Each thing is said to be as it should, and the exit code is 0."""
    store.store("m", 1, {"author": "testuser"})
    store.store("m", 2, overwrite=True)
    findings = store.doctor()
    topics = {
        "store",
        "journal",
        "file",
        "free pages",
        "leftovers",
        "free space",
        "permissions",
        "file system",
        "locks",
    }
    assert {one.topic for one in findings} >= topics
    assert not failures(store)
    assert "1 models, 2 versions" in found(store, "file", "ok")[0]
    assert f"{store.path} (as given), views_runs " in found(store, "store", "ok")[0]
    result = viewser("model", "doctor")
    assert "a rollback journal" in result.stdout and "$VIEWS_RUNS_STORE" in result.stdout
    shown = json.loads(viewser("model", "doctor", "--json").stdout)
    assert {one["topic"] for one in shown} >= topics and {*shown[0]} == {"topic", "state", "text", "advice"}
    assert not [*store.path.parent.glob(f"{locks.PROBE}*")]


def test_what_decided_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that was given, one of the environment, and the default."""
    assert " (the default)" in Storage().doctor()[0].text and Storage().doctor()[0].state == "ok"
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "models.db"))
    assert "models.db ($VIEWS_RUNS_STORE)" in Storage().doctor()[0].text
    assert "it is not there yet" in found(Storage(tmp_path / "new.db"), "store", "warning")[0]


def test_a_share_that_is_not_mounted(tmp_path: Path, viewser: Callable[..., Result]) -> None:
    """A folder that is missing is a failure."""
    [finding] = failures(Storage(tmp_path / "share" / "models.db"))
    assert finding.text.endswith("share is not there") and "that the share is mounted" in finding.advice
    assert "is not there" in viewser("model", "doctor", "--store", str(tmp_path / "no" / "m.db"), exit_code=1).stdout


@pytest.mark.parametrize("content", [b"", b"garbage" * 9999, b"SQLite format 3\0" + bytes(9999)])
def test_what_is_no_store(store: Storage, content: bytes) -> None:
    """Whatever is there, it is looked at, and nothing is changed or raised."""
    store.path.write_bytes(content)
    assert bool(failures(store)) == bool(content)
    assert store.path.read_bytes() == content
    assert content or "it is empty (0 bytes)" in found(store, "store", "warning")[0]
    store.path.unlink()
    store.path.mkdir()
    assert "it is a folder" in found(store, "store", "failure")[0]


def test_another_programs_database(store: Storage) -> None:
    """In WAL mode too it is left as it is, by its last user's closing of it no less."""
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(store.path)!r}, isolation_level=None)
connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE own (x)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    before = {file: file.read_bytes() for file in store.path.parent.glob("models.db*")}
    assert len(before) == 3 and "the file is of another program" in found(store, "journal", "failure")[0]
    assert {file: file.read_bytes() for file in store.path.parent.glob("models.db*")} == before


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """That is said, and not raised."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root can become another user")
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    code = (
        "import os, sys; from views_runs import Storage; from views_runs.health import doctor; os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]: print(Storage(path).doctor()[0])"
    )
    paths = [str(tmp_path / "private" / file) for file in ("models.db", "deep/models.db")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, *paths]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.stdout.count("state='failure', text=\"[Errno 13] Permission denied") == 2, result.stderr


@pytest.mark.parametrize("what", ["file", "journal", "folder", "sticky folder"])
def test_open_to_everyone(store: Storage, what: str, viewser: Callable[..., Result]) -> None:
    """Who may write the file, its journal or its folder may run code as whoever fetches: that is a failure."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    place = {"file": store.path, "journal": Path(f"{store.path}-journal")}.get(what, store.path.parent)
    place.chmod({"folder": 0o777, "sticky folder": 0o1777}.get(what, 0o646))
    [finding] = failures(store)
    assert (finding.topic, finding.advice) == ("permissions", f"chmod o-w {place}")
    viewser("model", "doctor", exit_code=1)
    subprocess.run(finding.advice, shell=True, check=True)
    assert not failures(store)


def test_a_journal_that_the_group_may_not_write(store: Storage) -> None:
    """It would be a disk I/O error for the second who stores."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    store.path.chmod(0o664)
    Path(f"{store.path}-journal").chmod(0o644)
    [finding] = failures(store)
    assert "not all who may write models.db may write models.db-journal" in finding.text
    subprocess.run(finding.advice, shell=True, check=True)
    assert not failures(store)
    Path(f"{store.path}-journal").unlink()
    store.path.parent.chmod(0o755)
    [finding] = failures(store)
    assert "the group may write models.db, and not make its journal" in finding.text
    subprocess.run(finding.advice, shell=True, check=True)
    assert not failures(store) and not found(store, "permissions", "warning")
    if os.geteuid() == 0:
        os.chown(store.path.parent, -1, 12345)
        store.path.parent.chmod(0o2770)
        assert "models.db is not of the folder's group, 12345" in found(store, "permissions", "warning")[0]
    store.path.parent.chmod(0o770)
    assert "gets its maker's own group" in found(store, "permissions", "warning")[0]


def test_who_may_only_read(store: Storage) -> None:
    """That may be meant to be so."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root can become another user")
    store.store("m", 1)
    for place in store.path.parents[:3]:
        place.chmod(0o755)
    code = f"import os; from views_runs import Storage; from views_runs.health import doctor; os.setuid(65534); print(Storage({str(store.path)!r}).doctor())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "you may read the store, not write it" in shown and "'failure'" not in shown
    assert "that cannot be known here: [Errno 13] Permission denied" in shown


def test_another_journal_mode(store: Storage, sql: sqlite3.Connection) -> None:
    """WAL loses data on a share."""
    store.store("m", 1)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE other (x)")
    assert "journal_mode is wal: another program set it" in found(store, "journal", "failure")[0]


def test_a_writer_that_died(store: Storage) -> None:
    """What it began is undone, and that is said."""
    store.store("m", 1)
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(store.path)!r}, isolation_level=None)
connection.executescript("PRAGMA journal_mode = PERSIST; PRAGMA cache_size = 1; BEGIN")
for number in range(9):
    connection.execute("INSERT INTO required_fields VALUES (?)", (f"{{number}}" + "x" * 30_000,))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code])
    assert "somebody died while writing, and what they began is undone now" in found(store, "journal", "ok")[0]
    store.store("n", 1)
    assert found(store, "journal", "ok")[0].endswith("at rest -> ") and store.required() == []


def test_stores_that_are_under_way_and_that_died(store: Storage) -> None:
    """A living store is named with since when; a dead one is a warning, until the next store clears it."""
    store.store("first", 1)
    process = start_storing(store)
    assert f"(process {process.pid}) has been storing a model since 20" in found(store, "stores under way", "ok")[0]
    process.kill()
    process.communicate()
    assert f"(process {process.pid}), 20" in found(store, "leftovers", "warning")[0]
    store.store("second", 2)
    assert found(store, "leftovers", "ok") == ["none of stores that died -> "]


def test_a_disk_that_is_nearly_full(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before it fails."""
    store.store("m", 1)
    for free, state in ((10**6, "failure"), (10**10, "warning"), (10**12, "ok")):
        usage = os.terminal_size  # something with fields
        monkeypatch.setattr(
            "shutil.disk_usage", lambda folder, free=free: type("U", (), {"free": free, "total": 10**12})
        )
        assert found(store, "free space", state), usage


def mounted(monkeypatch: pytest.MonkeyPatch, folder: Path, *systems: str) -> None:
    """Let these file systems be mounted at a folder."""
    lines = ["22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"]
    for number, system in enumerate(systems, 30):
        lines.append(f"{number} 22 0:{number} / {str(folder).replace(' ', chr(92) + '040')} rw shared:1 - {system}")
    table = folder.parent / "mountinfo"
    table.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(filesystems, "MOUNTS", str(table))


NFS = "nfs4 server:/export rw,vers=4.2,hard,proto=tcp,local_lock=none"


@pytest.mark.parametrize(
    "system, state, text",
    [
        (NFS, "ok", "lost nothing"),
        (NFS.replace("hard", "soft"), "warning", "soft: a server that is slow"),
        (NFS + ",nolock", "failure", "locks stay on this computer"),
        (NFS.replace("local_lock=none", "local_lock=all"), "failure", "locks stay on this computer"),
        (NFS + ",nocto", "failure", "nocto"),
        ("nfs server:/export rw,vers=3,hard", "warning", "not version 4"),
        ("cifs //server/share rw,cache=strict", "warning", "SMB was not tried -> Ask `viewser model doctor --peer`"),
        ("cifs //server/share rw,nobrl", "failure", "nobrl"),
        ("cifs //server/share rw,cache=loose", "failure", "cache=loose"),
        ("tmpfs tmpfs rw", "warning", "in memory"),
        ("overlay overlay rw", "warning", "container"),
        ("fuse.sshfs host: rw", "failure", "keeps no two computers"),
        ("xfs /dev/sdb rw", "ok", "a disk of this computer"),
        ("lustre mgs:/fs rw", "warning", "flock"),
        ("newfs x rw", "warning", "nothing is known of it"),
        ("fuse.glusterfs server:/vol rw", "warning", "cannot be seen"),
    ],
)
def test_file_systems(
    store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, state: str, text: str
) -> None:
    """Of each it is said what is known, with the options it is mounted with, and only those of a network ask for a peer."""
    folder = tmp_path / "a share"
    folder.mkdir(mode=0o700)
    mounted(monkeypatch, folder, "ext4 /dev/sdc rw", system)
    store = Storage(folder / "models.db")
    store.store("m", 1)
    assert any(text in one for one in found(store, "file system", state))
    assert (
        f"{system.split()[0]} at {folder} from {system.split()[1]} (rw"
        in store.doctor()[-2 if "xfs" in system else -3].text
    )
    assert bool(found(store, "coherence", "ok")) == (system[:3] != "xfs")


@pytest.mark.parametrize(
    "options, state, text",
    [
        (["--attribute-timeout=0", "--entry-timeout=0", "--direct-io-mode=enable"], "ok", "lost nothing"),
        (["--entry-timeout=0"], "failure", "mounted without attribute-timeout=0, direct-io-mode=enable: with two"),
    ],
)
def test_glusterfs(
    store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], state: str, text: str
) -> None:
    """Its options are those of the program that serves it."""
    need(sys.platform == "linux", "only Linux tells the arguments of programs")
    mounted(monkeypatch, tmp_path, "fuse.glusterfs localhost:/vol rw")
    waiting = ["-c", "print(); input()", *options, "--volfile-id=vol", str(tmp_path)]
    # A program of that name, with these arguments.
    process = subprocess.Popen(
        ["glusterfs", *waiting], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        # A program that has only begun has no arguments yet.
        assert process.stdout and process.stdout.readline()
        assert text in found(store, "file system", state)[0]
    finally:
        process.communicate(b"\n")


def test_a_synchronised_folder(tmp_path: Path) -> None:
    """It loses one's changes."""
    folder = tmp_path / "Dropbox" / "team"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder / "models.db", tmp_path / "link" / "models.db"):
        assert "Dropbox seems to be synchronised" in found(Storage(path), "file system", "failure")[0]
    # It is the folder that is, whatever a file in another is called.
    assert not found(Storage(tmp_path / "nextcloud-usage.db"), "file system", "failure")


def test_mode_bits_that_mean_nothing(store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On SMB it is the server that knows."""
    store.store("m", 1)
    store.path.chmod(0o666)
    mounted(monkeypatch, tmp_path, "cifs //server/share rw,cache=strict")
    assert found(store, "permissions", "warning") and not failures(store)


def test_locks_that_do_not_work(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a failure."""
    store.store("m", 1)
    monkeypatch.setattr(locks, "trouble", lambda folder: "No locks available")
    assert "No locks available -> Mount the share with locks" in found(store, "locks", "failure")[0]


def test_a_system_that_does_not_tell(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no table of mounts is, nothing is claimed."""
    store.store("m", 1)
    monkeypatch.setattr(filesystems, "MOUNTS", "/nowhere")
    assert "this system does not tell which" in found(store, "file system", "warning")[0]
