"""What may happen to a store that is shared: it goes away, is replaced, may not be written, and clocks are wrong.

Each either works or says what is the matter and what to do, and nothing that was acknowledged is lost.
"""

import json
import os
import platform
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.machine import NOBODY, as_nobody, need
from tests.support.stores import NOTHING, leftovers
from views_runs import (
    ModelNotFoundError,
    NotAStoreError,
    Storage,
    StorageError,
    StoreNotFoundError,
    StoreReadOnlyError,
    UploadLostError,
)
from views_runs.database import models, owners
from views_runs.files import companion

#: A pickle of this many parts is written in several transactions, and not all read when its first items are unpickled.
PARTS = 40

#: What `Interrupted` and `_interrupt` call.
_hooks: list[Callable[[], object]] = []


def _interrupt() -> None:
    _hooks[0]()


class _Interrupt:
    def __reduce__(self) -> Any:
        return _interrupt, ()


class Interrupted:
    """A model that calls a function in the middle of its being stored.

    Args:
        hook: called when some parts are written.
    """

    def __init__(self, hook: Callable[[], object]) -> None:
        self.hook = hook

    def __reduce__(self) -> Any:
        def parts() -> Iterator[bytes]:
            for number in range(PARTS):
                if number == PARTS // 2:
                    # By then, the thread that writes has most probably ended its transaction: nothing helps against
                    # another program that overwrites the file during a commit.
                    time.sleep(0.5)
                    self.hook()
                yield os.urandom(1_000_000)

        return list, (), None, parts()


def is_sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def fails(store: Storage, operation: Callable[[], object], kind: type[StorageError], message: str) -> None:
    """The operation raises this kind of error, which names the file."""
    with pytest.raises(kind, match=message) as caught:
        operation()
    assert str(store.path) in str(caught.value) or str(store.path.parent) in str(caught.value)


#: What is said when the file at the path is not the one that was opened.
GONE = "was deleted, moved or replaced while it was in use, or its share was .* Check the path, .* and try again"


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder that a test may take away."""
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def shared(share: Path) -> Storage:
    """A store there, with a small model and one of many parts that calls a hook when it is fetched."""
    store = Storage(share / "models.db", timeout=10)
    store.store("m", [1, 2, 3])
    store.store("large", [_Interrupt() if number == 5 else os.urandom(1_000_000) for number in range(PARTS)])
    return store


def test_the_share_goes_away_and_comes_back(shared: Storage, share: Path, tmp_path: Path) -> None:
    """Whatever is begun meanwhile says that it is not there; afterwards all is as it was."""
    share.rename(tmp_path / "away")
    for operation in (
        shared.list,
        lambda: shared.fetch("m"),
        lambda: shared.store("n", 1),
        lambda: shared.annotate("m", note=1),
        lambda: shared.delete("m"),
    ):
        fails(shared, operation, StoreNotFoundError, "the folder does not exist. Check the path, and that the share is")
    assert not share.exists()
    (tmp_path / "away").rename(share)
    assert shared.fetch("m") == [1, 2, 3]
    assert shared.store("n", 1).version == 1


def test_the_share_goes_away_in_the_middle_of_a_store(shared: Storage, share: Path, tmp_path: Path) -> None:
    """The store says so; when the share is back all is there, and the next store clears what this one had begun."""
    fails(shared, lambda: shared.store("n", Interrupted(lambda: share.rename(tmp_path / "away"))), StorageError, GONE)
    assert not share.exists()
    (tmp_path / "away").rename(share)
    assert shared.list() == ["large", "m"] and shared.fetch("m") == [1, 2, 3]
    assert leftovers(shared)["uploads"] == 1
    shared.store("n", 1)
    assert leftovers(shared) == NOTHING and is_sound(shared.path)


def test_the_share_is_away_for_a_moment(shared: Storage, share: Path, tmp_path: Path) -> None:
    """A store that did not come by meanwhile goes on with the same file."""

    def blink() -> None:
        share.rename(tmp_path / "away")
        (tmp_path / "away").rename(share)

    shared.store("n", Interrupted(blink))
    assert len(shared.fetch("n")) == PARTS and leftovers(shared) == NOTHING


def test_a_share_that_is_unmounted(tmp_path: Path) -> None:
    """In the empty folder where the mount was no store is made by accident; mounted again, all is there."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root on Linux can mount")
    folder, mount = tmp_path / "folder", tmp_path / "mount"
    folder.mkdir(), mount.mkdir()
    mounted = subprocess.run(["mount", "--bind", folder, mount], capture_output=True)
    need(mounted.returncode == 0, f"mount failed: {mounted.stderr!r}")
    # In a folder of the share, and not in its root: then an unmounted share is a missing folder.
    (folder / "models").mkdir()
    store = Storage(mount / "models" / "models.db")
    unmount = ["umount", "--lazy", mount]
    try:
        store.store("m", [1, 2, 3])
        # Lazily, so that the connection keeps the file: what is at the path is not what it has open.
        fails(store, lambda: store.store("n", Interrupted(lambda: subprocess.run(unmount))), StorageError, GONE)
        assert not os.listdir(mount)
        fails(store, store.list, StoreNotFoundError, "that the share is mounted")
        subprocess.run(["mount", "--bind", folder, mount], check=True)
        assert store.list() == ["m"] and store.fetch("m") == [1, 2, 3]
        subprocess.run(["mount", "-o", "remount,bind,ro", mount], check=True)
        assert store.list() == ["m"] and store.fetch("m") == [1, 2, 3]
        for operation in lambda: store.store("n", 1), lambda: store.delete("m"), lambda: store.annotate("m", note=1):
            fails(store, operation, StoreReadOnlyError, "write permission was denied .* Ask for write permission")
        subprocess.run(["mount", "-o", "remount,bind,rw", mount], check=True)
        store.store("n", 1)
        assert leftovers(store) == NOTHING and is_sound(store.path)
    finally:
        subprocess.run(unmount, capture_output=True)


