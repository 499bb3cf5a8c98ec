"""Two sides that meet beside a store and find out what the share between them keeps."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.support.machine import need
from views_runs import Storage, StorageError
from views_runs.database import uploads
from views_runs.database.connection import Connection
from views_runs.health import peer
from views_runs.records import Encounter

ROOT = Path(__file__).parents[2]

#: One side in a process. It stops in the middle, and its counter stands still.
STALLING = """
import os, sys, time
from pathlib import Path
from views_runs.health import peer
class Stalling(peer.Meeting):
    def _commit_once(self, connection):
        super()._commit_once(connection)
        if self._mine.acknowledged == 7:
            print("in the middle", flush=True)
            time.sleep(600)
peer.INTERVAL = 0.02
os.umask(0o077)
Stalling(Path(sys.argv[1]), lambda text: print(text, flush=True), 20).hold(10)
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody sleep longer than needed."""
    monkeypatch.setattr(peer, "INTERVAL", 0.02)


@pytest.fixture
def folder(store: Storage) -> Path:
    """Where a store is."""
    store.store("m", 1)
    return store.path.parent


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a side that stops in the middle."""
    started: list[subprocess.Popen[str]] = []

    def start_one() -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        command = [sys.executable, "-c", STALLING, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def hold(*sides: peer.Meeting, commits: int = 10) -> list[Encounter]:
    """Let these sides meet, each in a thread of its own."""
    with ThreadPoolExecutor(len(sides)) as pool:
        return list(pool.map(lambda side: side.hold(commits), sides))


def counts(found: Encounter) -> tuple[int, int, int, int]:
    """Return what was acknowledged and arrived, of this side and of the other."""
    return found.acknowledged_here, found.arrived_here, found.acknowledged_there, found.arrived_there


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    """Wait until a process has said something."""
    assert process.stdout
    if not any(text in line for line in process.stdout):
        pytest.fail(f"it ended without saying {text!r}")


def probes(folder: Path) -> list[str]:
    """Return what is left of the meeting."""
    return sorted(path.name for path in folder.glob(f"{peer.PROBE}*"))


def announce(folder: Path, role: str, said: peer.Announcement) -> Path:
    """Leave the file of a role, as somebody else."""
    file = folder / role
    file.write_text(json.dumps(asdict(said)))
    return file


def test_two_meet(folder: Path) -> None:
    """Both see all commits of both, know that they share a computer, and leave the folder as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    one, other = hold(*(peer.Meeting(folder, str, 20) for _ in range(2)))
    assert counts(one) == counts(other) == (10, 10, 10, 10)
    assert one.errors == other.errors == ()
    assert one.same_computer and other.same_computer
    assert one.host == one.other_host == other.host
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_two_computers(folder: Path) -> None:
    """Two sides that do not share a cache say so."""
    there = peer.Meeting(folder, str, 20)
    there._mine.computer = "another"
    found = hold(peer.Meeting(folder, str, 20), there)
    assert [one.same_computer for one in found] == [False, False]


def test_they_write_at_the_same_time(folder: Path) -> None:
    """Neither is ever far ahead: one that writes slowly is waited for."""
    ahead: list[int] = []

    class Slow(peer.Meeting):
        def _commit_once(self, connection: Connection) -> None:
            time.sleep(0.05)
            super()._commit_once(connection)

    class Quick(peer.Meeting):
        def _commit_batch(self, connection: Connection, batch: int) -> None:
            if self._other.stage < peer.DONE:
                ahead.append(self._mine.acknowledged - self._other.acknowledged)
            super()._commit_batch(connection, batch)

    hold(Slow(folder, str, 20), Quick(folder, str, 20), commits=25)
    assert len(ahead) > 4 and 0 < max(ahead) <= peer.LEAD


def test_nobody_comes(folder: Path) -> None:
    """A computer that is alone waits, says what to do, and reports that nobody came."""
    said: list[str] = []
    found = peer.meet(folder, said.append, patience=0.1)
    assert found.other_host is None and counts(found) == (0, 0, 0, 0) and found.took >= 0.1
    [text] = said
    assert text.startswith("waiting for another computer: run `views-runs model doctor --peer` there")
    assert probes(folder) == []


def test_a_third_is_turned_away(folder: Path) -> None:
    """A third computer is told that two are running it, and does not disturb them."""
    both, ended = threading.Barrier(3), threading.Event()

    class Waiting(peer.Meeting):
        def commit(self, commits: int) -> None:
            self._turn()
            both.wait(30)
            while not ended.is_set():
                self._turn()
            super().commit(commits)

    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(Waiting(folder, str, 20).hold, 10) for _ in range(2)]
        both.wait(30)
        try:
            with pytest.raises(StorageError, match="two computers are already running this test"):
                peer.meet(folder, str, 20)
        finally:
            ended.set()
    for side in sides:
        assert counts(side.result()) == (10, 10, 10, 10) and side.result().errors == ()
    assert probes(folder) == []


@pytest.mark.parametrize("partner, roles", [(0, (peer.HOST, peer.GUEST)), (8, (peer.HOST,))])
def test_a_third_finds_one_file_of_two(folder: Path, partner: int, roles: tuple[str, ...]) -> None:
    """It is turned away before the host has answered its guest, and after the guest's file is gone."""
    beats = iter(range(1, 1000))
    ended = threading.Event()
    host, guest = peer.Announcement(7, "host", partner=partner), peer.Announcement(8, "guest")
    said = {peer.HOST: host, peer.GUEST: guest}
    for role in roles:
        announce(folder, role, said[role])

    def count_on() -> None:
        while not ended.wait(0.01):
            for role in roles:
                announce(folder, f"{role}.new", replace(said[role], beat=next(beats))).replace(folder / role)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(count_on)
        try:
            with pytest.raises(StorageError, match="two computers are already running this test, one of them host"):
                peer.meet(folder, str, 20)
        finally:
            ended.set()
    assert probes(folder) == sorted(roles)


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": 1}', '{"token": 1, "host": 1}', "\udcff", None])
def test_a_host_that_died(folder: Path, text: str | None) -> None:
    """A file whose counter stands still, or that is no announcement, is replaced; what lay beside it is removed."""
    if text is None:
        announce(folder, peer.HOST, peer.Announcement(7, "elsewhere", "c", beat=7))
    else:
        (folder / peer.HOST).write_bytes(text.encode("utf-8", "surrogateescape"))
    for ending in ("", "-journal"):
        (folder / f"{peer.PROBE}-00000000000007.db{ending}").touch()
    assert peer.meet(folder, str, patience=0.2).other_host is None
    assert probes(folder) == []


def test_a_guest_that_died(folder: Path) -> None:
    """A host does not take the file of a dead guest for a guest, and the next guest replaces it."""
    announce(folder, peer.GUEST, peer.Announcement(8, "elsewhere", "c", beat=7, partner=9))
    host, guest = peer.Meeting(folder, str, 20), peer.Meeting(folder, str, 5)
    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(host.hold, 10)]
        # The one with less patience is the guest: as the host, it would not wait until the dead one is replaced.
        while not (folder / peer.HOST).exists():
            time.sleep(0.01)
        sides.append(pool.submit(guest.hold, 10))
    for found in [side.result() for side in sides]:
        assert counts(found) == (10, 10, 10, 10) and found.errors == ()
    assert probes(folder) == []


