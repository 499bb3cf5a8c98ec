"""The main job on Windows: store, find, fetch, the command line, two processes at once, and one that is killed."""

import os
import subprocess
import sys
from pathlib import Path

from views_runs import Storage

LARGE = os.urandom(3_000_000)


def main_job(store: Storage) -> None:
    """Store, find, fetch, verify, back up, download and delete."""
    store.store("small", [1], {"author": "testuser", "train_end": 480})
    store.store("large", LARGE)
    assert store.fetch("small") == [1] and store.fetch("large") == LARGE
    assert store.list("train_end > 2019-11") == ["small"]
    assert store.verify().damaged == () and store.backup("copy.db").versions == 2
    assert Storage("copy.db").fetch("large") == LARGE
    states = {finding.topic: finding.state for finding in store.doctor()}
    assert "failure" not in states.values() and states["file"] == "ok", states
    store.store("con", 1)
    assert store.download("con").name == "_con.pickle" and store.download("small").stat().st_size < 100
    store.delete("con")


def command_line(store: Storage) -> None:
    """A glob is one of models although a file matches it, and the output can be redirected in any code page."""
    command = [sys.executable, "-m", "views_runs", "--store", str(store.path), "model"]
    for encoding in ("cp437", "cp1252", "utf-8"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        listed = subprocess.run([*command, "list", "-q", "sm*"], capture_output=True, env=environment, check=True)
        assert listed.stdout.split() == [b"small"], listed
        shown = subprocess.run([*command, "inspect", "small"], capture_output=True, env=environment, check=True)
        assert b"\\u" not in shown.stdout and b"480 (Dec 2019)" in shown.stdout, shown
    missing = subprocess.run([*command, "inspect", "smal"], capture_output=True, text=True)
    assert missing.returncode == 1 and "Did you mean 'small'?" in missing.stderr, missing


def work(store: Storage, name: str, count: int) -> None:
    """Store models of one and of several parts, and print the name of each once it is acknowledged."""
    for number in range(count):
        store.store(f"{name}-{number}", [name, number, LARGE if number % 3 == 0 else b""])
        print(f"{name}-{number}", flush=True)


def start(store: Storage, name: str, count: int) -> "subprocess.Popen[str]":
    """Start a process that stores."""
    command = [sys.executable, __file__, str(store.path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def several_processes(store: Storage) -> tuple[int, int]:
    """Let two processes store at once, and kill a third; return what was acknowledged, and what of it is there."""
    both = [start(store, name, 12) for name in ("ann", "bob")]
    killed = start(store, "cid", 1000)
    assert killed.stdout
    acknowledged = [killed.stdout.readline().strip() for _ in range(5)]
    killed.kill()
    acknowledged += [name for process in (*both, killed) for name in (process.communicate()[0] or "").split()]
    found = [name for name in acknowledged if store.fetch(name)[:2] == [name[:3], int(name[4:])]]
    assert store.verify().damaged == ()
    return len(acknowledged), len(found)


def main() -> None:
    """Do all of it in the current folder."""
    if len(sys.argv) > 1:
        work(Storage(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
        return
    store = Storage(Path("models.db"))
    main_job(store)
    command_line(store)
    acknowledged, found = several_processes(store)
    print(f"{sys.platform}, Python {sys.version.split()[0]}: {acknowledged} acknowledged, {found} of them there")
    assert acknowledged == found >= 29


if __name__ == "__main__":
    main()
