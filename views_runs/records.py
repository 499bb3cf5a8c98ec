"""Values that are passed around: what is stored, what is known of it, and what an operation found.

Those that users get are frozen dataclasses; the others are named tuples, which take a seventh of the time to define.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from views_runs import metadata as codec
from views_runs import names
from views_runs.exceptions import InvalidMetadataError, StoreDamagedError
from views_runs.metadata import Metadata, differences, is_equivalent, to_jsonable

if TYPE_CHECKING:
    from views_runs.pickles.loadability import Needs, Verdict

#: What a store records by itself, and may differ between two models.
RECORDED = ("type", "size", "sha256", "stored_at", "stored_by", "python", "platform", "protocol")

#: What decides whether a model can be loaded.
_NEEDS = ("imports", "troubles", "packages", "suppliers", "python", "protocol", "has_code")

#: Imports of a pickle that are recorded, at most; honest pickles have some dozens.
MOST_IMPORTS = 300

#: Characters in what is recorded of a pickle, at most; in memory JSON can take thirty times as much.
MOST_RECORDED = 2**21


class Reference(NamedTuple):
    """A name, and a version of it; None for the current one or, where several are meant, for all.

    >>> str(Reference("my-model")), str(Reference("my-model", 2))
    ('my-model', 'my-model:2')
    """

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}:{self.version}"

    @classmethod
    def of(cls, name: str, version: int | None = None) -> "Reference":
        """Return what ``NAME`` or ``NAME:VERSION`` refers to.

        Raises:
            InvalidNameError: no model can have this name, or two versions are given.

        >>> Reference.of("my-model:2") == Reference.of("my-model", 2)
        True
        """
        return cls(*names.reference(name, version))


class Entry(NamedTuple):
    """What is to be stored beside a pickle, and what to do when the name exists."""

    name: str
    #: The metadata as the file has it: JSON, and a JSON list of the paths that were datetimes.
    columns: tuple[str | None, str | None] = (None, None)
    #: The metadata as it will be fetched; None when none was given.
    metadata: Metadata | None = None
    #: Whether to add a version to a model that exists.
    overwrite: bool = False
    #: Whether to add one only if the current version's metadata is not equivalent.
    unless_equivalent: bool = False

    @classmethod
    def of(cls, name: str, metadata: Any, overwrite: bool = False, unless_equivalent: bool = False) -> "Entry":
        """Check a new name and encode metadata.

        Raises:
            InvalidNameError: a model cannot have this name.
            InvalidMetadataError: this metadata would not come back equal.
        """
        return cls(names.check_new_name(name), *encode(metadata), overwrite, unless_equivalent)

    def may_follow(self, current: "ModelRecord") -> bool:
        """Return whether this may become the version after the current one."""
        if self.unless_equivalent:
            return not is_equivalent(current.metadata, self.metadata or {})
        return self.overwrite


def encode(metadata: Any) -> tuple[tuple[str | None, str | None], Metadata | None]:
    """Return metadata as the file has it, and as it will be fetched.

    Raises:
        InvalidMetadataError: it would not come back equal.
    """
    if metadata is None:
        return (None, None), None
    text, datetimes = codec.encode(metadata)
    fetched = codec.decode(text, datetimes)
    codec.check(fetched)
    return (text, datetimes), fetched


@dataclass(frozen=True)
class ModelRecord:
    """One version of a stored model: everything that is known of it without unpickling it."""

    #: What the model was stored under.
    name: str
    #: 1 for the first model of that name; a number is never given twice.
    version: int
    #: Whether this is what ``fetch(name)`` returns: the highest version that exists.
    current: bool
    #: When the store was acknowledged: an aware datetime in UTC, by the clock of the computer that stored it.
    stored_at: datetime
    #: ``user@host``.
    stored_by: str
    #: Of the pickle, in bytes.
    size: int
    #: Of the pickle, in hexadecimal: what ``sha256sum`` says of the downloaded file.
    sha256: str
    #: The object's type, as in ``sklearn.ensemble._forest.RandomForestRegressor``; None for an uploaded pickle.
    type: str | None
    #: What was given with the model; None when nothing was.
    metadata: Metadata | None
    #: The Python that stored it, as in ``CPython 3.11.7``; None for an uploaded pickle.
    python: str | None
    #: The machine that stored it, as in ``linux-x86_64``; None for an uploaded pickle.
    platform: str | None
    #: The pickle protocol.
    protocol: int
    #: What the pickle imports: ``module.name``, or ``module:name`` if the name has dots; None if it is not known.
    imports: tuple[str, ...] | None = None
    #: Why it may import more than that, in words.
    troubles: tuple[str, ...] = ()
    #: The distributions that supplied its modules when it was stored, and what these directly require, with versions.
    packages: Mapping[str, str] = field(default_factory=dict)
    #: The distribution that supplied each top-level module.
    suppliers: Mapping[str, str] = field(default_factory=dict)
    #: Whether it contains code by value, which fits one version of Python.
    has_code: bool = False

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "ModelRecord":
        """Return the record of a row of the table ``models``, with the columns as `database.models.COLUMNS` has them.

        Raises:
            StoreDamagedError: the row cannot be read.
        """
        name, version, current, stored_at, stored_by, size, sha256, text, datetimes, environment = row
        try:
            metadata = None if text is None else codec.decode(text, datetimes)
        except InvalidMetadataError:
            # Another program wrote something that is not an object: it has no fields.
            metadata = None
        try:
            return cls(
                name=name,
                version=version,
                current=bool(current),
                stored_at=datetime.fromisoformat(stored_at),
                stored_by=stored_by,
                size=size,
                sha256=sha256,
                metadata=metadata,
                **read_environment(environment),
            )
        except (ValueError, TypeError) as error:
            raise StoreDamagedError(
                f"the row of the model {name!r}, version {version!r}, cannot be read: {type(error).__name__}: {error}",
                "It is damaged, or another program wrote it; restore the file from a backup, or delete the row with "
                "sqlite3",
            ) from error

    def __hash__(self) -> int:
        # The metadata, a dict, has no hash; these tell two records apart.
        return hash((self.name, self.version, self.sha256))

    @property
    def reference(self) -> Reference:
        """The name and the version."""
        return Reference(self.name, self.version)

    def loadable(self) -> "Verdict":
        """Return whether the model will load on this machine, without importing anything.

        The imports of a record of `Storage.inspect` are read from the pickle's bytes; those of other records are what
        was recorded when it was stored.

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

        return Needs.recorded(**{name: getattr(self, name) for name in _NEEDS})

    def as_json(self) -> dict[str, Any]:
        """Return the record as a dict for `json.dumps`: times are ISO 8601 strings."""
        fields = asdict(self)
        fields["stored_at"] = self.stored_at.isoformat(timespec="microseconds")
        fields["imports"] = None if self.imports is None else [*self.imports]
        fields["troubles"] = [*self.troubles]
        fields["metadata"] = None if self.metadata is None else to_jsonable(self.metadata)
        return fields


