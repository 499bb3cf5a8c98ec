"""A store on a replicated GlusterFS volume that two computers mount: what was acknowledged is there, for both."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import gluster, history
from tests.support.gluster import Client, Rig, wait_until
from tests.support.machine import need

#: What a worker may say: on a busy machine, the other worker's turn can take long enough to be logged.
WAITING = "is locked by another program, waiting"

#: More operations than any worker gets to: it is stopped.
MANY = 100_000


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Servers for this module's volumes."""
    trouble = gluster.lacking(Path(tempfile.gettempdir()))
    need(not trouble, trouble)
    rig = Rig()
    try:
        yield rig
    finally:
        rig.stop()


class Team:
    """Workers on several computers with one store, and what they acknowledge.

    Args:
        folder: for their lines; on this computer and not on the volume.
        place: where in the volume the store is. Not in its root: where nothing is mounted there is no such folder.
    """

    def __init__(self, folder: Path, place: str) -> None:
        self.place = Path(place) / "models.db"
        self._folder = folder
        self._stop = folder / "stop"
        self._workers: dict[str, subprocess.Popen[str]] = {}

    def work(self, name: str, client: Client) -> None:
        """Start a worker, who goes on until all are stopped."""
        store = client.folder / self.place
        client.run("mkdir", "-p", store.parent)
        with self._lines(name).open("w") as output:
            self._workers[name] = client.python(
                history.__file__, store, name, "1", str(MANY), self._stop, output=output
            )

    def done(self, name: str) -> int:
        """Count the operations of a worker that were acknowledged."""
        return self._lines(name).read_text().count('"is": "done"')

    def tried(self, name: str) -> int:
        """Count the operations of a worker that were begun."""
        return self._lines(name).read_text().count('"is": "begun"')

    def goes_on(self, *names: str, operations: int = 5) -> None:
        """Wait until so many more operations of each of these workers were acknowledged."""
        aims = {name: self.done(name) + operations for name in names}
        wait_until(lambda: all(self.done(name) >= aim for name, aim in aims.items()), f"{names} to go on")

    def is_storing(self, name: str) -> None:
        """Wait until a worker is storing a model of several parts."""
        begun = re.compile(r'.*"kind": "store".*"size": \d{7}, "is": "begun"}$')
        wait_until(lambda: begun.match(self._last_line(name)), f"{name} to store a large model")

    def end(self) -> list[str]:
        """Let every worker end its operation, and end; return what they said on stderr."""
        self._stop.touch()
        return [f"{name}: {errors}" for name in [*self._workers] if (errors := self.ended(name))]

    def has_ended(self, name: str) -> bool:
        """Whether a worker has ended by itself."""
        return self._workers[name].poll() is not None

    def kill(self, name: str) -> None:
        """Kill a worker."""
        self._workers[name].kill()
        self.ended(name)

    def ended(self, name: str) -> str:
        """Wait for a worker's end, and return what it said on stderr, other than that it waits."""
        _, errors = self._workers.pop(name).communicate(timeout=200)
        return "".join(line for line in errors.splitlines(keepends=True) if WAITING not in line)

    def check(self, client: Client) -> tuple[int, str]:
        """Return 0 if all that was acknowledged is there as this client sees it, and what the check printed."""
        lines = sorted(self._folder.glob("*.lines"))
        process = client.python(history.__file__, "check", client.folder / self.place, *lines)
        output, errors = process.communicate(timeout=200)
        return process.returncode, output + errors

    def _last_line(self, name: str) -> str:
        lines = self._lines(name).read_text().splitlines()
        return lines[-1] if lines else ""

    def _lines(self, name: str) -> Path:
        return self._folder / f"{name}.lines"


@pytest.fixture
def team(tmp_path: Path, request: pytest.FixtureRequest) -> Team:
    """A team that nobody works in yet."""
    return Team(tmp_path, request.node.name)


def all_is_there(team: Team, *clients: Client) -> None:
    """Stop the workers, and look from each client."""
    assert team.end() == []
    for client in clients:
        status, output = team.check(client)
        assert status == 0, f"{client.host} sees:\n{output}"
        print(f"{client.host} sees: {output}", end="")