def test_a_computer_that_was_taken_for_dead(folder: Path) -> None:
    """When it wakes up it stops, and leaves its file to the computer that took its place."""
    asleep = peer.Meeting(folder, str, 20)
    assert asleep._take(peer.HOST, peer.GUEST) is None
    file = announce(folder, peer.HOST, peer.Announcement(7, "elsewhere", "c"))
    assert not asleep._wait_for_guest()
    assert "another computer took its place" in asleep._lost
    asleep.clear()
    assert peer.read(file).token == 7


def test_texts_are_printable(folder: Path) -> None:
    """The name of another host, and its errors, send nothing to the terminal but text."""
    said = peer.read(announce(folder, peer.HOST, peer.Announcement(7, "a\x1b[31mb", errors=["c\nd"])))
    assert (said.host, said.errors) == ("a?[31mb", ["c?d"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_one_is_killed(folder: Path, start: Start) -> None:
    """The other says so after a while, counts what both had committed, and clears away the dead one's files."""
    killed = start()
    with ThreadPoolExecutor(1) as pool:
        side = pool.submit(peer.meet, folder, str, 4, 10)
        wait_for(killed, "in the middle")
        killed.send_signal(signal.SIGKILL)
        found = side.result()
    assert found.other_host == found.host
    assert found.arrived_here == found.acknowledged_here == 10
    assert 0 <= found.acknowledged_there <= found.arrived_there <= 7
    [error] = found.errors
    assert f"no sign of life from {found.host} for 2 s" in error
    assert probes(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_one_is_interrupted(folder: Path, start: Start) -> None:
    """Ctrl-C leaves nothing, alone and in the middle."""
    alone = start()
    wait_for(alone, "waiting for another")
    alone.send_signal(signal.SIGINT)
    alone.communicate(timeout=60)
    assert alone.returncode != 0 and probes(folder) == []
    sides = [start(), start()]
    for side in sides:
        wait_for(side, "in the middle")
    assert len(probes(folder)) >= 4
    for side in sides:
        side.send_signal(signal.SIGINT)
        side.communicate(timeout=60)
    assert probes(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no mode bits")
def test_modes(folder: Path, start: Start) -> None:
    """Others may read an announcement, and in a folder of a group its members may write the database."""
    folder.chmod(0o2775)
    for side in (start(), start()):
        wait_for(side, "in the middle")
    modes = {name.rpartition(".")[2]: (folder / name).stat().st_mode & 0o777 for name in probes(folder)}
    modes.pop("tmp", None)
    assert modes == {"json": 0o644, "db": 0o660, "db-journal": 0o660}


def test_commits_that_are_lost(folder: Path) -> None:
    """What was acknowledged and did not arrive is noticed by both, and so are the reads that missed it."""

    class Losing(peer.Meeting):
        def _commit_once(self, connection: Connection) -> None:
            self._mine.acknowledged += 1
            if self._mine.acknowledged % 2:
                self._mine.acknowledged -= 1
                super()._commit_once(connection)

    losing, other = hold(Losing(folder, str, 20), peer.Meeting(folder, str, 20))
    assert counts(losing) == (10, 5, 10, 10) and counts(other) == (10, 10, 10, 5)
    for found in (losing, other):
        assert any(re.search("reads missed commits .* up to [1-5] of them", error) for error in found.errors)
    assert probes(folder) == []


def test_sides_that_count_differently(folder: Path) -> None:
    """Where the two sides see different files, each says what the other counted."""

    class Blind(peer.Meeting):
        def _count_commits(self, connection: Connection) -> None:
            self._mine.arrived = [10, 3]

    found, blind = hold(peer.Meeting(folder, str, 20), Blind(folder, str, 20))
    assert counts(found) == (10, 10, 10, 10) and counts(blind) == (10, 10, 10, 3)
    assert found.errors == (f"{found.host} found 10 of its own commits and 3 of those from {found.host}",)


def test_one_that_cannot_write(folder: Path) -> None:
    """When every commit of one side fails, both say so and end."""

    class Failing(peer.Meeting):
        def _commit_once(self, connection: Connection) -> None:
            connection.rows("SELECT missing")

    one, other = hold(Failing(folder, str, 20), peer.Meeting(folder, str, 20))
    assert counts(one) == (0, 0, 10, 10) and counts(other) == (10, 10, 0, 0)
    assert "no such column: missing" in one.errors[0]
    assert other.errors[0].startswith(f"{one.host}: ") and "no such column: missing" in other.errors[0]


def test_a_slow_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not done in time is not tried, and is no error."""
    monkeypatch.setattr(uploads, "PAUSE", 0.2)
    for found in hold(*(peer.Meeting(folder, str, 5) for _ in range(2)), commits=1000):
        assert 0 < found.acknowledged_here == found.arrived_here < 50
        assert 0 < found.acknowledged_there == found.arrived_there < 50
        assert found.errors == ()


def test_a_scratch_database_that_cannot_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then both say so, and end."""
    monkeypatch.setattr(peer, "SCHEMA", "broken")
    for found in hold(*(peer.Meeting(folder, str, 20) for _ in range(2))):
        assert counts(found) == (0, 0, 0, 0) and any("broken" in error for error in found.errors)
    assert probes(folder) == []


def test_a_cache_that_shows_what_was_before(folder: Path) -> None:
    """An older announcement, read after a newer one, changes nothing."""
    meeting = peer.Meeting(folder, str, 1)
    assert meeting._take(peer.HOST, peer.GUEST) is None
    guest = peer.Announcement(7, partner=meeting._mine.token, beat=7)
    for beat, acknowledged in ((7, 0), (9, 5), (8, 4)):
        announce(folder, peer.GUEST, replace(guest, beat=beat, acknowledged=acknowledged))
        meeting._turn()
    assert meeting._other.acknowledged == 5


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A folder that is missing is said, before anybody is waited for."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        peer.meet(tmp_path / "nowhere", pytest.fail)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """A read-only folder is said, before anybody is waited for."""
    folder = tmp_path / "share"
    folder.mkdir()
    as_root = not hasattr(os, "geteuid") or os.geteuid() == 0
    need(not as_root or sys.platform == "linux", "this user may write everywhere")
    if as_root:
        command = ["mount", "-t", "tmpfs", "-o", "ro", "views_runs_test", str(folder)]
        mounted = subprocess.run(command, capture_output=True)
        need(mounted.returncode == 0, f"mount failed: {mounted.stderr!r}")
    else:
        folder.chmod(0o555)
    try:
        with pytest.raises(StorageError, match="cannot be created .* Check that the folder is writable"):
            peer.meet(folder, pytest.fail)
    finally:
        if as_root:
            subprocess.run(["umount", str(folder)], check=True)


def test_announcements_go_on(folder: Path) -> None:
    """A share that fails for a moment ends nothing."""
    beats: list[int] = []

    class Failing(peer.Meeting):
        def _announce(self) -> None:
            beats.append(self._mine.beat)
            if len(beats) % 2 == 0:
                raise OSError("gone")
            super()._announce()

    assert Failing(folder, str, 0.3).hold(10).other_host is None
    assert beats[-1] >= 2
