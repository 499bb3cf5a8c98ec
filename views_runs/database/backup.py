"""Back up a store while others write to it.

The rows are read in one snapshot, and then the pickles, which never change, part by part, so nobody waits for longer
than one read. SQLite's own methods keep writers out for seconds (VACUUM INTO) or start again whenever another process
commits (the online backup).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from views_runs import files
from views_runs.database import database, events, owners, schema
from views_runs.database.connection import Connection
from views_runs.database.models import TABLE, Models, refuse_other_digest
from views_runs.database.verification import Progress, Selection, refuse_lost_row, select_models, verify
from views_runs.exceptions import (
    BackupError,
    CorruptModelError,
    ModelNotFoundError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
)
from views_runs.files import COMPANIONS, companion
from views_runs.pickles.parts import Part, PickleWriter
from views_runs.records import Backup, Damage, ModelRecord, Verification

#: The columns read in one snapshot. The others never change, and some of them are large.
_COLUMNS = "id, name, version, stored_at, stored_by, size, sha256, metadata, datetimes, environment"

#: The small tables of each layout, copied as they are, and their columns. A copy has the layout of the file, so that
#: earlier versions of this package can read the copy that was made before an upgrade.
_EVERY = {
    "required_fields": "field",
    # Not the one of the temporary tables through which a file with layout 1 is read.
    "main.sqlite_sequence": "name, seq",
}
_WHOLE = {
    1: {"names": "name, versions", **_EVERY},
    2: {
        "names": "id, name, versions, renamed_to",
        "restored": "name, version, highest",
        "aliases": "model, alias, version",
        "runs": "id, started_at, started_by, ended_at, succeeded",
        "run_models": "run, model, version, number, trained, expected",
        **_EVERY,
    },
}

# Nobody reads the copy before it is finished, so it does not need to survive a crash.
_HASTE = "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;"


def back_up(source: Connection, selection: Selection, target: Path, progress: Progress) -> Backup:
    """Copy a store to a new file, and verify the copy; report the bytes just copied or read back."""
    # Read now: the path may be gone by the time the copy is complete.
    mode = source.path.stat().st_mode & 0o777
    _refuse_companions(target)
    _remove_leftovers(target.parent)
    with files.written(target, BackupError, tag=owners.process_tag()) as beside:
        # The copy of a private store is private from the first byte.
        mode &= beside.stat().st_mode
        beside.chmod(mode | 0o600)
        with _as_backup_error(beside, target), Connection(beside, 0) as copy:
            copy.script(_HASTE)
            schema.lay_out(copy, source.layout)
            deleted, damaged = _copy_all(source, copy, selection, progress)
        with _as_backup_error(beside, target):
            verified = _verify_copy(beside, progress)
        beside.chmod(mode)
    return Backup(target, verified.versions, verified.size, deleted, damaged)


@contextmanager
def _as_backup_error(beside: Path, target: Path) -> Iterator[None]:
    """Attribute the errors of the copy to its target, not to the store."""
    try:
        yield
    except BackupError as error:
        error.path = target
        raise
    except StorageError as error:
        if error.path != beside:
            raise
        trouble, advice = error.trouble, "Give another file"
        if isinstance(error, StoreFullError):
            trouble, advice = "the disk is full", "Free some space there, or give another file"
        raise BackupError(trouble, advice).locate(path=target) from error


def _refuse_companions(target: Path) -> None:
    """Refuse a target beside which another database left a journal, which SQLite would play back into the copy."""
    for ending in COMPANIONS:
        try:
            if companion(target, ending).exists():
                trouble = f"{companion(target, ending)} exists and belongs to another database"
                raise BackupError(trouble, "Remove it or give another file").locate(path=target)
        except OSError as error:
            raise BackupError(str(error.strerror), "Give another file").locate(path=target) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of backups whose process is known to have ended."""
    try:
        found = [*folder.glob(f"{files.TEMPORARY}backup-*")]
    except OSError:
        return
    for file in found:
        if owners.has_tag_ended(file.name):
            files.remove(file)


