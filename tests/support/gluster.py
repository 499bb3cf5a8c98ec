"""A real GlusterFS volume on one machine: three bricks, and clients that are computers of their own.

Everything runs in namespaces of the kernel. The servers have a network with nothing but a loopback, and folders of
their own over those that GlusterFS uses; each client has its own host name, process ids and mounts, and so is another
computer to whoever asks. When the process that made them ends, however it ends, the kernel ends all of it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

#: The servers' address; GlusterFS refuses 127.0.0.1, which would be another computer to each client.
ADDRESS = "127.0.0.2"

#: With these two clients see the same file at any time; without, each has a cache of its own for a second and more.
COHERENT_MOUNT = "attribute-timeout=0,entry-timeout=0,direct-io-mode=enable"
COHERENT_VOLUME = ("group", "db-workload")

ROOT = Path(__file__).parents[2]
PROGRAMS = ("glusterd", "gluster", "glusterfs", "mount.glusterfs", "unshare", "nsenter", "setpriv")

#: What `Machine` does when it starts: switch the loopback on, and cover GlusterFS' folders.
LOOPBACK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
"""
SERVERS = f"""
{sys.executable} -c '{LOOPBACK}' &&
mount -t tmpfs tmpfs /run && mkdir /run/gluster &&
mount --bind state /var/lib/glusterd && mount --bind log /var/log/glusterfs
"""


def lacking(folder: Path) -> str:
    """Return what this machine lacks to run the rig, or nothing.

    Args:
        folder: where the bricks would be.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can mount GlusterFS"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for program in PROGRAMS:
        if not shutil.which(program, path=path):
            return f"there is no {program}; glusterfs-server and util-linux have them all"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    try:
        os.setxattr(folder, "trusted.views_runs", b"")
        os.removexattr(folder, "trusted.views_runs")
    except OSError as error:
        return f"{folder} takes no trusted attributes: {error}"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True)
    return f"there are no namespaces: {tried.stderr!r}" if tried.returncode else ""


class Machine:
    """Namespaces with nothing in them; what runs there ends with it.

    Args:
        namespaces: which ones it has of its own, as options of `unshare`.
        setup: a script to begin with.
        folder: where the script runs.
        inside: the machine that it shares the others with.
    """

    def __init__(self, namespaces: list[str], setup: str, folder: Path, inside: "Machine | None" = None) -> None:
        # Its first process waits for the end of its input, which comes with our own end at the latest; and a shell
        # clears away the other processes that have ended.
        script = f"set -e; {setup}\necho ready; cat; true"
        unshare = ["unshare", "--fork", "--mount-proc", *namespaces, "sh", "-c", script]
        self._enter = inside._enter if inside else []
        self._first = subprocess.Popen(
            [*self._enter, *unshare], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        assert self._first.stdout
        if self._first.stdout.readline() != b"ready\n":
            self.end()
            raise RuntimeError("a machine did not start")
        pid = _last_child(self._first.pid)
        self._processes = os.readlink(f"/proc/{pid}/ns/pid")
        own = ["--mount", "--net", "--pid", "--uts", "--ipc"]
        # Whoever kills nsenter kills what it runs.
        self._enter = ["nsenter", "--target", str(pid), *own, "--", "setpriv", "--pdeathsig", "KILL"]

    def start(self, *command: str | Path, **options: Any) -> "subprocess.Popen[str]":
        """Start a command there, in the folder /; to kill it kills it there."""
        return subprocess.Popen([*self._enter, *map(str, command)], text=True, env=_environment(), **options)

    def run(self, *command: str | Path) -> str:
        """Run a command there, and return what it printed; it has to succeed."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}: {output}{errors}")
        return output

    def kill(self, *words: str) -> None:
        """Kill the one process there whose command line has all these words, and wait until it has ended."""
        [pid] = self._pids(words)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._pids(words), f"the end of {words}")

    def end(self) -> None:
        """Kill everything there."""
        assert self._first.stdin and self._first.stdout
        self._first.stdin.close()
        self._first.wait(timeout=60)
        self._first.stdout.close()

    def _pids(self, words: tuple[str, ...]) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                there = os.readlink(process / "ns" / "pid") == self._processes
                if there and set(words) <= set((process / "cmdline").read_text(errors="replace").split("\0")):
                    found.append(int(process.name))
            except OSError:
                # It has just ended.
                pass
        return found