def test_two_writers(rig: Rig, team: Team) -> None:
    """Two computers write at the same time, and both find everything."""
    ann, bob = rig.mount("ann"), rig.mount("bob")
    team.work("ann", ann)
    team.work("bob", bob)
    team.goes_on("ann", "bob", operations=20)
    all_is_there(team, ann, bob)


def test_a_brick_is_killed_and_healed(rig: Rig, team: Team) -> None:
    """A copy that goes away and comes back stops nobody, one after the other; in the end all three are the same."""
    ann, bob = rig.mount("ann"), rig.mount("bob")
    team.work("ann", ann)
    team.work("bob", bob)
    for number in (0, 1):
        team.is_storing("ann")
        rig.kill_brick("coherent", number)
        team.goes_on("ann", "bob")
        rig.heal("coherent")
        team.goes_on("ann", "bob")
        rig.wait_until_healed("coherent")
    all_is_there(team, ann, bob)
    rig.wait_until_healed("coherent")
    copies = {sha256((rig.brick("coherent", number) / team.place).read_bytes()).hexdigest() for number in range(3)}
    assert len(copies) == 1


def test_a_mount_is_killed_inside_a_store(rig: Rig, team: Team) -> None:
    """The other computer goes on, and so does the one whose mount died, when it is there again.

    Who was writing there is killed too: Linux lets some wait for ever for what they had asked the dead mount for.
    """
    ann, bob = rig.mount("ann"), rig.mount("bob")
    team.work("bob", bob)
    for number in range(3):
        name = f"ann{number}"
        team.work(name, ann)
        team.goes_on(name)
        team.is_storing(name)
        ann.kill_mount()
        team.kill(name)
        team.goes_on("bob")
        ann.mount()
    all_is_there(team, ann, bob)


def test_a_computer_dies_inside_a_store(rig: Rig, team: Team) -> None:
    """The other computer goes on, and so does one that takes the place of the dead."""
    ann, bob = rig.mount("ann"), rig.mount("bob")
    team.work("bob", bob)
    for number in range(3):
        name = f"ann{number}"
        team.work(name, ann)
        team.goes_on(name)
        team.is_storing(name)
        ann.end()
        team.ended(name)
        team.goes_on("bob")
        ann = rig.mount("ann")
    all_is_there(team, ann, bob)


@pytest.mark.parametrize("coherent", [True, False])
def test_doctor_tells_which_volume_can_be_trusted(rig: Rig, coherent: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Two computers ask with --peer: with the README's options nothing is lost; with the defaults it is noticed."""
    clients = [rig.mount(name, coherent=coherent) for name in ("ann", "bob")]
    asking = []
    for client in clients:
        store = client.folder / "asked" / "models.db"
        client.run("mkdir", "-p", store.parent)
        asking.append(client.python("-m", "views_runs", "model", "--json", "--store", store, "doctor", "--peer"))
    answers = [process.communicate(timeout=300) for process in asking]
    with capsys.disabled():
        print(f"\nwith {'coherent' if coherent else 'default'} options:")
        for output, errors in answers:
            print(*(f"{one['state']} {one['topic']}: {one['text']}" for one in json.loads(output)), errors, sep="\n")
    for process, (output, _) in zip(asking, answers):
        findings = json.loads(output)
        failed = {finding["topic"] for finding in findings if finding["state"] == "failure"}
        assert failed == (set() if coherent else {"file system", "coherence"})
        assert process.returncode == (0 if coherent else 1)
        assert not any("the same computer" in finding["text"] for finding in findings)


def test_default_options(rig: Rig, team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    """GlusterFS' defaults give each computer caches of its own. What comes of it is shown, not held: it is a race."""
    ann, bob = rig.mount("ann", coherent=False), rig.mount("bob", coherent=False)
    caches = {"performance/write-behind", "performance/quick-read", "performance/md-cache"}
    assert caches <= rig.translators("default")
    rig.mount("cid")
    assert not caches & rig.translators("coherent")
    team.work("ann", ann)
    team.work("bob", bob)
    wait_until(lambda: all(team.tried(name) >= 25 or team.has_ended(name) for name in ("ann", "bob")), "them to try")
    errors = team.end()
    with capsys.disabled():
        print("\nwith GlusterFS' default options:")
        for client in (ann, bob):
            print(f"{client.host} sees: {team.check(client)[1]}", end="")
        print(*errors, sep="\n")
