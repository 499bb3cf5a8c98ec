"""Diagnose a store file and the file system it is on."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from views_runs import filesystems, signals
from views_runs.database import database, locks, owners, schema
from views_runs.database.connection import SQLITE_VERSION, Connection
from views_runs.exceptions import InvalidPathError, StorageError, StoreBusyError
from views_runs.files import TEMPORARY, companion
from views_runs.health import peer, permissions
from views_runs.records import Decided, Encounter, Finding
from views_runs.texts import printable, shell_line
from views_runs.version import __version__

#: Seconds to wait for a lock; a diagnosis should not take long.
TIMEOUT = 2.0

#: Free bytes on the disk below which operations will soon fail.
LOW_SPACE = 16_000_000


def examine(path: Path, decided_by: Decided, say: Callable[[str], object] | None = None) -> list[Finding]:
    """Check a store file, its journal, its folder and its file system; never raise an exception.

    With `say`, which is called with progress messages, also run the test with another computer.
    """
    findings = attempt("store", check_place(path, decided_by))
    # Unlike the methods of `Path`, this does not raise an error if a folder cannot be read.
    if not os.path.isdir(path.parent):
        return findings
    for topic, check in CHECKS.items():
        findings += attempt(topic, check(path))
    return findings + attempt("coherence", check_coherence(path, say))


def attempt(topic: str, check: Iterator[Finding]) -> list[Finding]:
    """Return the findings of a check, with control characters escaped; if it fails, add that as a finding."""
    findings = []
    try:
        for finding in check:
            findings.append(finding)
    except StorageError as error:
        state = "warning" if isinstance(error, StoreBusyError) else "failure"
        findings.append(Finding(topic, state, error.trouble, error.advice))
    except Exception as error:
        signals.let_through(error)
        # A damaged store can fail in any way, and the other checks may still be useful.
        findings.append(Finding(topic, "failure", str(error) or type(error).__name__))
    return [one._replace(text=printable(one.text), advice=printable(one.advice)) for one in findings]


def check_place(path: Path, decided_by: Decided) -> Iterator[Finding]:
    """Check that the path can be that of a store, and whether the file exists."""
    text = f"{path} ({decided_by}), views_runs {__version__}, SQLite {SQLITE_VERSION}"
    if path.exists():
        try:
            database.refuse_unusable(path.stat())
        except InvalidPathError as error:
            yield Finding("store", "failure", f"{text}: {error.trouble}", error.advice)
            return
        if path.stat().st_size:
            yield Finding("store", "ok", text)
        else:
            empty = "the file is empty (0 bytes): an incomplete copy, or a store that was never finished"
            yield Finding("store", "warning", f"{text}: {empty}", "Restore it from a backup, or store a model")
    elif decided_by is Decided.DEFAULT or path.parent.is_dir():
        state = "ok" if decided_by is Decided.DEFAULT else "warning"
        yield Finding("store", state, f"{text}: the file does not exist yet; storing the first model creates it")
    else:
        trouble = f"{text}: the folder {path.parent} does not exist"
        yield Finding("store", "failure", trouble, "Check the path, and that the share is mounted")


def check_database(path: Path) -> Iterator[Finding]:
    """Check the contents of the file, unless it is empty or locked."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    yield check_journal(path)
    with database.connect(path, TIMEOUT) as connection:
        names, versions, pickles = connection.rows(
            "SELECT count(DISTINCT name), count(*), ifnull(sum(size), 0) FROM models INDEXED BY models_record"
        )[0]
        size, free = (connection.value(f"PRAGMA {pages}") for pages in ("page_count", "freelist_count"))
        page, layout = (connection.value(f"PRAGMA {name}") for name in ("page_size", "user_version"))
        dead, alive = owners.describe_uploads(connection)
    models = f"{format_count(names, 'model')}, {format_count(versions, 'version')}"
    text = f"layout {layout}, {format_size(size * page)}; {models}, {format_size(pickles)} of pickles"
    is_old = layout < schema.SCHEMA_VERSION
    advice = "Make a copy first, with `views-runs model backup`: earlier releases cannot read the new layout"
    text += f"; the next change upgrades it to layout {schema.SCHEMA_VERSION}" if is_old else ""
    yield Finding("file", "warning" if is_old else "ok", text, advice if is_old else "")
    text = f"{format_size(free * page)} of the file is free and will be used for new models"
    is_much = free > size // 2 and free * page > 100_000_000
    advice = "Deleting any model (`views-runs model delete`) returns it to the disk" if is_much else ""
    yield Finding("free pages", "warning" if is_much else "ok", text, advice)
    for writer in alive:
        yield Finding("uploads in progress", "ok", writer)
    if dead:
        text = f"leftover parts of deleted models or interrupted uploads: {'; '.join(dead)}"
        yield Finding("leftovers", "warning", text, "The next store or delete on that computer removes them")
    else:
        yield Finding("leftovers", "ok", "none from interrupted uploads")


def check_backups(path: Path) -> Iterator[Finding]:
    """Report temporary files of backups."""
    for file in sorted(path.parent.glob(f"{TEMPORARY}backup-*")):
        if owners.has_tag_ended(file.name):
            advice = "The next backup to this folder removes it"
            yield Finding("backups", "warning", f"{file} was left by a backup that was killed", advice)
        else:
            elsewhere = " on another computer" if owners.kernel() else ""
            text = f"{file} belongs to a backup that is still running, or was killed{elsewhere}"
            yield Finding("backups", "ok", text, "Delete it if no backup is running")


