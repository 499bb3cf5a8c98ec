"""The value types: model records and references, new entries, and the results of operations.

`ModelRecord` is a frozen dataclass; the others are named tuples, which take a seventh of the time to define.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from views_runs import metadata as codec
from views_runs import names
from views_runs.exceptions import InvalidMetadataError, StoreDamagedError
from views_runs.metadata import Metadata, differences, is_equivalent, to_jsonable

if TYPE_CHECKING:
    from views_runs.pickles.loadability import Needs, Verdict

T = TypeVar("T")

#: The fields that the store records itself and that can differ between two models.
RECORDED = ("type", "size", "sha256", "stored_at", "stored_by", "python", "platform", "protocol")

#: The maximum number of imports recorded for a pickle; legitimate pickles have a few dozen.
MOST_IMPORTS = 300

#: The maximum number of characters recorded for a pickle; once parsed, JSON can take thirty times as much memory.
MOST_RECORDED = 2**21

#: The maximum size, in characters, of the JSON in the column ``environment`` whose parsed value is kept in memory.
SHORT = 20_000


class Reference(NamedTuple):
    """A model name and a version; None means the current version or, in operations on several versions, all of them.

    >>> str(Reference("my-model")), str(Reference("my-model", 2))
    ('my-model', 'my-model:2')
    """

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}:{self.version}"

    @classmethod
    def of(cls, name: str, version: int | None = None) -> "Reference":
        """Parse ``NAME`` or ``NAME:VERSION``.

        >>> Reference.of("my-model:2") == Reference.of("my-model", 2)
        True
        """
        return cls(*names.reference(name, version))


class Entry(NamedTuple):
    """What to store with a pickle, and what to do if the name already exists."""

    name: str
    #: The metadata as stored in the file: JSON, and a JSON list of the paths that were datetimes.
    columns: tuple[str | None, str | None] = (None, None)
    #: The metadata as it will be fetched; None if none was given.
    metadata: Metadata | None = None
    #: Whether to add a version if the model exists.
    overwrite: bool = False
    #: Add a version unless the current one has this metadata.
    unless_has: Metadata | None = None

    @classmethod
    def of(cls, name: str, metadata: Any, overwrite: bool = False, unless_has: Metadata | None = None) -> "Entry":
        """Check a new name and encode metadata."""
        columns, fetched = encode(metadata)
        return cls(names.check_new_name(name), columns, fetched, overwrite, unless_has)

    def may_follow(self, current: "ModelRecord") -> bool:
        """Return whether this entry may be added as the version after the current one."""
        if self.unless_has is None:
            return self.overwrite
        return not is_equivalent(current.metadata, self.unless_has)


def encode(
    metadata: Any, stored: Mapping[str, Any] | None = None
) -> tuple[tuple[str | None, str | None], Metadata | None]:
    """Return metadata both as stored in the file and as it will be fetched; refuse what would not compare equal.

    Of the `stored` values, those that stay are not refused.
    """
    if metadata is None:
        return (None, None), None
    text, datetimes = codec.encode(metadata)
    fetched = codec.decode(text, datetimes)
    codec.check(fetched, stored)
    return (text, datetimes), fetched


def combine(needed: Any, recorded: Any) -> tuple[Metadata, Metadata]:
    """Return the needed metadata, and all metadata, as they will be fetched."""
    wanted, more = (encode({} if given is None else given)[1] or Metadata() for given in (needed, recorded))
    for field in wanted.keys() & more.keys():
        raise InvalidMetadataError(
            f"metadata field {field} is given twice: as needed and as recorded", field, "Give it in only one of them"
        )
    return wanted, Metadata(wanted | more)


@dataclass(frozen=True)
class ModelRecord:
    """One version of a stored model: everything that can be known about it without unpickling it."""

    #: The model's name.
    name: str
    #: The version number, from 1; never reused, even after a version is deleted.
    version: int
    #: Whether ``fetch(name)`` returns this version: the highest that exists.
    current: bool
    #: When the model was stored: an aware datetime in UTC, by the clock of the computer that stored it.
    stored_at: datetime
    #: Who stored it, as ``user@host``.
    stored_by: str
    #: The size of the pickle, in bytes.
    size: int
    #: The digest of the pickle, in hexadecimal, as printed by ``sha256sum`` for the downloaded file.
    sha256: str
    #: The object's type, as in ``sklearn.ensemble._forest.RandomForestRegressor``; None for an uploaded pickle.
    type: str | None
    #: The metadata; None if the model has none.
    metadata: Metadata | None
    #: The Python version that stored it, as in ``CPython 3.11.7``; None for an uploaded pickle.
    python: str | None
    #: The platform that stored it, as in ``linux-x86_64``; None for an uploaded pickle.
    platform: str | None
    #: The pickle protocol.
    protocol: int
    #: The pickle's imports: ``module.name``, or ``module:name`` if the name has dots; None if unknown.
    imports: tuple[str, ...] | None = None
    #: The reasons why there may be further imports.
    troubles: tuple[str, ...] = ()
    #: The distributions that supplied its modules when it was stored and their direct requirements, with versions; for
    #: an uploaded pickle, those that wrote their version into it.
    packages: Mapping[str, str] = field(default_factory=dict)
    #: The distribution that supplied each top-level module.
    suppliers: Mapping[str, str] = field(default_factory=dict)
    #: The files of modules that no distribution supplied, where the model was stored.
    files: Mapping[str, str] = field(default_factory=dict)
    #: Whether the pickle contains code by value, which works with one version of Python only.
    has_code: bool = False
    #: The aliases of this version, in alphabetical order: ``NAME@ALIAS`` refers to it.
    aliases: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "ModelRecord":
        """Return the record for a row of the table ``models``, with the columns of `database.models.COLUMNS`."""
        name, version, current, stored_at, stored_by, size, sha256, text, datetimes, environment, aliases = row
        try:
            _check_types((name, str), (version, int), (stored_by, str), (size, int), (sha256, str))
            fields = read_environment(environment)
            fields["stored_at"] = read_time(stored_at)
            fields["aliases"] = tuple(sorted((aliases or b"").decode("utf-8", "backslashreplace").split()))
            try:
                fields["metadata"] = None if text is None else codec.decode(text, datetimes)
            except InvalidMetadataError:
                # Another program wrote JSON that is not an object: it has no fields.
                fields["metadata"] = None
            return cls(name, version, bool(current), stored_by=stored_by, size=size, sha256=sha256, **fields)
        except (ValueError, TypeError) as error:
            raise StoreDamagedError(
                f"the row of the model {name!r}, version {version!r}, cannot be read: {type(error).__name__}: {error}",
                "It is damaged, or another program wrote it. Restore the file from a backup, or delete the row with "
                "sqlite3",
            ) from error

    def __hash__(self) -> int:
        # Metadata is a dict and cannot be hashed; these fields are enough to tell records apart.
        return hash((self.name, self.version, self.sha256))

    @property
    def reference(self) -> Reference:
        """The name and the version."""
        return Reference(self.name, self.version)

    def loadable(self) -> "Verdict":
        """Return a verdict on whether the model will load on this machine, without importing anything.

        In a record from `Storage.inspect`, the imports were read from the pickle; in other records, they are those
        recorded when the model was stored.

        >>> from views_runs import Storage
        >>> Storage("models.db").store("forest", [1, 2, 3]).loadable().verdict
        'loads'
        """
        from views_runs.pickles import loadability, packages

        packages.forget()
        return loadability.verdict(self.needs())

    def needs(self) -> "Needs":
        """Return what the pickle needs to be loaded."""
        from views_runs.pickles.loadability import Needs

        return Needs.recorded(**vars(self))

    def as_json(self) -> dict[str, Any]:
        """Return the record as a dict for `json.dumps`, with times as ISO 8601 strings."""
        fields = asdict(self)
        fields["stored_at"] = self.stored_at.isoformat(timespec="microseconds")
        fields["imports"] = None if self.imports is None else [*self.imports]
        fields["troubles"], fields["aliases"] = [*self.troubles], [*self.aliases]
        fields["metadata"] = None if self.metadata is None else to_jsonable(self.metadata)
        return fields


def _check_types(*values: tuple[object, type]) -> None:
    """Raise an error if what another program may have written is not of its type."""
    for value, kind in values:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r:.60} is not of the type {kind.__name__}")


def read_time(text: str) -> datetime:
    """Parse the column ``stored_at``. Far from the present, a time cannot be converted to local time."""
    time = datetime.fromisoformat(text)
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    if not 1900 < time.year < 9000:
        raise ValueError(f"the time {text!r} is out of range")
    return time


def read_environment(text: str) -> dict[str, Any]:
    """Parse the column ``environment``: how a pickle was stored and what it needs, as fields of a record.

    Later versions of this package may record more and earlier ones recorded less, and any program may have written to
    the file. Values that have the wrong type, are not printable, or are far too large are treated as not recorded.
    """
    # Models of one kind are recorded alike, and to parse this takes half of the time of a long list.
    known = _read_short(text) if len(text) <= SHORT else _parse_environment(text)
    # The caller may change what it gets.
    return {name: dict(value) if isinstance(value, dict) else value for name, value in known.items()}


@lru_cache(maxsize=64)
def _read_short(text: str) -> dict[str, Any]:
    return _parse_environment(text)


def _parse_environment(text: str) -> dict[str, Any]:
    try:
        known = json.loads(text) if len(text) <= MOST_RECORDED else {}
    except RecursionError as error:
        raise ValueError("its environment is nested too deeply") from error
    if not isinstance(known, dict):
        raise ValueError("its environment is not a JSON object")
    protocol = known.get("protocol")
    return {
        **{name: known[name] if _is_text(known.get(name)) else None for name in ("type", "python", "platform")},
        "protocol": protocol if isinstance(protocol, int) else 0,
        "imports": _read_texts(known.get("imports")),
        "troubles": _read_texts(known.get("troubles")) or (),
        **{name: _read_mapping(known.get(name)) for name in ("packages", "suppliers", "files")},
        "has_code": known.get("has_code") is True,
    }


def _is_text(value: Any) -> bool:
    """Return whether a value is a string that can be shown in messages and on a terminal without escaping."""
    return isinstance(value, str) and value.isprintable()


def _read_texts(value: Any) -> tuple[str, ...] | None:
    is_list = isinstance(value, list) and len(value) <= MOST_IMPORTS and all(map(_is_text, value))
    return tuple(value) if is_list else None


def _read_mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_IMPORTS:
        return {}
    return {name: one for name, one in value.items() if _is_text(name) and _is_text(one)}


class Damage(NamedTuple):
    """A damaged version of a model."""

    name: str
    version: int
    #: What is wrong with it.
    trouble: str

    @classmethod
    def of(cls, name: object, version: object, error: Exception) -> "Damage":
        """Describe an error, where the columns of the row may have any type."""
        return cls(str(name), version if isinstance(version, int) else 0, str(error))


def as_records(rows: Iterable[tuple[Any, ...]]) -> list[ModelRecord | Damage]:
    """Return the records for rows of the table ``models``, with a `Damage` for each row that cannot be read."""
    found: list[ModelRecord | Damage] = []
    for row in rows:
        try:
            found.append(ModelRecord.from_row(row))
        except StoreDamagedError as error:
            found.append(Damage.of(row[0], row[1], error))
    return found


class Obtained(NamedTuple, Generic[T]):
    """The result of `Storage.obtain`."""

    model: T
    #: The record of the stored model.
    record: ModelRecord
    #: Whether the model was trained, rather than fetched.
    trained: bool


class Decided(StrEnum):
    """Where a store's path came from."""

    GIVEN = "as given"
    ENVIRONMENT = "$VIEWS_RUNS_STORE"
    DEFAULT = "the default"


