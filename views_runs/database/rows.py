"""The rows of ``models``: as records, and as the verified bytes of their pickles."""

import itertools
import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from views_runs import names
from views_runs.pickles import opcodes, pickling
from views_runs.database.connection import Connection
from views_runs.exceptions import (
    CorruptModelError,
    InvalidMetadataError,
    ModelNotFoundError,
    StorageError,
    StoreDamagedError,
)
from views_runs.pickles.loadability import Needs
from views_runs.metadata import Metadata, decode
from views_runs.records import ModelRecord

#: Among how many names, the newest first, to look for one that is nearly the name that is missing.
MAX_GUESSES = 5000

#: The highest version of the name.
NEWEST = "(SELECT max(version) FROM models AS newest WHERE newest.name = models.name)"

#: The columns of a record. The index has all of them, so that no pickle is read.
COLUMNS = f"""models.name, models.version, models.version = {NEWEST}, models.stored_at, models.stored_by,
    models.size, models.sha256, models.metadata, models.datetimes, models.environment"""
TABLE = "models INDEXED BY models_record"
SELECT = f"SELECT {COLUMNS} FROM {TABLE}"

MISLED = (
    "an index of the file is damaged: it leads from {!r} to another model. Restore the file from a copy, or run REINDEX "
    "on it with sqlite3"
)

#: How many imports of a pickle are recorded; honest ones have some dozens.
MOST_IMPORTS = 300

#: Characters in what is recorded of a pickle, at most; in memory JSON can take thirty times as much.
MOST_RECORDED = 2**21

_PART = "SELECT rowid, digest FROM model_parts WHERE upload = ? AND part = ?"

_DELETED = "the model was deleted while it was being read"


@dataclass(frozen=True)
class Stored:
    """What it takes to read a pickle: columns of its row as they are, damaged or not."""

    id: int
    name: str
    version: int
    size: int
    sha256: str
    digest: bytes
    upload: int | None
    environment: str
    #: The pickle, if it is in one part.
    whole: bytes | None


def record(connection: Connection, name: str, version: int | None) -> ModelRecord:
    """Return the record of a version of a model, or of the current one.

    Raises:
        ModelNotFoundError: it is not there.
    """
    found = find(connection, name, version)
    if found is None:
        raise not_found(connection, name, version)
    return found


def find(connection: Connection, name: str, version: int | None) -> ModelRecord | None:
    """Return the record of a version of a model, or of the current one; None if it is not there."""
    row = connection.row(f"{SELECT} WHERE models.id = ?", (_id(connection, name, version),))
    if row is None:
        return None
    if row[0] != name or version not in (None, row[1]):
        raise connection.failure(StoreDamagedError, MISLED.format(name))
    return as_record(row, connection.path)


