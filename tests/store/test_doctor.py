"""What doctor reports about a store, those who can write to it, and its file system."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from tests.support.machine import need
from tests.support.stores import start_storing
from views_runs import Finding, Storage, filesystems
from views_runs.database import locks
from views_runs.health import doctor, peer, permissions
from views_runs.records import Encounter

#: A date and a time.
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def found(store: Storage, topic: str, state: str) -> list[str]:
    """Return the findings about a topic in this state, each with its advice."""
    return [f"{one.text} -> {one.advice}" for one in store.doctor() if (one.topic, one.state) == (topic, state)]


def examined_by_nobody(path: Path, tmp_path: Path) -> list[list[str]]:
    """Return what doctor says to a user without rights: topics, states and texts."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root can become another user")
    for folder in [tmp_path, *tmp_path.parents][:-1]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import json, os, sys; from views_runs import Storage; from views_runs.health import doctor\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(json.dumps([(one.topic, one.state, one.text) for one in Storage(sys.argv[1]).doctor()]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=environment)
    assert not result.stderr
    return [*json.loads(result.stdout)]


def run_advice(finding: Finding) -> None:
    """Run the command that a finding advises."""
    subprocess.run(finding.advice.split("`")[1], shell=True, check=True)


def failures(store: Storage) -> list[Finding]:
    """Return what is wrong."""
    return [one for one in store.doctor() if one.state == "failure"]


@pytest.fixture(autouse=True)
def locks_work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take it that locks work, unless the test is about them: to try them out starts two processes."""
    if "lock" not in request.node.name and "well" not in request.node.name:
        monkeypatch.setattr(locks, "find_trouble", lambda folder: None)


@pytest.fixture(autouse=True)
def a_private_folder(tmp_path: Path) -> None:
    """Keep the folder's mode out of it, whatever the umask is."""
    tmp_path.chmod(0o700)


def test_a_store_that_is_well(store: Storage, viewser: Callable[..., Result]) -> None:
    """Every check is ok, and the exit code is 0."""
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
    assert "; 1 model, 2 versions, " in found(store, "file", "ok")[0]
    assert f"{store.path} (as given), views_runs " in found(store, "store", "ok")[0]
    result = viewser("model", "doctor")
    assert "rollback journal: 1.0 MB, idle" in result.stdout and "$VIEWS_RUNS_STORE" in result.stdout
    shown = json.loads(viewser("model", "doctor", "--json").stdout)
    assert {one["topic"] for one in shown} >= topics and {*shown[0]} == {"topic", "state", "text", "advice"}
    assert not [*store.path.parent.glob(f"{locks.PROBE}*")]


def test_what_decided_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that was given, one of the environment, and the default."""
    assert " (the default)" in Storage().doctor()[0].text and Storage().doctor()[0].state == "ok"
    monkeypatch.setenv("VIEWS_RUNS_STORE", str(tmp_path / "models.db"))
    assert "models.db ($VIEWS_RUNS_STORE)" in Storage().doctor()[0].text
    assert "the file does not exist yet" in found(Storage(tmp_path / "new.db"), "store", "warning")[0]


def test_a_share_that_is_not_mounted(tmp_path: Path, viewser: Callable[..., Result]) -> None:
    """A folder that is missing is a failure."""
    [finding] = failures(Storage(tmp_path / "share" / "models.db"))
    assert finding.text.endswith("share does not exist") and "that the share is mounted" in finding.advice
    assert "does not exist" in viewser("model", "doctor", "--store", str(tmp_path / "no" / "m.db"), exit_code=1).stdout


@pytest.mark.parametrize("content", [b"", b"garbage" * 9999, b"SQLite format 3\0" + bytes(9999)])
def test_what_is_no_store(store: Storage, content: bytes) -> None:
    """Nothing is raised, and the file is left as it is."""
    store.path.write_bytes(content)
    assert bool(failures(store)) == bool(content)
    assert store.path.read_bytes() == content
    assert content or "the file is empty (0 bytes)" in found(store, "store", "warning")[0]
    store.path.unlink()
    store.path.mkdir()
    assert "this is a folder" in found(store, "store", "failure")[0]


def test_another_programs_database(store: Storage) -> None:
    """It is left as it is even in WAL mode, where closing the last connection could change it."""
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(store.path)!r}, isolation_level=None)
connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE own (x)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    before = {file: file.read_bytes() for file in store.path.parent.glob("models.db*")}
    assert len(before) == 3 and len(found(store, "file", "failure")) == 1
    assert {file: file.read_bytes() for file in store.path.parent.glob("models.db*")} == before


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """That is a finding, and not raised."""
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    for file in ("models.db", "deep/models.db"):
        topic, state, text = examined_by_nobody(tmp_path / "private" / file, tmp_path)[0]
        assert (topic, state) == ("store", "failure") and text.startswith("[Errno 13] Permission denied")


@pytest.mark.parametrize("what", ["file", "journal", "folder"])
def test_open_to_everyone(store: Storage, what: str, viewser: Callable[..., Result]) -> None:
    """A file, journal or folder that everyone can write to is a failure, and the advice fixes it."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    place = {"file": store.path, "journal": Path(f"{store.path}-journal")}.get(what, store.path.parent)
    place.chmod(0o777 if what == "folder" else 0o646)
    [finding] = failures(store)
    assert (finding.topic, finding.advice) == ("permissions", f"Run `chmod o-w {place}`")
    viewser("model", "doctor", exit_code=1)
    run_advice(finding)
    assert not failures(store)


def test_a_folder_that_is_everyones(store: Storage) -> None:
    """In a folder such as /tmp, the advice is to move the store, and not to change the folder."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    store.path.parent.chmod(0o1777)
    [finding] = failures(store)
    assert finding.advice.startswith("Move the store to a folder of its own") and "chmod" not in finding.advice
    (store.path.parent / "own").mkdir(mode=0o700)
    assert not failures(Storage(store.backup(store.path.parent / "own").path))


def test_chmod_that_changes_nothing(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """On such a volume it is not advised; the administrator knows who can write."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    store.path.chmod(0o646)
    monkeypatch.setattr(os, "chmod", lambda path, mode: None)
    [finding] = failures(store)
    assert "chmod has no effect on this volume" in finding.text
    assert finding.advice.startswith("Ask the volume's administrator. ") and "`" not in finding.advice
    assert not [*store.path.parent.glob(f"{permissions.PROBE}*")]


def test_a_journal_that_the_group_may_not_write(store: Storage) -> None:
    """The next member of the group who stores would get a disk I/O error."""
    need(os.name == "posix", "there are no mode bits")
    store.store("m", 1)
    store.path.chmod(0o664)
    Path(f"{store.path}-journal").chmod(0o644)
    [finding] = failures(store)
    assert "the group can write to models.db, but not to models.db-journal" in finding.text
    run_advice(finding)
    assert not failures(store)
    Path(f"{store.path}-journal").unlink()
    store.path.parent.chmod(0o755)
    [finding] = failures(store)
    assert "the group can write to models.db, but cannot create its journal" in finding.text
    run_advice(finding)
    assert not failures(store) and not found(store, "permissions", "warning")
    if os.geteuid() == 0:
        os.chown(store.path.parent, -1, 12345)
        store.path.parent.chmod(0o2770)
        assert "models.db does not belong to its folder's group, 12345" in found(store, "permissions", "warning")[0]
    store.path.parent.chmod(0o770)
    assert "get their creator's group" in found(store, "permissions", "warning")[0]


def test_who_may_only_read(store: Storage) -> None:
    """That is a warning: it may be intended."""
    store.store("m", 1)
    found = examined_by_nobody(store.path, store.path.parent)
    assert ["permissions", "warning", "you can read the store, but not write to it"] in found
    [(state, text)] = [(state, text) for topic, state, text in found if topic == "locks"]
    assert state == "warning" and text.startswith("locks could not be tested: [Errno 13] Permission denied")
    assert "failure" not in {state for _, state, _ in found}


def test_a_file_that_cannot_be_read(store: Storage) -> None:
    """Only that is reported, and not that the user can read it."""
    store.store("m", 1)
    store.path.chmod(0o600)
    found = examined_by_nobody(store.path, store.path.parent)
    assert ["permissions", "failure", "you cannot read the store"] in found
    assert not [text for _, _, text in found if text.startswith("you can read")]


def test_a_check_that_fails(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises is a finding, and the other checks go on."""
    store.store("m", 1)

    def fail(*arguments: object) -> None:
        raise ValueError("unexpected")

    monkeypatch.setattr("shutil.disk_usage", fail)
    monkeypatch.setattr(peer, "meet", fail)
    assert found(store, "free space", "failure") == ["unexpected -> "]
    assert found(store, "locks", "ok")
    assert store.doctor(peer=True)[-1] == Finding("coherence", "failure", "unexpected")


def test_a_locked_file(store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first check waits for it, and that it is locked is a warning."""
    monkeypatch.setattr(doctor, "TIMEOUT", 0.1)
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    [finding] = [one for one in store.doctor() if one.topic in ("journal", "file", "leftovers")]
    assert (finding.topic, finding.state) == ("file", "warning") and "locked" in finding.text


def test_what_came_of_an_encounter() -> None:
    """Nobody, a share that works, one that loses commits, and two sides on one computer."""
    met = Encounter("here", "there", 10, 12, 10, 12, (), False, 3.0)
    counts = "acknowledged commits arrived: {} of 10 from here, {} of 12 from there, as seen from here"
    [nobody] = doctor.describe_encounter(met._replace(other_host=None))
    assert (nobody.state, nobody.text) == ("failure", "no other computer joined within 3 s")
    assert doctor.describe_encounter(met) == [Finding("coherence", "ok", "22 of 22 " + counts.format(10, 12))]
    lost = doctor.describe_encounter(met._replace(arrived_there=11, errors=("there: the disk is full",)))
    assert [one.state for one in lost] == ["failure", "failure"]
    assert [one.text for one in lost] == ["there: the disk is full", "21 of 22 " + counts.format(10, 11)]
    assert [one.state for one in doctor.describe_encounter(met._replace(same_computer=True))] == ["ok", "warning"]
    nothing = met._replace(acknowledged_here=0, acknowledged_there=0, arrived_here=0, arrived_there=0)
    assert [one.state for one in doctor.describe_encounter(nothing)] == ["failure"]


def test_another_journal_mode(store: Storage, sql: sqlite3.Connection) -> None:
    """WAL loses data on a share."""
    store.store("m", 1)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE other (x)")
    assert "another program has set journal_mode to wal" in found(store, "journal", "failure")[0]


def test_a_writer_that_died(store: Storage) -> None:
    """Its unfinished change is rolled back, and that is reported."""
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
    [text] = found(store, "journal", "ok")
    assert "a process was killed while writing; its unfinished change has been rolled back" in text
    store.store("n", 1)
    assert found(store, "journal", "ok")[0].endswith("idle -> ") and store.required() == []


def test_stores_that_are_under_way_and_that_died(store: Storage) -> None:
    """A store under way is named with its start; a dead one is a warning until the next store clears it."""
    store.store("first", 1)
    process = start_storing(store)
    assert re.search(rf"\(process {process.pid}\) .* since {TIME} UTC", found(store, "uploads in progress", "ok")[0])
    process.kill()
    process.communicate()
    assert re.search(rf"\(process {process.pid}\) .* since {TIME} UTC", found(store, "leftovers", "warning")[0])
    store.store("second", 2)
    assert found(store, "leftovers", "ok") == ["none from interrupted uploads -> "]


def test_a_disk_that_is_nearly_full(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is reported before a store fails."""
    store.store("m", 1)
    for free, state in ((10**6, "failure"), (10**10, "warning"), (10**12, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free, total=10**12))
        assert found(store, "free space", state)


def mounted(monkeypatch: pytest.MonkeyPatch, folder: Path, *systems: str) -> None:
    """Let these file systems be mounted at a folder."""
    need(sys.platform == "linux", "only Linux has this table of mounts")
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
        (NFS.replace("hard", "soft"), "warning", "soft: operations fail when the server is slow"),
        (NFS + ",nolock", "failure", "locks are local"),
        (NFS.replace("local_lock=none", "local_lock=all"), "failure", "locks are local"),
        (NFS + ",nocto", "failure", "nocto"),
        ("nfs server:/export rw,vers=3,hard", "warning", "only version 4 was tested"),
        ("tmpfs tmpfs rw", "warning", "in memory"),
        ("overlay overlay rw", "warning", "container"),
        ("fuse.sshfs host: rw", "failure", "does not lock files between computers"),
        ("xfs /dev/sdb rw", "ok", "a local disk"),
        ("lustre mgs:/fs rw", "warning", "flock"),
        ("newfs x rw", "warning", "it is not known whether"),
        ("fuse.glusterfs server:/vol rw", "warning", "cannot be determined"),
    ],
)
def test_file_systems(
    store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, state: str, text: str
) -> None:
    """What is known about each is reported with its mount options, and only a network share asks for a peer."""
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
        (["--entry-timeout=0"], "failure", "mounted without attribute-timeout=0, direct-io-mode=enable: it loses"),
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
    """That is a failure: it loses changes."""
    folder = tmp_path / "Dropbox" / "team"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder / "models.db", tmp_path / "link" / "models.db"):
        assert "Dropbox appears to be synchronised" in found(Storage(path), "file system", "failure")[0]
    # It is the folder that is, whatever a file in another is called.
    assert not found(Storage(tmp_path / "nextcloud-usage.db"), "file system", "failure")


def test_mode_bits_that_mean_nothing(store: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On SMB only the server knows who can write."""
    store.store("m", 1)
    store.path.chmod(0o666)
    mounted(monkeypatch, tmp_path, "cifs //server/share rw,cache=strict")
    assert found(store, "permissions", "warning") and not found(store, "permissions", "failure")


def test_locks_that_do_not_work(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a failure."""
    store.store("m", 1)
    monkeypatch.setattr(locks, "find_trouble", lambda folder: "No locks available")
    assert "No locks available -> Mount the share with locks" in found(store, "locks", "failure")[0]


def test_a_system_that_does_not_tell(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a table of mounts, nothing is claimed."""
    need(sys.platform == "linux", "only Linux has this table of mounts")
    store.store("m", 1)
    monkeypatch.setattr(filesystems, "MOUNTS", "/nowhere")
    assert "the file system type cannot be determined" in found(store, "file system", "warning")[0]


def test_the_limit_of_open_files(store: Storage) -> None:
    """A process that cannot open one more file gets findings, and no exception, however few it can open."""
    need(sys.platform != "win32", "there is no such limit")
    store.store("m", 1)
    code = (
        "import os, resource, sys; from views_runs import Storage; from views_runs.exceptions import StorageError\n"
        "store = Storage(sys.argv[1]); store.list(); held = []\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    while True: held.append(os.open(os.devnull, os.O_RDONLY))\nexcept OSError: pass\n"
        "for free in range(8):\n"
        "    if not os.fork():\n"
        "        for one in held[:free]: os.close(one)\n"
        "        print(free, [one.state for one in store.doctor()], flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    first, *_, last = result.stdout.splitlines()
    assert first == "0 ['failure']" and "failure" not in last