class Finding(NamedTuple):
    """One finding of `Storage.doctor`."""

    #: The subject, such as ``permissions``.
    topic: str
    #: ``ok``, ``warning`` or ``failure``.
    state: str
    #: The finding itself.
    text: str
    #: What to do about it; empty if nothing.
    advice: str = ""


class Event(NamedTuple):
    """A change to a store, as recorded in its log."""

    #: Its number; a later event has a higher one, even if clocks were wrong.
    id: int
    #: When: an aware datetime in UTC, by the clock of the computer that made the change.
    at: datetime
    #: Who, as ``user@host``.
    by: str
    #: What: ``stored``, ``annotated``, ``aliased``, ``unaliased``, ``restored``, ``renamed``, ``deleted``, ...
    action: str
    #: The name that the model has now; None if it concerns the whole store, or a run.
    name: str | None
    #: The version; None if it concerns all versions.
    version: int | None
    #: The run, if it concerns one.
    run: str | None
    #: What changed, depending on the action.
    changes: Mapping[str, Any]
    #: The reason that was given.
    why: str | None

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "Event":
        """Return the event for a row with the columns of `database.events.COLUMNS`."""
        id, at, by, action, name, version, run, changes, why = row
        try:
            details = json.loads(changes or "{}")
            texts = [(one, str) for one in (by, action, name or "", run or "", why or "")]
            _check_types(*texts, (version or 0, int), (details, dict))
            return cls(id, read_time(at), by, action, name, version, run, details, why)
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreDamagedError(
                f"the event {id} cannot be read: {type(error).__name__}: {error}",
                "It is damaged, or another program wrote it. Restore the file from a backup",
            ) from error