def as_record(row: tuple[Any, ...], path: Path) -> ModelRecord:
    """Make a record of a row of `SELECT`."""
    name, version, current, stored_at, stored_by, size, sha256, metadata, datetimes, environment = row
    try:
        return ModelRecord(
            name=name,
            version=version,
            current=bool(current),
            stored_at=datetime.fromisoformat(stored_at),
            stored_by=stored_by,
            size=size,
            sha256=sha256,
            metadata=decoded(metadata, datetimes),
            **_recorded(environment),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamagedError(
            f"{path}: the row of the model {name!r}, version {version}, cannot be read: {type(error).__name__}: {error}. "
            "It is damaged, or another program wrote it; restore the file from a copy, or delete the row with sqlite3"
        ) from error


def decoded(metadata: str | None, datetimes: str | None) -> Metadata | None:
    """Return the metadata of a row; None when there is none, or none that could be shown."""
    try:
        return None if metadata is None else decode(metadata, datetimes)
    except InvalidMetadataError:
        # Another program wrote something that is not an object: it has no fields.
        return None


def not_found(connection: Connection, name: str, version: int | None) -> StorageError:
    """Return the error for a model that is not there, with what is there instead."""
    versions = connection.rows("SELECT version FROM models WHERE name = ? ORDER BY version DESC LIMIT 9", (name,))
    if versions:
        there = ", ".join(str(row[0]) for row in versions)
        return connection.failure(
            ModelNotFoundError, f"the model {name!r} has no version {version}; its versions are {there}"
        )
    others = connection.rows(f"SELECT DISTINCT name FROM {TABLE} ORDER BY id DESC LIMIT ?", (MAX_GUESSES,))
    return connection.failure(
        ModelNotFoundError, f"there is no model {name!r}. {names.suggest(name, [row[0] for row in others])}"
    )


def stored(connection: Connection, name: str, version: int | None) -> Stored:
    """Return what it takes to read a model's pickle.

    Raises:
        ModelNotFoundError: the model is not there.
    """
    # Under one lock: while others write, each may have to be waited for.
    with connection.snapshot():
        model, version = _identified(connection, name, version)
        return stored_by_id(connection, model, name, version)


def stored_by_id(connection: Connection, model: int, name: str, version: int) -> Stored:
    """Do what `stored` does, for the row with this id."""
    row = connection.row(
        "SELECT size, sha256, digest, upload, environment, CASE WHEN upload IS NULL THEN pickle END "
        "FROM models NOT INDEXED WHERE id = ?",
        (model,),
    )
    if row is None:
        raise connection.failure(ModelNotFoundError, _DELETED)
    return Stored(model, name, version, *row)


def pieces(connection: Connection, stored: Stored) -> Generator[memoryview, None, None]:
    """Yield the bytes of a pickle, each after it was verified; close the generator before the connection.

    Raises:
        ModelNotFoundError: the model was deleted meanwhile.
        CorruptModelError: a part is not as it was stored.
    """
    full_name = f"the model {stored.name!r}, version {stored.version}, in {connection.path}"
    if stored.upload is None:
        yield memoryview(pickling.verified_whole(stored.whole, stored.size, stored.sha256, full_name))
        return
    parts = _parts(connection, stored.id, stored.digest, stored.upload, full_name)
    yield from pickling.verified(parts, stored.size, stored.sha256, full_name)


def reading(connection: Connection, stored: Stored) -> opcodes.Reading:
    """Return what a pickle imports, by its bytes and not by what was recorded; damage is one of its troubles."""
    reader = opcodes.Reader()
    try:
        with closing(pieces(connection, stored)) as found:
            for piece in found:
                reader.feed(piece)
    except CorruptModelError as error:
        return replace(reader.result(), troubles=(f"damaged: {error}",))
    return reader.result()


def with_reading(record: ModelRecord, reading: opcodes.Reading) -> ModelRecord:
    """Return a record with what was read from the bytes, in the place of what was recorded."""
    return replace(record, **imported(reading))


def needs(stored: Stored) -> Needs:
    """Return what a pickle needs, as it was recorded when it was stored; nothing where that cannot be read."""
    try:
        return Needs.recorded(**_recorded(stored.environment))
    except (ValueError, TypeError, AttributeError):
        return Needs.recorded()


def _recorded(environment: str) -> dict[str, Any]:
    """Return what a record tells of how a pickle was stored, and what it needs.

    A later version of this package may note more, and an older one has noted less; and anyone may have written anything:
    what is not of the kind that it should be, cannot be printed, or is far too much, is taken for not recorded.
    """
    try:
        known: dict[str, Any] = json.loads(environment) if len(environment) <= MOST_RECORDED else {}
    except RecursionError as error:
        raise ValueError("its environment is nested too deeply") from error
    protocol = known.get("protocol")
    return {
        **{name: known[name] if _is_text(known.get(name)) else None for name in ("type", "python", "platform")},
        "protocol": protocol if isinstance(protocol, int) else 0,
        "imports": _texts(known.get("imports")),
        "troubles": _texts(known.get("troubles")) or (),
        **{name: _texts_by_name(known.get(name)) for name in ("packages", "suppliers")},
        "has_code": known.get("has_code") is True,
    }


def _is_text(value: Any) -> bool:
    """Whether something is a text that can be shown in an error, by a terminal too, without escaping it."""
    return isinstance(value, str) and value.isprintable()


def _texts(value: Any) -> tuple[str, ...] | None:
    is_list = isinstance(value, list) and len(value) <= MOST_IMPORTS and all(map(_is_text, value))
    return tuple(value) if is_list else None


def _texts_by_name(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_IMPORTS:
        return {}
    return {name: one for name, one in value.items() if _is_text(name) and _is_text(one)}


def imported(reading: opcodes.Reading) -> dict[str, Any]:
    """Return what a record tells of what a pickle imports."""
    found = sorted(map(str, reading.imports))
    more = (f"more imports than these, {len(found):,} in all",) if len(found) > MOST_IMPORTS else ()
    return {
        "imports": tuple(found[:MOST_IMPORTS]),
        "troubles": (*reading.troubles, *more),
        "has_code": reading.has_code,
    }


def _id(connection: Connection, name: str, version: int | None) -> int | None:
    found = connection.value(
        "SELECT id FROM models WHERE name = ? AND version = ifnull(?, version) ORDER BY version DESC LIMIT 1",
        (name, version),
    )
    return None if found is None else int(found)


def _identified(connection: Connection, name: str, version: int | None) -> tuple[int, int]:
    """Return the id and the version of a model, as its row says and not only an index that may be damaged."""
    found = _id(connection, name, version)
    if found is None:
        raise not_found(connection, name, version)
    row = connection.row("SELECT name, version FROM models NOT INDEXED WHERE id = ?", (found,))
    if row is None:
        raise not_found(connection, name, version)
    if row[0] != name or version not in (None, row[1]):
        raise connection.failure(StoreDamagedError, MISLED.format(name))
    return found, row[1]


def _parts(
    connection: Connection, model: int, digest: Any, upload: int, full_name: str
) -> Iterator[pickling.StoredPart]:
    """Yield the parts of a pickle: each is read on its own, and no lock is held in between."""
    place = ("models", "pickle", model)
    for number in itertools.count(1):
        following: list[tuple[Any, ...] | None] = []

        def read(memory: memoryview, place: tuple[str, str, int] = place, number: int = number) -> int:
            # Where the next part is, under the same lock: while others write, each may have to be waited for.
            with _reading(connection, model, full_name), connection.snapshot():
                size = connection.read_blob(*place, memory)
                following.append(connection.row(_PART, (upload, number)))
                return size

        yield pickling.StoredPart(digest, read)
        row = following.pop() if following else connection.row(_PART, (upload, number))
        if row is None:
            with _reading(connection, model, full_name):
                raise StoreDamagedError(f"part {number} is not there")
        place, digest = ("model_parts", "data", row[0]), row[1]


@contextmanager
def _reading(connection: Connection, model: int, full_name: str) -> Iterator[None]:
    """Say what it means when a part cannot be read."""
    try:
        yield
    except StorageError as error:
        if type(error) not in (StorageError, StoreDamagedError):
            raise
        if not connection.row("SELECT 1 FROM models WHERE id = ?", (model,)):
            raise connection.failure(ModelNotFoundError, _DELETED) from error
        raise pickling.corrupt(full_name, f"a part of its pickle cannot be read: {error}") from error