class Client(Machine):
    """A computer that has mounted a volume.

    Args:
        host: its name.
        rig: where the volume is.
        volume: the volume's name.
        options: of the mount.
    """

    def __init__(self, host: str, rig: "Rig", volume: str, options: str) -> None:
        super().__init__(["--mount", "--pid", "--uts"], f"hostname {host}", rig.folder, rig.servers)
        self.host = host
        self.volume = volume
        #: Where the volume is; only what runs on this client sees it.
        self.folder = rig.folder / "mnt"
        self._options = options
        self.mount()

    def mount(self) -> None:
        """Mount the volume, again if it was mounted before: a mount that nobody serves is in the way."""
        self.start("umount", "--lazy", self.folder, stderr=subprocess.DEVNULL).wait()
        options = ["-o", self._options] if self._options else []
        self.run("mount", "-t", "glusterfs", *options, f"{ADDRESS}:/{self.volume}", self.folder)

    def kill_mount(self) -> None:
        """Kill the process that serves the mount: what is there fails with "transport endpoint is not connected"."""
        self.kill("--process-name", "fuse")

    def python(self, *arguments: str | Path, output: IO[str] | int = subprocess.PIPE) -> "subprocess.Popen[str]":
        """Start this Python there."""
        return self.start(sys.executable, *arguments, stdout=output, stderr=subprocess.PIPE)


class Rig:
    """Servers, and what they have: no more than a folder, and nothing when they have stopped."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="gluster-")
        self.folder = Path(self._temporary.name)
        for name in ("state", "log", "mnt"):
            (self.folder / name).mkdir()
        # What `volume set VOLUME group NAME` reads.
        shutil.copytree("/var/lib/glusterd/groups", self.folder / "state" / "groups")
        self._volumes: set[str] = set()
        self._clients: list[Client] = []
        self.servers = Machine(["--net", "--mount", "--pid", "--ipc"], SERVERS, self.folder)
        self.servers.run("glusterd")

    def mount(self, host: str, coherent: bool = True) -> Client:
        """Return a computer of this name that has mounted the volume.

        Args:
            host: its name.
            coherent: with the options that databases need; otherwise those that GlusterFS has by default. These are two
                volumes, since some of the options are the volume's.
        """
        volume = "coherent" if coherent else "default"
        if volume not in self._volumes:
            self._make(volume, coherent)
        client = Client(host, self, volume, COHERENT_MOUNT if coherent else "")
        self._clients.append(client)
        return client

    def kill_brick(self, volume: str, number: int) -> None:
        """Kill the server of one of three copies."""
        self.servers.kill("--brick-name", str(self.brick(volume, number)))

    def heal(self, volume: str) -> None:
        """Start the bricks that were killed; their copies are healed from then on."""
        self._gluster("volume", "start", volume, "force")
        wait_until(lambda: self._running(volume) == 3, "the bricks to run")

    def wait_until_healed(self, volume: str) -> None:
        """Wait until no file differs from brick to brick."""
        wait_until(lambda: self._is_healed(volume), f"{volume} to be healed")

    def brick(self, volume: str, number: int) -> Path:
        """Return where a copy is."""
        return self.folder / f"{volume}{number}" / "brick"

    def translators(self, volume: str) -> set[str]:
        """Return the types of what a client of this volume puts between a program and the bricks."""
        volfile = self.folder / "state" / "vols" / volume / f"trusted-{volume}.tcp-fuse.vol"
        return {line.split()[1] for line in volfile.read_text().splitlines() if line.strip().startswith("type ")}

    def stop(self) -> None:
        """End everything, and leave nothing."""
        for client in self._clients:
            client.end()
        self.servers.end()
        self._temporary.cleanup()

    def _make(self, volume: str, coherent: bool) -> None:
        bricks = [self.brick(volume, number) for number in range(3)]
        for brick in bricks:
            brick.mkdir(parents=True)
        # By force, because they are not on a disk of their own.
        self._gluster("volume", "create", volume, "replica", "3", *(f"{ADDRESS}:{brick}" for brick in bricks), "force")
        if coherent:
            self._gluster("volume", "set", volume, *COHERENT_VOLUME)
        self._gluster("volume", "start", volume)
        wait_until(lambda: self._running(volume) == 3, "the bricks to run")
        self._volumes.add(volume)

    def _gluster(self, *command: str) -> str:
        return self.servers.run("gluster", "--mode=script", *command)

    def _running(self, volume: str) -> int:
        status = self._gluster("volume", "status", volume)
        return sum(line.split()[-2] == "Y" for line in _joined(status) if line.startswith("Brick"))

    def _is_healed(self, volume: str) -> bool:
        # Without asking, the healing begins some minutes later; while its daemon looks for the bricks, it refuses.
        with suppress(RuntimeError):
            self._gluster("volume", "heal", volume)
        info = self._gluster("volume", "heal", volume, "info").splitlines()
        return [line for line in info if line.startswith("Number of entries")] == ["Number of entries: 0"] * 3


def wait_until(condition: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait until something is the case; it has to be in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


def _joined(status: str) -> list[str]:
    """Return the lines of a table whose long names are broken into several."""
    return status.replace("\n", "").replace("Brick ", "\nBrick ").replace("Self-heal", "\nSelf-heal").splitlines()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT)}


def _last_child(pid: int) -> int:
    """Return the process that a chain of processes ends with."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        [pid] = map(int, children)
    return pid