def read_environment(text: str) -> dict[str, Any]:
    """Return what a row's environment says of how a pickle was stored and what it needs, as fields of a record.

    A later version of this package may note more, an older one has noted less, and anyone may have written anything:
    a value of the wrong type, one that cannot be printed, or one that is far too large counts as not recorded.

    Raises:
        ValueError: it is not a JSON object.
    """
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
        **{name: _read_mapping(known.get(name)) for name in ("packages", "suppliers")},
        "has_code": known.get("has_code") is True,
    }


def _is_text(value: Any) -> bool:
    """Return whether a value is a string that can be shown in an error, by a terminal too, without escaping it."""
    return isinstance(value, str) and value.isprintable()


def _read_texts(value: Any) -> tuple[str, ...] | None:
    is_list = isinstance(value, list) and len(value) <= MOST_IMPORTS and all(map(_is_text, value))
    return tuple(value) if is_list else None


def _read_mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_IMPORTS:
        return {}
    return {name: one for name, one in value.items() if _is_text(name) and _is_text(one)}


@dataclass(frozen=True)
class Damage:
    """A version of a model that is not as it was stored."""

    name: str
    version: int
    #: What is wrong with it.
    trouble: str


class Decided(StrEnum):
    """What decided where a store is."""

    GIVEN = "as given"
    ENVIRONMENT = "$VIEWS_RUNS_STORE"
    DEFAULT = "the default"


@dataclass(frozen=True)
class Finding:
    """What `Storage.doctor` says of one thing."""

    #: What it is about, as in ``permissions``.
    topic: str
    #: ``ok``, ``warning`` or ``failure``.
    state: str
    #: What was found.
    text: str
    #: What to do; empty when there is nothing to do.
    advice: str = ""


@dataclass(frozen=True)
class Verification:
    """What `Storage.verify` found."""

    #: How many versions were read to their end.
    versions: int
    #: Of their pickles together, in bytes.
    size: int
    #: The versions that are damaged; empty when all are whole.
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class Backup:
    """What `Storage.backup` copied."""

    #: The copy.
    path: Path
    #: How many versions are in it.
    versions: int
    #: Of their pickles together, in bytes.
    size: int
    #: ``NAME:VERSION`` of each that was deleted while the copy was made, and so is not in it.
    deleted: tuple[str, ...]
    #: The versions that are damaged in the store, and so are not in the copy.
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class Encounter:
    """What two computers found that committed to one scratch database beside a store."""

    #: This computer's name.
    host: str
    #: The other's; None when no other computer joined.
    other_host: str | None
    #: How many commits of each side returned without an error.
    acknowledged_here: int
    acknowledged_there: int
    #: How many of these arrived in the end, as this side sees it; 0 when it cannot be read.
    arrived_here: int
    arrived_there: int
    #: What failed on either side, in words.
    errors: tuple[str, ...]
    #: Whether both sides share one cache: then they found out nothing about the share.
    same_computer: bool
    #: How many seconds it took, with the waiting.
    took: float


def compared(one: ModelRecord, other: ModelRecord, everything: bool = False) -> list[tuple[Any, ...]]:
    """Return (field, value in one, value in the other): the metadata's fields, then what the store recorded.

    Args:
        one, other: the records.
        everything: return equal fields too, and not only those that differ.
    """
    rows = [(field, getattr(one, field), getattr(other, field)) for field in RECORDED]
    recorded = [row for row in rows if everything or row[1] != row[2]]
    # As in conditions, `size` is the record's own, and the user's is `metadata.size`.
    given = [
        (f"metadata.{field}" if field in RECORDED else field, *values)
        for field, *values in differences(one.metadata, other.metadata, everything)
    ]
    return [*given, *recorded]