def vanish(path: Path, other: Path) -> None:
    """Delete the store, as somebody who clears up."""
    for file in path, companion(path, "-journal"):
        file.unlink()


def vanish_without_journal(path: Path, other: Path) -> None:
    """Delete the file alone."""
    path.unlink()


def replace(path: Path, other: Path) -> None:
    """Put another file in its place, as an editor or a program that synchronises does."""
    shutil.copy(other, path.with_name("beside"))
    path.with_name("beside").replace(path)


def overwrite(path: Path, other: Path) -> None:
    """Write another file over it, as cp does."""
    shutil.copyfile(other, path)


@pytest.fixture
def others(tmp_path: Path) -> dict[str, Path]:
    """What may be put in a store's place."""
    (tmp_path / "garbage").write_bytes(b"garbage " * 1000)
    (tmp_path / "empty").touch()
    Storage(tmp_path / "other.db").store("other", [4, 5, 6])
    return {name: tmp_path / name for name in ("garbage", "empty", "other.db")}


DAMAGES = [
    (vanish, "empty", GONE),
    (vanish_without_journal, "empty", GONE),
    (replace, "garbage", GONE),
    (replace, "empty", GONE),
    (replace, "other.db", GONE),
    # Which of the two depends on what SQLite reads first.
    (overwrite, "garbage", "is not an SQLite database|the file is damaged"),
    (overwrite, "empty", "lacks one of a store's tables or columns .* Restore the file from a backup"),
    (overwrite, "other.db", "assumed it had died and removed its parts. Store the model again"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_replaced_in_the_middle_of_a_store(
    shared: Storage, others: dict[str, Path], damage: Callable[[Path, Path], None], name: str, message: str
) -> None:
    """The store is not acknowledged, and what was put there is as it was."""
    other = others[name]
    fails(shared, lambda: shared.store("n", Interrupted(lambda: damage(shared.path, other))), StorageError, message)
    if name == "other.db":
        assert shared.list() == ["other"] and shared.fetch("other") == [4, 5, 6]
        assert leftovers(shared) == NOTHING and is_sound(shared.path)
        assert shared.store("n", 1).version == 1
    elif damage in (replace, overwrite):
        fails(shared, shared.list, NotAStoreError, "is not an SQLite database|is empty")
        assert shared.path.read_bytes() == other.read_bytes()
    else:
        # Its folder exists, so that is a store where nothing was stored yet.
        assert shared.list() == []
        fails(shared, lambda: shared.fetch("m"), ModelNotFoundError, "the store does not exist yet")


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_replaced_in_the_middle_of_a_fetch(
    shared: Storage, others: dict[str, Path], damage: Callable[[Path, Path], None], name: str, message: str
) -> None:
    """What is fetched is the whole model, from the file that is open; or the error says what is wrong."""
    _hooks[:] = [lambda: None]
    whole = shared.fetch("large")
    _hooks[:] = [lambda: damage(shared.path, others[name])]
    if damage in (vanish, replace):
        assert shared.fetch("large") == whole
    else:
        deleted = "was deleted while being read"
        fails(shared, lambda: shared.fetch("large"), StorageError, deleted if name == "other.db" else message)


@pytest.mark.parametrize(
    ("folder", "file", "journal", "message"),
    [
        (0o755, 0o644, 0o644, "Ask someone with write permission to run `views-runs model list` once; that rolls"),
        (0o777, 0o444, 0o444, "Ask someone with write permission to run `views-runs model list` once; that rolls"),
        (0o777, 0o666, 0o644, "Give it the mode of the store file, for example with chmod g+w"),
        (0o755, 0o666, 0o666, "its journal cannot be removed"),
        (0o1777, 0o666, 0o666, "its journal cannot be removed"),
    ],
)
def test_a_hot_journal_of_another_user(
    store: Storage, folder: int, file: int, journal: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may not roll back is told who can; then they can read what was acknowledged."""
    monkeypatch.setenv("VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS", "1")
    store.store("m", [1, 2, 3], {"note": "acknowledged"})
    left = companion(store.path, "-journal")
    subprocess.run([sys.executable, "-c", DYING, store.path], check=True)
    assert left.read_bytes()[:4] == bytes.fromhex("d9d505f9")
    mode = stat.S_IMODE(store.path.parent.stat().st_mode)
    for path, bits in (left, journal), (store.path, file), (store.path.parent, folder):
        path.chmod(bits)
    result = as_nobody(EACH, store)
    lines = result.stdout.splitlines()
    assert len(lines) == 4, result
    for line in lines:
        assert line.startswith("StoreReadOnlyError: cannot ") and message in line and str(store.path) in line
    assert store.list() == ["m"]
    result = as_nobody("print(store.fetch('m'), store.fetch_metadata('m'))", store)
    assert (result.stdout, result.stderr) == ("[1, 2, 3] {'note': 'acknowledged'}\n", "")
    store.path.parent.chmod(mode)
    assert is_sound(store.path)


#: Dies in a transaction that has written to the file already, since it has no memory for its pages.
DYING = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for setting in "journal_mode = PERSIST", "cache_size = 1", "cache_spill = 1":
    connection.execute(f"PRAGMA {setting}").fetchall()
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE models SET metadata = NULL")
for part in range(40):
    connection.execute("INSERT INTO model_parts VALUES (99, ?, x'00', zeroblob(200000))", (part,))
os._exit(0)
"""


EACH = """
for operation in store.list, lambda: store.fetch("m"), lambda: store.store("n", 1), lambda: store.delete("m"):
    try:
        operation()
    except StorageError as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_it_becomes_read_only_in_the_middle(store: Storage) -> None:
    """A store that is under way when its rights go fails and says which; what was read is whole; then all works."""
    need(os.name == "posix" and os.geteuid() == 0, "only root can drop its privileges")
    store.store("m", [1, 2, 3])
    for path in store.path, companion(store.path, "-journal"), store.path.parent:
        shutil.chown(path, NOBODY, NOBODY)
    result = as_nobody(READ_ONLY, store)
    assert result.stderr == "" and "['m']\n[1, 2, 3]\n" in result.stdout
    assert "cannot store 'n': " in result.stdout and "write permission was denied" in result.stdout
    assert result.stdout.endswith("again [1, 2, 3] 1\n")
    assert is_sound(store.path) and leftovers(store) == NOTHING


READ_ONLY = """
journal = str(store.path) + "-journal"
def allow(file, folder):
    store.path.chmod(file), os.chmod(journal, file), store.path.parent.chmod(folder)
class Model:
    def __reduce__(self):
        def parts():
            for number in range(40):
                if number == 20:
                    allow(0o444, 0o555)
                yield os.urandom(1_000_000)
        return list, (), None, parts()
try:
    store.store("n", Model())
except StoreReadOnlyError as error:
    print(error)
print(store.list())
print(store.fetch("m"))
allow(0o644, 0o755)
print("again", store.fetch("m"), store.store("n", 1).version)
"""


class Host:
    """Another computer, in this process: so its process id is the one of whoever stores here.

    Args:
        patch: what to change.
        name: of the host.
        ahead: by how many seconds its clock is ahead.
        kernel: what names its kernel, of which there are no two.
    """

    def __init__(self, patch: pytest.MonkeyPatch, name: str, ahead: float = 0.0, kernel: str = "") -> None:
        self._patch, self._name, self._ahead = patch, name, ahead
        self._kernel = kernel or f"the kernel of {name}"

    def do(self, operation: Callable[[], Any]) -> Any:
        """Do something as this host."""
        clock, today, ahead = time.time, datetime.now, timedelta(seconds=self._ahead)
        with self._patch.context() as patch:
            patch.setattr(platform, "node", lambda: self._name)
            patch.setattr(time, "time", lambda: clock() + self._ahead)
            patch.setattr(models, "datetime", SimpleNamespace(now=lambda zone: today(zone) + ahead))
            patch.setattr(owners, "kernel", lambda: self._kernel)
            patch.setattr(owners, "active_tokens", {})
            return operation()


DAY = 86_400.0


def store_beside(store: Storage, hosts: list[Host], turns: int = 1) -> list[int]:
    """Store a large model, and in the middle of it a small one as each host; return how many uploads each left."""
    looks = []

    def others_store() -> None:
        for host in hosts * turns:
            host.do(lambda: store.store("m", len(looks), overwrite=True))
            looks.append(leftovers(store)["uploads"])

    store.store("n", Interrupted(others_store))
    assert len(store.fetch("n")) == PARTS and leftovers(store) == NOTHING
    return looks


def test_clocks_a_day_apart(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts a day behind and ahead leave a living store alone; and the last stored is the current one."""
    store.store("m", "first")
    hosts = [Host(monkeypatch, f"host{ahead}", ahead) for ahead in (-DAY, DAY, 0.0)]
    assert store_beside(store, hosts, turns=3) == [1] * 9
    assert [record.version for record in store.versions("m")] == [*range(10, 0, -1)]
    hosts[0].do(lambda: store.store("m", "last", overwrite=True))
    assert store.fetch("m") == "last" and store.list() == ["m", "n"]
    stored_at = [record.stored_at for record in store.versions("m")][:2]
    assert stored_at[0] < stored_at[1]


def test_two_hosts_of_one_name(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes by its own clock, though both are called localhost and their clocks are a day apart."""
    store.store("m", "first")
    hosts = [Host(monkeypatch, "localhost", ahead, f"kernel {ahead}") for ahead in (0.0, DAY)]
    assert store_beside(store, hosts, turns=3) == [1] * 6


def test_two_hosts_with_the_same_process_id(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process elsewhere is not taken for the one here of that number, whether it is there or not."""
    store.store("m", "first")
    here = json.loads(owners.this_process())
    elsewhere = Host(monkeypatch, platform.node(), kernel="another")
    owner = elsewhere.do(owners.this_process)
    assert {**json.loads(owner), "kernel": here["kernel"]} == here
    # That upload is not one that this process has under way, and there is no process 999999999.
    assert not owners.has_ended(owner)
    assert not owners.has_ended(json.dumps({**json.loads(owner), "pid": 999_999_999}))
    assert owners.has_ended(json.dumps({**here, "pid": 999_999_999}))
    assert store_beside(store, [elsewhere]) == [1]


def test_a_host_whose_clock_jumps(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a living store for dead, which fails, says so, and leaves nothing; stored again, it is there."""
    store.store("m", "first")
    hosts = [Host(monkeypatch, "host", ahead) for ahead in (0.0, DAY)]
    fails(store, lambda: store_beside(store, hosts), UploadLostError, "Store the model again; nothing was stored")
    assert store.list() == ["m"] and store.fetch("m") == 1 and leftovers(store) == NOTHING
    store.store("n", 1)
    assert store.fetch("n") == 1 and is_sound(store.path)