class RunRecord(NamedTuple):
    """What is known about a run: a set of versions, at most one of each model."""

    #: The run's id.
    id: str
    #: When it was first entered, and by whom (``user@host``). Of a run that was never entered: when the first of its
    #: models was stored.
    started_at: datetime
    started_by: str
    #: When a process last left it; None if none has.
    ended_at: datetime | None
    #: ``running`` (a process is in it), ``succeeded`` or ``failed`` (as the last process left it), or ``interrupted``
    #: (a process was killed in it). None if it was never entered, or if the file is a backup that was made while the
    #: first process was in it.
    state: str | None
    #: The number of versions that it used and that still exist, and the total size of their pickles in bytes.
    models: int
    size: int
    #: The number of models that it is expected to use, 0 if there is no list, and the number of these that are missing.
    expected: int
    missing: int
    #: Whether none of the expected models is missing; None if there is no list of them.
    complete: bool | None

    @classmethod
    def of(
        cls, row: tuple[Any, ...], state: str | None, models: int, size: int, expected: int, missing: int
    ) -> "RunRecord":
        """Return the record for a row with the columns of `database.runs.STARTED`, without the last."""
        id, started_at, started_by, ended_at = row
        try:
            _check_types((id, str), (started_by, str))
            ended = None if ended_at is None else read_time(ended_at)
            complete = not missing if expected else None
            start = read_time(started_at)
            return cls(id, start, started_by, ended, state, models, size, expected, missing, complete)
        except (ValueError, TypeError) as error:
            raise StoreDamagedError(
                f"the run {id!r} cannot be read: {type(error).__name__}: {error}",
                "It is damaged, or another program wrote it. Restore the file from a backup",
            ) from error


