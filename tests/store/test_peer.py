"""Two processes that meet beside a store and find out what the share between them keeps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.machine import need
from views_runs import Storage, StoreNotFoundError, StoreReadOnlyError
from views_runs.database import uploads
from views_runs.health import peer
from views_runs.records import Encounter

ROOT = Path(__file__).parents[2]

#: One side; what it is given is executed first.
SIDE = """
import dataclasses, json, sys, time
from pathlib import Path
from views_runs.health import peer
folder, patience, commits, first = sys.argv[1:]
peer.INTERVAL = 0.05
exec(first)
found = peer.meet(Path(folder), lambda text: print(text, flush=True), float(patience), int(commits))
print(json.dumps(dataclasses.asdict(found)))
"""

#: Says that something was committed, and commits nothing.
LOSING = """
def commit_once(self, connection):
    self._mine.acknowledged += 1
    if self._mine.acknowledged % 2:
        self._mine.acknowledged -= 1
        commit(self, connection)
commit, peer.Meeting._commit_once = peer.Meeting._commit_once, commit_once
"""

#: Stops counting on in the middle.
STALLING = """
def commit_once(self, connection):
    commit(self, connection)
    if self._mine.acknowledged == 7:
        print("in the middle", flush=True)
        time.sleep(600)
commit, peer.Meeting._commit_once = peer.Meeting._commit_once, commit_once
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(store: Storage) -> Path:
    """Where a store is."""
    store.store("m", 1)
    return store.path.parent


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start one side in a process."""
    started: list[subprocess.Popen[str]] = []

    def start_one(patience: float = 20, commits: int = 10, first: str = "") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", SIDE, str(folder), str(patience), str(commits), first],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def result(process: "subprocess.Popen[str]") -> Encounter:
    """Return what one side found."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = json.loads(output.splitlines()[-1])
    return Encounter(**{**found, "errors": tuple(found["errors"])})


def counts(found: Encounter) -> tuple[int, int, int, int]:
    """Return what was acknowledged and arrived, of this side and of the other."""
    return found.acknowledged_here, found.arrived_here, found.acknowledged_there, found.arrived_there


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    """Wait until one side has said something."""
    assert process.stdout
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended without saying {text!r}")


def probes(folder: Path) -> list[str]:
    """Return what is left of the meeting."""
    return [path.name for path in folder.glob(f"{peer.PROBE}*")]


def announce(folder: Path, **fields: object) -> Path:
    """Leave an announcement, as one who has died."""
    said = {"token": "0" * 16, "host": "elsewhere", "computer": "c", "process": "{}", "beat": 7, **fields}
    file = folder / f"{peer.PROBE}-{said['token']}.json"
    file.write_text(json.dumps(said))
    return file