def _copy_all(
    source: Connection, copy: Connection, selection: Selection, progress: Progress
) -> tuple[tuple[str, ...], tuple[Damage, ...]]:
    """Copy everything; return the versions deleted in the meantime, and the damaged ones."""
    models, damaged, last_event = _copy_tables(source, copy, selection)
    for rows in events.walk(source, last_event):
        with copy.transaction():
            _insert(copy, "events", ", ".join(events.ROW), rows)
    deleted = []
    for row in models:
        name, version = row[1:3]
        try:
            # A row that cannot be read counts as damaged too.
            ModelRecord.from_row((name, version, False, *row[3:], None))
            with copy.transaction():
                _copy_model(source, copy, row, progress)
        except ModelNotFoundError:
            deleted.append(f"{name}:{version}")
        except (CorruptModelError, StoreDamagedError) as error:
            damaged.append(Damage.of(name, version, error))
    for table in _WHOLE[source.layout].keys() & {"aliases", "restored"}:
        copy.change(f"DELETE FROM {table} WHERE version NOT IN (SELECT id FROM models)")
    return tuple(deleted), tuple(damaged)


def _copy_tables(
    source: Connection, copy: Connection, selection: Selection
) -> tuple[list[tuple[Any, ...]], list[Damage], int]:
    """Copy the small tables; return the rows of the models, the damaged ones, and the last event, from one snapshot."""
    tables = _WHOLE[source.layout]
    with source.snapshot():
        if source.value("PRAGMA user_version") != source.layout:
            # What it has by now would be missing in a copy with the earlier layout.
            raise StorageError("the file was upgraded while its models were counted", "Try again")
        whole = {table: source.rows(f"SELECT {columns} FROM {table}") for table, columns in tables.items()}
        models, damaged = _read_rows(source, selection)
        last_event = source.value("SELECT ifnull(max(id), 0) FROM events")
    with copy.transaction():
        for table, columns in tables.items():
            copy.change(f"DELETE FROM {table}")
            _insert(copy, table, columns, whole[table])
        # In the copy, the parts of a model are stored under its own id, which no new upload may be given.
        copy.change("DELETE FROM sqlite_sequence WHERE name = 'uploads'")
        copy.change("INSERT INTO sqlite_sequence SELECT 'uploads', seq FROM sqlite_sequence WHERE name = 'models'")
    return models, damaged, last_event


def _insert(copy: Connection, table: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    for row in rows:
        copy.change(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)


def _read_rows(source: Connection, selection: Selection) -> tuple[list[tuple[Any, ...]], list[Damage]]:
    """Return the rows of the models, and the damaged ones, although the index of records may lead astray."""
    with suppress(StoreDamagedError):
        rows = source.rows(f"SELECT {_COLUMNS} FROM {TABLE} ORDER BY id")
        listed = {id: (name, version) for id, name, version, *_ in rows}
        lost = [id for id, (name, version, _) in selection.items() if listed.get(id) != (name, version)]
        # Those without a row have been deleted since they were selected.
        if not any(source.row("SELECT 1 FROM models NOT INDEXED WHERE id = ?", (id,)) for id in lost):
            return rows, []
    found, damaged = [], []
    for id, (name, version, _) in sorted(selection.items()):
        try:
            rows = source.rows(f"SELECT {_COLUMNS} FROM models NOT INDEXED WHERE id = ?", (id,))
            found += rows
            if not rows:
                refuse_lost_row(source, id, name)
        except StoreDamagedError as error:
            damaged.append(Damage.of(name, version, error))
    return found, damaged


def _copy_model(source: Connection, copy: Connection, row: tuple[Any, ...], progress: Progress) -> None:
    id, numbers = row[0], count(1)

    def add(part: Part) -> None:
        insert = "INSERT INTO model_parts (upload, part, digest, data) VALUES (?, ?, ?, ?)"
        copy.change(insert, (id, next(numbers), part.digest, part.data))

    writer, models = PickleWriter(add), Models(source)
    stored = models.row_of(id)
    if stored is None:
        refuse_lost_row(source, id, row[1])
        raise ModelNotFoundError("the model was deleted")
    refuse_other_digest(stored, row[6])
    with models.pieces(stored) as pieces:
        for piece in pieces:
            writer.write(piece)
            progress(len(piece))
    first = writer.finish().first
    upload = id if next(numbers) > 1 else None
    copy.change(
        f"INSERT INTO models ({_COLUMNS}, digest, upload, pickle) VALUES ({', '.join('?' * (len(row) + 3))})",
        (*row, first.digest, upload, first.data),
    )


def _verify_copy(path: Path, progress: Progress) -> Verification:
    """Read the copy back, and raise an error if it differs from what was written."""
    with database.connect(path, 0) as copy:
        verification = verify(copy, select_models(copy), progress)
        found = copy.value("PRAGMA integrity_check")
        if verification.damaged or found != "ok":
            trouble = verification.damaged[0].trouble if verification.damaged else found
            raise BackupError(f"the copy differs from what was written: {trouble}", "Try another disk")
    return verification
