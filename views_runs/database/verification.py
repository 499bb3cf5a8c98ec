"""Reading everything in a store, to find what is damaged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from views_runs.database import rows
from views_runs.database.connection import Connection
from views_runs.exceptions import (
    CorruptModelError,
    ModelNotFoundError,
    StoreDamagedError,
)
from views_runs.records import Damage, Verification

#: How many rows are looked at in one read, in which nobody can commit.
FEW = 200

#: Called with how many more bytes were read.
Progress = Callable[[int], object]

_NOT_IN_INDEX = "an index of the file is damaged and does not lead to {!r}. Run REINDEX on it with sqlite3"
_NOT_JSON = "the metadata of {!r} is no JSON any more. Restore the file from a copy, or store the metadata again"
_NOT_IN_TABLE = "an index of the file leads to {!r}, and its row is gone. Restore the file from a copy"


#: Name, version and size of models, by id.
Models = dict[int, tuple[str, int, int]]


def chosen(connection: Connection, references: Sequence[tuple[str, int | None]]) -> Models:
    """Return what there is of these models, or of all, whether or not more of their rows can be read.

    Args:
        references: names and versions; no version for all of a name.

    Raises:
        ModelNotFoundError: there is nothing of one.
    """
    models = _models(connection)
    found: Models = {}
    for name, version in references:
        own = {model: one for model, one in models.items() if one[0] == name and version in (None, one[1])}
        if not own:
            raise rows.not_found(connection, name, version)
        found |= own
    return found if references else models


def total(models: Models) -> int:
    """Return the size of their pickles together, in bytes."""
    return sum(size for _, _, size in models.values())


def damaged_tables(connection: Connection) -> list[Damage]:
    """Read the small tables, which no model is in, and return those that cannot be read."""
    damaged = []
    for table in ("names", "required_fields", "uploads", "watches"):
        try:
            connection.rows(f"SELECT * FROM {table}")
        except StoreDamagedError as error:
            damaged.append(Damage(f"(the table {table})", 0, str(error)))
    return damaged


def verify(connection: Connection, models: Models, progress: Progress) -> Verification:
    """Read the pickles of these models, and hold each against its digests.

    Each part is a read of its own, so that nobody waits for this.
    """
    versions = size = 0
    damaged = []
    for model, (name, version, _) in sorted(models.items()):
        try:
            size += _read(connection, model, name, version, progress)
            _hold_to_row(connection, model, name, version)
        except (CorruptModelError, StoreDamagedError) as error:
            damaged.append(Damage(name, version, str(error)))
        except ModelNotFoundError:
            # It was deleted meanwhile.
            continue
        versions += 1
    return Verification(versions, size, tuple(damaged))


def _read(connection: Connection, model: int, name: str, version: int, progress: Progress) -> int:
    """Read a pickle to its end, and return its size."""
    size = 0
    try:
        with closing(rows.pieces(connection, rows.stored_by_id(connection, model, name, version))) as pieces:
            for piece in pieces:
                size += len(piece)
                progress(len(piece))
    except ModelNotFoundError:
        if connection.row(f"SELECT 1 FROM {rows.TABLE} WHERE id = ?", (model,)):
            raise connection.failure(StoreDamagedError, _NOT_IN_TABLE.format(name)) from None
        raise
    return size


def _hold_to_row(connection: Connection, model: int, name: str, version: int) -> None:
    """Raise when others do not find this model, by the indexes, as its row says, or cannot read its row."""
    place = "SELECT name, version FROM {} WHERE id = ?"
    with connection.snapshot():
        row = connection.row(place.format("models NOT INDEXED"), (model,))
        is_listed = connection.row(place.format(rows.TABLE), (model,)) == row
        is_found = row is None or rows.find(connection, *row) is not None
        has_json = connection.value(
            "SELECT metadata IS NULL OR json_valid(metadata) FROM models NOT INDEXED WHERE id = ?", (model,)
        )
    if not is_listed or not is_found:
        raise connection.failure(StoreDamagedError, _NOT_IN_INDEX.format(name))
    if has_json == 0:
        raise connection.failure(StoreDamagedError, _NOT_JSON.format(name))


def _models(connection: Connection) -> Models:
    """Return the models that are listed, and those in the table."""
    listed = dict(_walk(connection, rows.TABLE))
    try:
        return listed | dict(_walk(connection, "models NOT INDEXED"))
    except StoreDamagedError:
        # A page of the table cannot be read: the models that are on it say so when they are read.
        return listed


def _walk(connection: Connection, table: str) -> Iterator[tuple[int, tuple[str, int, int]]]:
    """Yield id, name, version and size of each row, some at a time."""
    last = 0
    while found := connection.rows(
        # A name that is damaged may be no Unicode any more.
        f"SELECT id, CAST(name AS BLOB), version, max(0, CAST(size AS INTEGER)) FROM {table} WHERE id > ? "
        "ORDER BY id LIMIT ?",
        (last, FEW),
    ):
        for model, name, version, size in found:
            yield model, (name.decode("utf-8", "backslashreplace"), version, size)
        last = found[-1][0]