def test_two_meet(folder: Path, start: Start, store: Storage) -> None:
    """Both see all commits of both, know that they share a computer, and leave the folder as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    sides = [start(), start(commits=13)]
    one, other = map(result, sides)
    assert counts(one) == (10, 10, 13, 13) and counts(other) == (13, 13, 10, 10)
    assert one.errors == other.errors == ()
    assert one.same_computer and other.same_computer
    assert one.host == one.other_host == other.host
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_they_write_at_the_same_time(folder: Path, start: Start) -> None:
    """Neither is ever far ahead: one that writes slowly is waited for."""
    slow = "commit = peer.Meeting._commit_once\n"
    slow += "peer.Meeting._commit_once = lambda *arguments: (time.sleep(0.05), commit(*arguments))\n"
    ahead = "start = peer.Meeting._connect\n"
    ahead += "def connect(self, create=False):\n"
    ahead += "    if not create and self._other.state < peer.DONE:\n"
    ahead += "        print('ahead', self._mine.acknowledged - self._other.acknowledged, flush=True)\n"
    ahead += "    return start(self, create)\n"
    ahead += "peer.Meeting._connect = connect"
    sides = [start(commits=25, first=slow), start(commits=25, first=ahead)]
    output, errors = sides[1].communicate(timeout=60)
    found = [int(number) for number in re.findall("^ahead (-?[0-9]+)$", output, re.MULTILINE)]
    assert sides[1].returncode == 0, errors
    assert len(found) > 4 and 0 < max(found) <= peer.LEAD


def test_nobody_comes(folder: Path) -> None:
    """One alone waits, is told what to do, and says that nobody came."""
    said: list[str] = []
    found = peer.meet(folder, said.append, patience=0.5)
    assert found.other_host is None and counts(found) == (0, 0, 0, 0) and found.took >= 0.5
    assert (
        said == ["waiting for another computer: run `viewser model doctor --peer` there, on the same store, within 0 s"]
        or "within 1 s" in said[0]
    )
    assert probes(folder) == []


def test_leftovers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others left who died is neither met nor left; what belongs to one who counts on stays."""
    dead = announce(folder)
    database = f"{peer.PROBE}-{'0' * 16}-01234567.db"
    living = announce(folder, token="f" * 16, partner="e" * 16)
    own = folder / f"{peer.PROBE}-{'f' * 16}-01234567.db"
    for name in (database, f"{database}-journal", own.name):
        (folder / name).touch()
    beats = iter(range(100, 1000))
    real = peer.Meeting._turn

    def turn(meeting: peer.Meeting) -> set[str]:
        announce(folder, token="f" * 16, partner="e" * 16, beat=next(beats))
        return real(meeting)

    monkeypatch.setattr(peer.Meeting, "_turn", turn)
    assert peer.meet(folder, str, patience=1).other_host is None
    assert not dead.exists()
    assert set(probes(folder)) == {living.name, own.name}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"token": 1}',
        '{"token": "' + "0" * 16 + '", "host": 1, "computer": "", "process": ""}',
        "\udcff",
        "[" * 50_000,
    ],
)
def test_an_announcement_that_says_nothing(folder: Path, text: str) -> None:
    """A file that is no announcement, or only half written, does no harm."""
    file = folder / f"{peer.PROBE}-{'0' * 16}.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert peer.meet(folder, str, patience=0.5).other_host is None
    assert file.exists()


@pytest.mark.parametrize(
    "field",
    [
        {"database": "../models.db"},
        {"token": "1" * 16},
        {"errors": [1]},
        {"errors": "none"},
        {"beat": "1"},
        {"arrived": []},
    ],
)
def test_an_announcement_that_lies(folder: Path, field: dict[str, object]) -> None:
    """A database elsewhere, another's token, or values of other types: such an announcement is not read."""
    file = announce(folder)
    assert peer._read(file, "0" * 16).host == "elsewhere"
    file.write_text(json.dumps({**json.loads(file.read_text()), **field}))
    with pytest.raises((ValueError, TypeError)):
        peer._read(file, "0" * 16)


def test_what_others_say_is_printable(folder: Path) -> None:
    """The name of a host, and its errors, send nothing to the terminal but text."""
    said = peer._read(announce(folder, host="a\x1b[31mb", errors=["c\nd"]), "0" * 16)
    assert said.host == "a?[31mb" and said.errors == ["c?d"]


def test_three_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three meet; the third waits in vain, and ends."""
    monkeypatch.setattr(peer, "INTERVAL", 0.05)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: peer.meet(folder, str, 4, commits=10), range(3)))
    alone = [one for one in found if one.other_host is None]
    assert len(alone) == 1 and counts(alone[0]) == (0, 0, 0, 0)
    assert [counts(one) for one in found if one not in alone] == [(10, 10, 10, 10)] * 2
    assert all(one.errors == () for one in found)
    assert probes(folder) == []


@pytest.mark.parametrize("number", [4, 5])
def test_many_come(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whoever is found has found the same one, and both agree on one database that is there."""
    monkeypatch.setattr(peer, "INTERVAL", 0.02)
    meetings = [peer.Meeting(folder, str, 3) for _ in range(number)]
    ended: list[bool] = []

    def find(meeting: peer.Meeting) -> bool:
        ended.append(found := meeting._find())
        while len(ended) < number:
            meeting._turn()
        return found

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(find, meetings))
    assert sum(found) == 4
    said = {meeting._mine.token: meeting._mine for meeting in meetings}
    for one, paired in zip(said.values(), found):
        assert paired == (one.partner != "") == (one.database != "")
        if paired:
            other = said[one.partner]
            assert (other.partner, other.database) == (one.token, one.database)
            assert (folder / one.database).stat().st_size
    for meeting in meetings:
        meeting._clear()
    assert probes(folder) == []


