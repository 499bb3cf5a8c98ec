"""Reading everything in a store, to find what is damaged."""

from collections.abc import Callable, Iterator
from contextlib import closing

from views_runs import rows
from views_runs.connection import Connection
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
_NOT_IN_TABLE = "an index of the file leads to {!r}, and its row is gone. Restore the file from a copy"


def verify(connection: Connection, names: set[str], progress: Progress) -> Verification:
    """Read the pickles of the models with these names, or of all, and hold each against its digests.

    Each part is a read of its own, so that nobody waits for this.
    """
    versions = size = 0
    damaged = []
    for model, (name, version) in sorted(_models(connection).items()):
        if names and name not in names and f"{name}:{version}" not in names:
            continue
        try:
            size += _read(connection, model, name, version, progress)
            _hold_to_indexes(connection, model, name, version)
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


def _hold_to_indexes(connection: Connection, model: int, name: str, version: int) -> None:
    """Raise when others do not find this model, by the indexes, as its row says."""
    place = "SELECT name, version FROM {} WHERE id = ?"
    with connection.snapshot():
        row = connection.row(place.format("models NOT INDEXED"), (model,))
        is_listed = connection.row(place.format(rows.TABLE), (model,)) == row
        is_found = row is None or rows.find(connection, *row) is not None
    if not is_listed or not is_found:
        raise connection.failure(StoreDamagedError, _NOT_IN_INDEX.format(name))


def _models(connection: Connection) -> dict[int, tuple[str, int]]:
    """Return the name and the version of each model, by its id: of those that are listed, and those in the table."""
    listed = dict(_walk(connection, rows.TABLE))
    try:
        return listed | dict(_walk(connection, "models NOT INDEXED"))
    except StoreDamagedError:
        # A page of the table cannot be read: the models that are on it say so when they are read.
        return listed


def _walk(connection: Connection, table: str) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield id, name and version of each row, some at a time."""
    last = 0
    while found := connection.rows(
        f"SELECT id, name, version FROM {table} WHERE id > ? ORDER BY id LIMIT ?", (last, FEW)
    ):
        yield from ((model, (name, version)) for model, name, version in found)
        last = found[-1][0]