def check_journal(path: Path) -> Finding:
    """Report the file's journal mode, and the state of its journal."""
    database.refuse_foreign_wal(path, TIMEOUT)
    journal = companion(path, "-journal")
    was_hot = database.is_hot(journal)
    # Not `database.connect`, which sets the mode.
    with Connection(path, TIMEOUT, refusal=database.find_refusal(path)) as connection:
        mode = connection.value("PRAGMA journal_mode")
    if mode in ("wal", "off", "memory"):
        trouble = f"another program has set journal_mode to {mode}, which can lose data on a share"
        command = shell_line("sqlite3", str(path), "PRAGMA journal_mode = DELETE")
        return Finding("journal", "failure", trouble, f"When nobody has the store open, run `{command}`")
    if was_hot and database.is_hot(journal):
        state = "a process is writing"
    elif was_hot:
        state = "a process was killed while writing; its unfinished change has been rolled back"
    elif journal.exists():
        state = f"{format_size(journal.stat().st_size)}, idle"
    else:
        state = "none at the moment; the next store creates it"
    return Finding("journal", "ok", f"rollback journal: {state}")


def check_space(path: Path) -> Iterator[Finding]:
    """Check the free space on the disk."""
    usage = shutil.disk_usage(path.parent)
    text = f"{format_size(usage.free)} of {format_size(usage.total)} on the disk is free"
    if usage.free < usage.total // 20 or usage.free < LOW_SPACE:
        advice = "Delete models that nobody needs (`views-runs model delete`), or free space in another way"
        yield Finding("free space", "failure" if usage.free < LOW_SPACE else "warning", text, advice)
    else:
        yield Finding("free space", "ok", text)


def check_file_system(path: Path) -> Iterator[Finding]:
    """Report what is known about the file system."""
    for state, text, advice in filesystems.assess_folders(path):
        yield Finding("file system", state, text, advice)
    mount = filesystems.find_mount(path)
    if mount is None:
        advice = "If this is a network share, run `views-runs model doctor --peer` on two computers"
        yield Finding("file system", "warning", "the file system type cannot be determined", advice)
        return
    origin = f" from {mount.source} ({','.join(mount.options)})" if mount.source != mount.point else ""
    about = f"{mount.kind} at {mount.point}{origin}"
    for state, text, advice in filesystems.assess(mount):
        yield Finding("file system", state, f"{about}: {text}", advice)


def check_locks(path: Path) -> Iterator[Finding]:
    """Check that a lock keeps a second process out."""
    try:
        trouble = locks.find_trouble(path.parent)
    except OSError as error:
        yield Finding("locks", "warning", f"locks could not be tested: {error}")
        return
    if trouble:
        advice = "Mount the share with locks (NFS: version 4, never nolock), or keep the store elsewhere"
        yield Finding("locks", "failure", trouble, advice)
    else:
        yield Finding("locks", "ok", "a lock keeps a second process out")


#: The checks, each by the topic of the finding if it fails.
CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "file": check_database,
    "backups": check_backups,
    "free space": check_space,
    "permissions": permissions.check_permissions,
    "file system": check_file_system,
    "locks": check_locks,
}


def check_coherence(path: Path, say: Callable[[str], object] | None) -> Iterator[Finding]:
    """Run the test with another computer, or advise it for a network share."""
    if say:
        yield from describe_encounter(peer.meet(path.parent, say))
    elif (mount := filesystems.find_mount(path)) and mount.kind not in (*filesystems.LOCAL, *filesystems.SMB):
        text = "only a test with a second computer shows whether both see the same data"
        advice = "Run `views-runs model doctor --peer` on two computers within a minute of each other"
        yield Finding("coherence", "ok", text, advice)


def describe_encounter(encounter: Encounter) -> list[Finding]:
    """Report the result of the test with another computer."""
    topic, other = "coherence", encounter.other_host
    together = "Run this on two computers, on the same store, within a minute of each other"
    if other is None:
        return [Finding(topic, "failure", f"no other computer joined within {encounter.took:.0f} s", together)]
    acknowledged = encounter.acknowledged_here + encounter.acknowledged_there
    arrived = encounter.arrived_here + encounter.arrived_there
    text = (
        f"{arrived} of {acknowledged} acknowledged commits arrived: {encounter.arrived_here} of "
        f"{encounter.acknowledged_here} from {encounter.host}, {encounter.arrived_there} of "
        f"{encounter.acknowledged_there} from {other}, as seen from {encounter.host}"
    )
    advice = "Do not share a store here. Mount the share differently (`views-runs model guide sharing`) and try again"
    findings = [Finding(topic, "failure", error, advice) for error in encounter.errors]
    lost = arrived < acknowledged or not acknowledged
    findings.append(Finding(topic, "failure", text, advice) if lost else Finding(topic, "ok", text))
    if encounter.same_computer:
        text = "both sides ran on the same computer, which says nothing about two computers"
        findings.append(Finding(topic, "warning", text, together))
    return findings


def format_count(number: int, noun: str) -> str:
    """Format a number with a noun, as in ``1,200 versions``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_size(count: int) -> str:
    """Format a number of bytes.

    >>> format_size(1_234_567), format_size(12), format_size(1)
    ('1.2 MB', '12 bytes', '1 byte')
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return format_count(count, "byte")