def followed(folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, script: list[dict[str, object]]) -> list[str]:
    """Let one meet another that says these things, one each turn; return the database that it wants after each."""
    meeting = peer.Meeting(folder, str, 20)
    meeting._mine.token = "8" * 16
    beats = iter(range(100))
    wanted: list[str] = []
    left = iter(script)

    def turn() -> set[str]:
        wanted.append(meeting._mine.database)
        said = next(left, None)
        if said is None:
            meeting._began = float("-inf")
            meeting._seen.clear()
            meeting._mine.database = meeting._mine.partner = ""
            return set()
        announce(folder, token=token, beat=next(beats), **said)
        return meeting._look()

    monkeypatch.setattr(meeting, "_turn", turn)
    assert not meeting._find()
    return wanted


@pytest.mark.parametrize("partner", ["", "1" * 16])
def test_an_offer_is_withdrawn(folder: Path, monkeypatch: pytest.MonkeyPatch, partner: str) -> None:
    """When the other turns to nobody, or to somebody else, the database that it was offered is deleted."""
    here = {"partner": "8" * 16}
    wanted = followed(folder, monkeypatch, "9" * 16, [here, here, here, {"partner": partner}, {"partner": partner}])
    assert [bool(name) for name in wanted] == [False, False, True, True, False, False]
    assert wanted[2].startswith(f"{peer.PROBE}-{'8' * 16}-")
    assert not [*folder.glob(f"{peer.PROBE}*.db*")]


def test_an_offer_that_is_withdrawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has agreed follows when the other offers a new database, and deletes none of the other's."""
    names = [f"{peer.PROBE}-{'7' * 16}-0000000{number}.db" for number in (1, 2)]
    for name in names:
        (folder / name).touch()
    first, second = ({"partner": "8" * 16, "database": name} for name in names)
    wanted = followed(folder, monkeypatch, "7" * 16, [first, first, first, second, second])
    assert wanted == ["", "", names[0], names[0], names[1], names[1]]
    assert {path.name for path in folder.glob(f"{peer.PROBE}*.db")} == set(names)


