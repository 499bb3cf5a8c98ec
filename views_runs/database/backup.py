"""A copy of a store while others write to it.

The rows are read at one moment, and then the pickles, which never change, part by part: nobody waits for longer than
one read takes. SQLite's own ways keep writers out for seconds (VACUUM INTO), or begin again with every commit of
theirs (the online backup).
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from views_runs import files
from views_runs.database import rows, schema
from views_runs.database.connection import Connection
from views_runs.files import COMPANIONS, companion
from views_runs.exceptions import (
    BackupError,
    CorruptModelError,
    ModelNotFoundError,
    NotAStoreError,
    StoreDamagedError,
    StoreFullError,
)
from views_runs.pickles.pickling import Part, PartWriter
from views_runs.records import Backup, Damage, Verification
from views_runs.database.verification import Progress, chosen, verify

#: What a row has that is read at that one moment. The rest never changes, and some of it is large.
_COLUMNS = "id, name, version, stored_at, stored_by, size, sha256, metadata, datetimes, environment"

#: Small tables that are copied whole.
_WHOLE = {"names": "name, versions", "required_fields": "field", "sqlite_sequence": "name, seq"}

# Nobody reads the copy before it is there, so it needs no care on the way.
_HASTE = "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;"


def back_up(source: Connection, target: Path, overwrite: bool, progress: Progress) -> Backup:
    """Copy a store into another file, and read the copy back.

    Args:
        source: the store.
        target: the other file.
        overwrite: replace it if it is there.
        progress: called with how many more bytes were copied, or read back.
    """
    doing = source.doing
    # Now: the path may be gone when the copy is made.
    mode = source.path.stat().st_mode & 0o777
    _refuse_left(target, overwrite, doing)
    with _kept_from_others(target, doing), files.written(target, overwrite, BackupError, doing) as beside:
        # The copy of a private store is private, from its first byte on.
        mode &= beside.stat().st_mode
        beside.chmod(mode | 0o600)
        with _told_of(target, doing), Connection(f"{beside.as_uri()}?mode=rwc", beside, doing, 0) as copy:
            copy.script(_HASTE)
            schema.lay_out(copy)
            deleted, damaged = _fill(source, copy, progress)
        verified = _verified(beside, doing, progress)
        beside.chmod(mode)
        companion(target, "-journal").unlink(missing_ok=True)
    return Backup(target, verified.versions, verified.size, deleted, damaged)


@contextmanager
def _told_of(target: Path, doing: str) -> Iterator[None]:
    """Let a full disk be that of the copy."""
    try:
        yield
    except StoreFullError as error:
        raise BackupError(
            f"cannot {doing}: {target}: the disk is full. Free some space there, or give another file"
        ) from error


def _refuse_left(target: Path, overwrite: bool, doing: str) -> None:
    """Refuse a target beside which another database has left, or has, what SQLite would play into the copy."""
    try:
        left = [one for one in (companion(target, ending) for ending in COMPANIONS) if one.exists()]
    except OSError as error:
        raise BackupError(f"cannot {doing}: {target}: {error.strerror}. Give another file") from error
    for one in left:
        # A journal is played back into the file that is replaced; a -wal may be in use.
        if not overwrite or not one.name.endswith("-journal"):
            raise BackupError(f"cannot {doing}: {one} is there, of another database: remove it or give another file")


@contextmanager
def _kept_from_others(target: Path, doing: str) -> Iterator[None]:
    """Lock a database that is to be replaced, and let it have what its journal holds."""
    with ExitStack() as stack:
        if target.exists():
            old = stack.enter_context(Connection(f"{target.absolute().as_uri()}?mode=rw", target, doing, 1.0))
            with suppress(NotAStoreError, StoreDamagedError):
                # In WAL mode others could go on, and would leave their -wal beside the copy.
                old.rows("PRAGMA journal_mode = DELETE")
                old.rows("BEGIN EXCLUSIVE")
        yield


def _fill(source: Connection, copy: Connection, progress: Progress) -> tuple[tuple[str, ...], tuple[Damage, ...]]:
    """Copy all there is; return what was deleted meanwhile, and what is damaged."""
    models, damaged = _snapshot(source, copy)
    deleted = []
    for row in models:
        name, version = row[1:3]
        try:
            # What cannot be shown is damaged too.
            rows.as_record((name, version, False, *row[3:]), source.path)
            with copy.transaction():
                _copy_model(source, copy, row, progress)
        except ModelNotFoundError:
            deleted.append(f"{name}:{version}")
        except (CorruptModelError, StoreDamagedError) as error:
            damaged.append(Damage(name, version, str(error)))
    return tuple(deleted), tuple(damaged)


def _snapshot(source: Connection, copy: Connection) -> tuple[list[tuple[Any, ...]], list[Damage]]:
    """Copy the small tables, and return the rows of the models, as they are at one moment, and what is damaged."""
    with source.snapshot():
        whole = {table: source.rows(f"SELECT {columns} FROM {table}") for table, columns in _WHOLE.items()}
        models, damaged = _rows(source)
    with copy.transaction():
        for table, columns in _WHOLE.items():
            copy.change(f"DELETE FROM {table}")
            for row in whole[table]:
                copy.change(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)
        # In the copy the parts of a model are under its own id, and no upload may get that.
        copy.change("DELETE FROM sqlite_sequence WHERE name = 'uploads'")
        copy.change("INSERT INTO sqlite_sequence SELECT 'uploads', seq FROM sqlite_sequence WHERE name = 'models'")
    return models, damaged


def _rows(source: Connection) -> tuple[list[tuple[Any, ...]], list[Damage]]:
    select = f"SELECT {_COLUMNS} FROM {rows.TABLE}"
    try:
        return source.rows(f"{select} ORDER BY id"), []
    except StoreDamagedError:
        # One by one: the others can be copied.
        found, damaged = [], []
        for model, (name, version, _) in sorted(chosen(source, ()).items()):
            try:
                found += source.rows(f"{select} WHERE id = ?", (model,))
            except StoreDamagedError as error:
                damaged.append(Damage(name, version, str(error)))
        return found, damaged


def _copy_model(source: Connection, copy: Connection, row: tuple[Any, ...], progress: Progress) -> None:
    model, name, version = row[:3]
    parts = count(1)
    first: list[Part] = []

    def take(part: Part) -> None:
        if not first:
            first.append(part)
            return
        copy.change(
            "INSERT INTO model_parts (upload, part, digest, data) VALUES (?, ?, ?, ?)",
            (model, next(parts), part.digest, part.data),
        )

    writer = PartWriter(take)
    with closing(rows.pieces(source, rows.stored_by_id(source, model, name, version))) as pieces:
        for piece in pieces:
            writer.write(piece)
            progress(len(piece))
    writer.close()
    upload = model if next(parts) > 1 else None
    copy.change(
        f"INSERT INTO models ({_COLUMNS}, digest, upload, pickle) VALUES ({', '.join('?' * (len(row) + 3))})",
        (*row, first[0].digest, upload, first[0].data),
    )


def _verified(path: Path, doing: str, progress: Progress) -> Verification:
    """Read the copy back, and raise if it is not what was written."""
    with schema.connect(path, doing, 0) as copy:
        verification = verify(copy, chosen(copy, ()), progress)
        found = copy.value("PRAGMA integrity_check")
        if verification.damaged or found != "ok":
            trouble = verification.damaged[0].trouble if verification.damaged else found
            raise copy.failure(BackupError, f"the copy is not what was written: {trouble}. Try another disk")
    return verification