class RunModel(NamedTuple):
    """A model of a run."""

    #: The name that the model has now.
    name: str
    #: The version that the run used; of a deleted one, the number that it had. None if it is missing.
    version: int | None
    #: ``trained`` (in the run), ``reused`` (by it), ``deleted`` (since then), or ``missing`` (expected, but not used).
    state: str
    #: Whether the run is expected to use the model.
    expected: bool
    #: The run that trained it, according to its metadata; None if that is not known.
    trained_in: str | None = None
    #: The version's record; None if it is deleted or missing.
    record: ModelRecord | None = None

    @classmethod
    def of(cls, record: ModelRecord, trained: bool, expected: bool) -> "RunModel":
        """Return the model for a version that exists."""
        run = None if record.metadata is None else record.metadata.get("run_id")
        state = "trained" if trained else "reused"
        return cls(record.name, record.version, state, expected, run if isinstance(run, str) else None, record)


class Lifetime(NamedTuple):
    """A version of a model, possibly deleted, in `Storage.history`."""

    #: The version number; of a deleted version, the number that it had.
    version: int
    #: When it was stored, by whom, and the size of its pickle in bytes.
    stored_at: datetime
    stored_by: str
    size: int
    #: Its record; None if it has been deleted.
    record: ModelRecord | None
    #: How its metadata differs from that of the previous version that still exists: field, old value, new value.
    changes: tuple[tuple[str, Any, Any], ...] = ()
    #: The deletion; None if it exists.
    deletion: Event | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it was deleted."""
        return self.deletion is not None


class Disposition(NamedTuple):
    """What happened to a version in `Storage.delete_many` or `Storage.prune`, or would happen."""

    #: Its record from before.
    record: ModelRecord
    #: Whether it was deleted, or would be.
    deleted: bool
    #: Why it was deleted or kept.
    reason: str
    #: Whether it was kept only because it has changed since it was chosen.
    changed: bool = False


class Deletion(NamedTuple):
    """The result of `Storage.delete_many`."""

    #: The versions that were chosen, including those that were kept because they have changed since.
    versions: tuple[Disposition, ...]
    #: For each model with a deleted version, the version that is now current; None if none is left.
    current: Mapping[str, int | None]

    @property
    def deleted(self) -> list[ModelRecord]:
        """The records of the versions that were deleted, or would be."""
        return [one.record for one in self.versions if one.deleted]


class Verification(NamedTuple):
    """The result of `Storage.verify`."""

    #: The number of versions that were read completely.
    versions: int
    #: The total size of their pickles, in bytes.
    size: int
    #: The damaged versions; empty if all are intact.
    damaged: tuple[Damage, ...]


class Backup(NamedTuple):
    """The result of `Storage.backup`."""

    #: The path of the copy.
    path: Path
    #: The number of versions in the copy.
    versions: int
    #: The total size of their pickles, in bytes.
    size: int
    #: The versions (``NAME:VERSION``) that were deleted during the backup and so are not in the copy.
    deleted: tuple[str, ...]
    #: The versions that are damaged in the store and so are not in the copy.
    damaged: tuple[Damage, ...]


class Encounter(NamedTuple):
    """The result of two computers committing to a scratch database beside a store."""

    #: This computer's name.
    host: str
    #: The other computer's name; None if none joined.
    other_host: str | None
    #: The number of commits on each side that returned without an error.
    acknowledged_here: int
    acknowledged_there: int
    #: How many of these are in the database at the end, as seen from this side; 0 if it cannot be read.
    arrived_here: int
    arrived_there: int
    #: The errors on both sides.
    errors: tuple[str, ...]
    #: Whether both sides share a cache, in which case the test says nothing about the share.
    same_computer: bool
    #: The duration in seconds, including waiting.
    took: float


def compared(one: ModelRecord, other: ModelRecord, everything: bool = False) -> list[tuple[Any, ...]]:
    """Return (field, value in one, value in the other) for each field that differs, or for all; metadata first."""
    rows = [(field, getattr(one, field), getattr(other, field)) for field in RECORDED]
    recorded = [row for row in rows if everything or row[1] != row[2]]
    # As in conditions, `size` is the record's field, and `metadata.size` is the user's.
    given = [
        (f"metadata.{field}" if field in RECORDED else field, *values)
        for field, *values in differences(one.metadata, other.metadata, everything)
    ]
    return [*given, *recorded]