def test_one_who_falls_silent_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An offer to one who does not count on any more is withdrawn, and another may take its place."""
    monkeypatch.setattr(peer, "RECENT", 0.0)
    here = {"partner": "8" * 16}
    assert followed(folder, monkeypatch, "9" * 16, [here] * 4) == [""] * 5


def test_a_dead_one_is_not_waited_for(folder: Path, start: Start) -> None:
    """Two find each other beside what a dead one left, though it comes first; they see that their computers differ."""
    announce(folder, process=uploads.this_process())
    foreign = start(first="from views_runs.database import uploads; uploads.boot = lambda: 'another'")
    for found in map(result, [start(), foreign]):
        assert counts(found) == (10, 10, 10, 10)
        assert found.errors == () and not found.same_computer


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_one_is_killed(folder: Path, start: Start) -> None:
    """The other says so after a while, counts what both had committed, and clears away the dead one's files."""
    killed = start(first=STALLING)
    other = start(patience=3)
    wait_for(killed, "in the middle")
    killed.send_signal(signal.SIGKILL)
    found = result(other)
    assert found.other_host == found.host
    assert found.arrived_here == found.acknowledged_here == 10
    assert 0 <= found.acknowledged_there <= found.arrived_there <= 7
    [error] = found.errors
    assert "was not heard of for 3 s" in error
    assert probes(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_one_is_interrupted(folder: Path, start: Start) -> None:
    """Ctrl-C leaves nothing, alone and in the middle."""
    alone = start()
    wait_for(alone, "waiting for another")
    alone.send_signal(signal.SIGINT)
    alone.communicate(timeout=60)
    assert alone.returncode != 0 and probes(folder) == []
    stalled, other = start(first=STALLING), start(first=STALLING)
    wait_for(stalled, "in the middle")
    wait_for(other, "in the middle")
    assert probes(folder) != []
    for process in (stalled, other):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert probes(folder) == []


def test_commits_that_are_lost(folder: Path, start: Start) -> None:
    """What was acknowledged and is not there is noticed by both, and so are the reads that did not show it."""
    losing, other = map(result, [start(first=LOSING), start()])
    assert counts(losing) == (10, 5, 10, 10) and counts(other) == (10, 10, 10, 5)
    for found in (losing, other):
        assert any("did not show what had been committed before" in error for error in found.errors)
    assert probes(folder) == []


def test_one_that_cannot_write(folder: Path, start: Start) -> None:
    """When every commit of one side fails, both say so and end."""
    failing = "peer.Meeting._commit_once = lambda self, connection: connection.rows('SELECT missing')"
    one, other = map(result, [start(first=failing), start()])
    assert counts(one) == (0, 0, 10, 10) and counts(other) == (10, 10, 0, 0)
    assert "no such column: missing" in one.errors[0]
    assert one.took < 20 > other.took
    assert other.errors[0].startswith(f"{one.host}: ") and "no such column: missing" in other.errors[0]


def test_a_slow_share(folder: Path, start: Start) -> None:
    """What is not done in time is not tried, and is no error."""
    slow = "peer.uploads.PAUSE = 0.3"
    for found in map(result, [start(patience=3, commits=1000, first=slow) for _ in range(2)]):
        assert 0 < found.acknowledged_here == found.arrived_here < 50
        assert 0 < found.acknowledged_there == found.arrived_there < 50
        assert found.errors == ()


def test_a_scratch_database_that_cannot_be_made(folder: Path, start: Start) -> None:
    """Then both say so, and end."""
    broken = "peer.SCHEMA = 'broken'"
    for found in map(result, [start(first=broken), start(first=broken)]):
        assert counts(found) == (0, 0, 0, 0) and any("broken" in error for error in found.errors)
    assert probes(folder) == []


def test_a_cache_that_shows_what_was_before(folder: Path) -> None:
    """An older announcement, read after a newer one, changes nothing."""
    meeting = peer.Meeting(folder, str, 1)
    file = announce(folder, beat=7)
    meeting._look()
    announce(folder, beat=9, acknowledged=5)
    meeting._look()
    announce(folder, beat=8, acknowledged=4)
    meeting._look()
    assert meeting._seen["0" * 16].said.acknowledged == 5
    file.unlink()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A folder that is missing is said, before anybody is waited for."""
    with pytest.raises(StoreNotFoundError, match="cannot commit together with another computer: .*nowhere: no file"):
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
        with pytest.raises(
            StoreReadOnlyError, match="no file can be made there .* Whoever stores models needs a folder"
        ):
            peer.meet(folder, pytest.fail)
    finally:
        if as_root:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no mode bits")
def test_modes(folder: Path, start: Start) -> None:
    """Others may read an announcement, and in a folder of a group its members may write the database."""
    folder.chmod(0o2775)
    strict = "import os; os.umask(0o077)\n" + STALLING
    for process in [start(first=strict), start(first=strict)]:
        wait_for(process, "in the middle")
    modes = {
        path.suffix: path.stat().st_mode & 0o777 for path in folder.glob(f"{peer.PROBE}*") if path.suffix != ".tmp"
    }
    assert modes == {".json": 0o644, ".db": 0o660, ".db-journal": 0o660}


def test_announcements_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that fails for a moment ends nothing."""
    real = peer.Meeting._announce
    beats: list[float] = []

    def announce_sometimes(meeting: peer.Meeting) -> None:
        beats.append(time.monotonic())
        if len(beats) % 2 == 0:
            raise OSError("gone")
        real(meeting)

    monkeypatch.setattr(peer.Meeting, "_announce", announce_sometimes)
    assert peer.meet(folder, str, patience=0.8).other_host is None
    assert len(beats) >= 3
