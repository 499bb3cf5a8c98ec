"""What a store file is, and how it is doing where it lies."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from views_runs import filesystems
from views_runs.database import locks, schema, uploads
from views_runs.health import peer
from views_runs.pickles import permissions
from views_runs.database.connection import SQLITE_VERSION, Connection
from views_runs.files import companion
from views_runs.exceptions import StorageError, StoreBusyError
from views_runs.records import Encounter, Finding
from views_runs.version import __version__

#: Seconds to wait for a lock: this is to answer at once.
TIMEOUT = 2.0

#: The first bytes of the journal of a transaction that has begun to change the file.
_HOT = bytes.fromhex("d9d505f920a163d7")

#: Free bytes on the disk under which something will fail soon.
LITTLE = 16_000_000


def examine(path: Path, decided_by: str) -> list[Finding]:
    """Look at a store file, its journal, its folder and its file system; whatever is there, this does not raise."""
    findings = list(_tried("store", lambda: _place(path, decided_by)))
    # Unlike those of `Path`, these do not raise where a folder may not be read.
    if not os.path.isdir(path.parent):
        return findings
    if os.path.isfile(path) and os.path.getsize(path):
        findings += _database(path)
    checks = [
        ("free space", _free_space),
        ("permissions", _permissions),
        ("file system", _file_system),
        ("locks", _locks),
    ]
    for topic, check in checks:
        findings += _tried(topic, partial(check, path))
    return findings


def _database(path: Path) -> Iterator[Finding]:
    """Look into the file, unless it is locked: then the first to find that out has waited for all."""
    for topic, check in (("journal", _journal), ("file", _file), ("leftovers", _leftovers)):
        try:
            yield from check(path)
        except StoreBusyError as error:
            yield Finding(topic, "warning", str(error))
            return
        except (StorageError, OSError) as error:
            yield Finding(topic, "failure", str(error))


def with_peer(folder: Path, say: Callable[[str], object]) -> list[Finding]:
    """Commit together with another computer, and say what came of it."""
    return list(_tried("coherence", lambda: iter(met(peer.meet(folder, say)))))


def met(encounter: Encounter) -> list[Finding]:
    """Say what came of committing together with another computer."""
    topic, other = "coherence", encounter.other_host
    advice = "Do not share a store here; mount it otherwise (see Sharing a store in the README) and ask again"
    if other is None:
        text = f"nobody came within {encounter.took:.0f} s"
        return [Finding(topic, "failure", text, "Run this on two computers, on the same store, within a minute")]
    acknowledged = encounter.acknowledged_here + encounter.acknowledged_there
    arrived = encounter.arrived_here + encounter.arrived_there
    text = (
        f"{arrived} of {acknowledged} acknowledged commits arrived: {encounter.arrived_here} of "
        f"{encounter.acknowledged_here} from {encounter.host}, {encounter.arrived_there} of "
        f"{encounter.acknowledged_there} from {other}, as seen from {encounter.host}"
    )
    found = [Finding(topic, "failure", error, advice) for error in encounter.errors]
    lost = arrived < acknowledged or not acknowledged
    found.append(Finding(topic, "failure" if lost else "ok", text, advice if lost else ""))
    if encounter.same_computer:
        doubt = "both were on one computer, which says nothing of two"
        found.append(Finding(topic, "warning", doubt, "Run this on two computers within a minute"))
    return found


def _tried(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except (StorageError, OSError) as error:
        yield Finding(topic, "failure", str(error))


def _place(path: Path, decided_by: str) -> Iterator[Finding]:
    text = f"{path} ({decided_by}), views_runs {__version__}, SQLite {SQLITE_VERSION}"
    is_default = decided_by == "the default"
    if path.exists():
        trouble = schema.not_a_file(path.stat())
        if trouble:
            yield Finding("store", "failure", f"{text}: it {trouble}", "Give the file of a store")
        elif not path.stat().st_size:
            empty = "it is empty (0 bytes): a copy that failed, or a store that was never finished"
            yield Finding("store", "warning", f"{text}: {empty}", "Restore it, or store a model to begin anew")
        else:
            yield Finding("store", "ok", text)
    elif path.parent.is_dir() or is_default:
        state = "ok" if is_default else "warning"
        yield Finding("store", state, f"{text}: it is not there yet; the first model stored makes it")
    else:
        yield Finding(
            "store", "failure", f"{text}: {path.parent} is not there", "Check the path, and that the share is mounted"
        )


def _file(path: Path) -> Iterator[Finding]:
    with schema.connect(path, "examine", TIMEOUT) as connection:
        size = path.stat().st_size
        names, versions, pickles = connection.rows(
            "SELECT count(DISTINCT name), count(*), ifnull(sum(size), 0) FROM models INDEXED BY models_record"
        )[0]
        text = f"layout {schema.SCHEMA_VERSION}, {_size(size)}; {names:,} models, {versions:,} versions, {_size(pickles)} of pickles"
        yield Finding("file", "ok", text)
        free = connection.value("PRAGMA freelist_count") * connection.value("PRAGMA page_size")
        wasteful = free > size // 2 and free > 100_000_000
        yield Finding(
            "free pages",
            "warning" if wasteful else "ok",
            f"{_size(free)} of the file are free, and are used for the next models",
            "`viewser model delete` of any model gives them back to the disk" if wasteful else "",
        )


def _journal(path: Path) -> Iterator[Finding]:
    schema.refuse_foreign_wal(path, "examine", TIMEOUT)
    was_hot = _is_hot(path)
    with Connection(f"{path.as_uri()}?mode=rw", path, "examine", TIMEOUT) as connection:
        mode = connection.value("PRAGMA journal_mode")
    journal = companion(path, "-journal")
    if mode in ("wal", "off", "memory"):
        advice = f"Let everyone close it, then: sqlite3 {path} 'PRAGMA journal_mode = DELETE'"
        trouble = f"journal_mode is {mode}: another program set it, and on a share it loses data"
        yield Finding("journal", "failure", trouble, advice)
    elif was_hot:
        state = (
            "somebody is writing" if _is_hot(path) else "somebody died while writing, and what they began is undone now"
        )
        yield Finding("journal", "ok", f"a rollback journal: {state}")
    elif journal.exists():
        yield Finding("journal", "ok", f"a rollback journal, {_size(journal.stat().st_size)}, at rest")
    else:
        yield Finding("journal", "ok", "a rollback journal; there is none now, the next who stores makes it")


def _is_hot(path: Path) -> bool:
    """Whether a journal holds what is to be played back, if nobody is writing."""
    try:
        with companion(path, "-journal").open("rb") as file:
            return file.read(len(_HOT)) == _HOT
    except FileNotFoundError:
        return False


def _leftovers(path: Path) -> Iterator[Finding]:
    with schema.connect(path, "examine", TIMEOUT) as connection:
        dead, alive = uploads.dead_and_alive(connection)
    for who in alive:
        yield Finding("stores under way", "ok", who)
    if dead:
        text = f"parts of models that were deleted, or whose store died, are still to be cleared: {'; '.join(dead)}"
        yield Finding("leftovers", "warning", text, "The next store or delete on that computer clears them")
    else:
        yield Finding("leftovers", "ok", "none of stores that died")


def _free_space(path: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(path.parent)
    state = "failure" if usage.free < LITTLE else "warning" if usage.free < usage.total // 20 else "ok"
    advice = (
        "" if state == "ok" else "Delete models that nobody needs (`viewser model delete`), or free space otherwise"
    )
    yield Finding("free space", state, f"{_size(usage.free)} of {_size(usage.total)} on the disk are free", advice)


def _permissions(path: Path) -> Iterator[Finding]:
    mount = filesystems.mount_of(path)
    if os.name != "posix" or (mount and mount.kind in filesystems.WITHOUT_MODES):
        kind = mount.kind if mount else "this system"
        yield Finding(
            "permissions",
            "warning",
            f"on {kind} mode bits do not say who may write",
            "Ask whoever keeps the server who may",
        )
        return
    danger = "everyone on this system may write it, and so run code as whoever fetches"
    opened = dict(permissions.open_to_everyone(path))
    for place in permissions.places(path):
        what = "folder" if place.is_dir() else "journal" if place.name.endswith("-journal") else "file"
        text = f"{what} {place}: {permissions.described(place)}"
        if place in opened:
            yield Finding("permissions", "failure", f"{text}: {danger}", opened.pop(place))
        else:
            yield Finding("permissions", "ok", text)
    for place, mend in opened.items():
        described = permissions.described(place)
        yield Finding("permissions", "failure", f"folder {place}, on the way to it: {described}: {danger}", mend)
    for trouble, advice in permissions.troubles(path):
        yield Finding("permissions", "failure", trouble, advice)
    for trouble, advice in permissions.doubts(path):
        yield Finding("permissions", "warning", trouble, advice)


def _file_system(path: Path) -> Iterator[Finding]:
    mount = filesystems.mount_of(path)
    if mount is None:
        yield Finding(
            "file system", "warning", "this system does not tell which", "If it is a share, ask --peer on two computers"
        )
        return
    about = f"{mount.kind} at {mount.point} from {mount.source} ({','.join(mount.options)})"
    for state, text, advice in filesystems.known(mount, path):
        yield Finding("file system", state, f"{about}: {text}", advice)
    if not mount.is_local:
        yield Finding(
            "coherence",
            "ok",
            "only a second computer can tell whether both see the same",
            "`viewser model doctor --peer` on two computers within a minute tells",
        )


def _locks(path: Path) -> Iterator[Finding]:
    try:
        trouble = locks.trouble(path.parent)
    except OSError as error:
        yield Finding("locks", "warning", f"that cannot be known here: {error}")
        return
    advice = "Mount the share with locks (NFS: version 4, never nolock), or keep the store elsewhere"
    if trouble:
        yield Finding("locks", "failure", trouble, advice)
    else:
        yield Finding("locks", "ok", "a second process is kept out")


def _size(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> _size(1_234_567), _size(12)
    ('1.2 MB', '12 bytes')
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
