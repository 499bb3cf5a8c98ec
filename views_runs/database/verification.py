"""Read everything in a store to find damage."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from views_runs.database.connection import Connection
from views_runs.database.models import TABLE, Models
from views_runs.database.selection import Wanted, search, split
from views_runs.exceptions import CorruptModelError, ModelNotFoundError, StoreDamagedError
from views_runs.names import MAX_INTEGER
from views_runs.records import Damage, ModelRecord, Reference, Verification

#: The number of rows in one read, during which nobody can commit.
ROWS_PER_READ = 200

#: Called with the number of bytes just read.
Progress = Callable[[int], object]

#: The name, version and size of each model, by id.
Selection = dict[int, tuple[str, int, int]]

_REINDEX = "Run REINDEX on it with sqlite3"
_RESTORE = "Restore the file from a backup"


def choose(models: Models, wanted: Wanted) -> tuple[list[Reference] | None, list[Damage]]:
    """Return which versions to verify, None for all, and rows that a glob or a condition chose and that are damaged."""
    if not wanted.names and not wanted.has_conditions:
        return None, []
    own, others = split(models, wanted)
    found = [] if others is None else [*search(models, others)]
    matched = [one.reference for one in found if isinstance(one, ModelRecord)]
    return [*map(models.resolve, own), *matched], [one for one in found if isinstance(one, Damage)]


def select_models(connection: Connection, references: Sequence[Reference] | None = None) -> Selection:
    """Return the versions of these models, or of all models, even if the rest of their rows is unreadable."""
    models: Selection = {}
    errors = []
    for table in TABLE, "models NOT INDEXED":
        try:
            models.update(_walk(connection, table))
        except StoreDamagedError as error:
            # Models that only one of the two leads to are reported later, when they are read.
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]
    if references is None:
        return models
    by_name: dict[str, Selection] = defaultdict(dict)
    for id, one in models.items():
        by_name[one[0]][id] = one
    found: Selection = {}
    for name, version in references:
        own = {id: one for id, one in by_name.get(name, {}).items() if version in (None, one[1])}
        if not own:
            raise Models(connection).not_found(Reference(name, version))
        found |= own
    return found


def _walk(connection: Connection, table: str) -> Iterator[tuple[int, tuple[str, int, int]]]:
    """Yield the id, name, version and size of each row, reading a few at a time."""
    first = -MAX_INTEGER - 1
    while first <= MAX_INTEGER and (
        found := connection.rows(
            # A damaged name may be invalid Unicode or NULL.
            "SELECT id, CAST(ifnull(name, '') AS BLOB), CAST(ifnull(version, 0) AS INTEGER), "
            f"max(0, CAST(ifnull(size, 0) AS INTEGER)) FROM {table} WHERE id >= ? ORDER BY id LIMIT ?",
            (first, ROWS_PER_READ),
        )
    ):
        for id, name, version, size in found:
            if id < first:
                raise StoreDamagedError("an index of the file is damaged and leads in a circle", _REINDEX)
            first = id + 1
            yield id, (name.decode("utf-8", "backslashreplace"), version, size)


def add_sizes(models: Selection) -> int:
    """Return the total size of the models' pickles, in bytes."""
    return sum(size for _, _, size in models.values())


def find_damaged_tables(connection: Connection) -> list[Damage]:
    """Return the small tables that are damaged, or of which an index is."""
    damaged = []
    small = ("names", "restored", "aliases", "runs", "run_models", "run_processes")
    for table in (*small, "required_fields", "uploads", "watches", "events"):
        try:
            # SELECT * may read an index only. A million events take a second, during which nobody can commit.
            (trouble,), *_ = connection.rows(f"PRAGMA integrity_check({table})")
        except StoreDamagedError as error:
            trouble = str(error)
        if trouble != "ok":
            advice = f"{_REINDEX} if an index is damaged; otherwise, restore it from a backup"
            damaged.append(Damage(f"(the table {table})", 0, f"{trouble}. {advice}"))
    return damaged


def verify(connection: Connection, selection: Selection, progress: Progress) -> Verification:
    """Read the pickles of these models part by part, and verify them against their digests."""
    versions = size = 0
    damaged = []
    for id, (name, version, _) in sorted(selection.items()):
        try:
            size += _read(connection, id, name, progress)
            _check_row(connection, id, name)
        except (CorruptModelError, StoreDamagedError) as error:
            damaged.append(Damage(name, version, str(error)))
        except ModelNotFoundError:
            # It was deleted in the meantime.
            continue
        versions += 1
    return Verification(versions, size, tuple(damaged))


def _read(connection: Connection, id: int, name: str, progress: Progress) -> int:
    """Read a whole pickle, and return its size."""
    models, size = Models(connection), 0
    row = models.row_of(id)
    if row is None:
        refuse_lost_row(connection, id, name)
        raise ModelNotFoundError("the model was deleted")
    with models.pieces(row) as pieces:
        for piece in pieces:
            size += len(piece)
            progress(len(piece))
    return size


def refuse_lost_row(connection: Connection, id: int, name: str) -> None:
    """Raise an error if an index leads to a row that does not exist."""
    if connection.row(f"SELECT 1 FROM {TABLE} WHERE id = ?", (id,)):
        raise StoreDamagedError(f"an index of the file leads to {name!r}, but its row is missing", _RESTORE)


def _check_row(connection: Connection, id: int, name: str) -> None:
    """Raise an error if the indexes do not lead to this model, or its metadata is not JSON."""
    place = "SELECT name, version, sha256 FROM {} WHERE id = ?"
    with connection.snapshot():
        row = connection.row(place.format("models NOT INDEXED"), (id,))
        listed = connection.row(place.format(TABLE), (id,))
        is_found = row is None or Models(connection).find(Reference(*row[:2])) is not None
        is_json = "SELECT metadata IS NULL OR json_valid(metadata) FROM models NOT INDEXED WHERE id = ?"
        has_json = connection.value(is_json, (id,))
    if row and listed and row[:2] == listed[:2] and row[2] != listed[2]:
        raise StoreDamagedError(f"the digest of {name!r} differs between its row and the index", _RESTORE)
    if listed != row or not is_found:
        raise StoreDamagedError(f"an index of the file is damaged and does not lead to {name!r}", _REINDEX)
    if has_json == 0:
        raise StoreDamagedError(f"the metadata of {name!r} is not JSON", f"{_RESTORE}, or store the metadata again")
