"""Values that are passed around."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from views_runs.pickles import packages
from views_runs.pickles.loadability import Needs, Verdict, verdict
from views_runs.metadata import Metadata, differences, plain

#: What a store records by itself, and may differ between two models.
RECORDED = ("type", "size", "sha256", "stored_at", "stored_by", "python", "platform", "protocol")

#: What tells whether it can be loaded.
_NEEDS = ("imports", "troubles", "packages", "suppliers", "python", "protocol", "has_code")


@dataclass(frozen=True)
class ModelRecord:
    """One version of a stored model: all that is known of it without unpickling it."""

    #: What the model was stored under.
    name: str
    #: 1 for the first model of that name; a number is never given twice.
    version: int
    #: Whether this is what ``fetch(name)`` returns: the highest version that is there.
    current: bool
    #: When the store was acknowledged: an aware datetime in UTC, by the clock of the computer that stored it.
    stored_at: datetime
    #: ``user@host``.
    stored_by: str
    #: Of the pickle, in bytes.
    size: int
    #: Of the pickle, in hexadecimal: what ``sha256sum`` says of the downloaded file.
    sha256: str
    #: The object's type, as in ``sklearn.ensemble._forest.RandomForestRegressor``; None for a pickle that was uploaded.
    type: str | None
    #: What was given with the model; None when nothing was.
    metadata: Metadata | None
    #: The Python that stored it, as in ``CPython 3.11.7``; None for a pickle that was uploaded.
    python: str | None
    #: The machine that stored it, as in ``linux-x86_64``; None for a pickle that was uploaded.
    platform: str | None
    #: The pickle protocol.
    protocol: int
    #: What the pickle imports: ``module.name``, or ``module:name`` if the name has dots; None if it is not known.
    imports: tuple[str, ...] | None = None
    #: Why it may import more than that, in words.
    troubles: tuple[str, ...] = ()
    #: The distributions that supplied its modules when it was stored, and what these directly require, with versions.
    packages: Mapping[str, str] = field(default_factory=dict)
    #: Which of the distributions supplied each top-level module.
    suppliers: Mapping[str, str] = field(default_factory=dict)
    #: Whether it holds code by value, which fits one version of Python.
    has_code: bool = False

    def __hash__(self) -> int:
        # The metadata, a dict, has no hash; these tell two records apart.
        return hash((self.name, self.version, self.sha256))

    def loadable(self) -> Verdict:
        """Say whether the model will load on this machine, without importing anything.

        The imports of a record of `Storage.inspect` are read from the pickle's bytes; those of other records are what
        was recorded when it was stored.

        >>> from views_runs import Storage
        >>> Storage("models.db").store("forest", [1, 2, 3]).loadable().verdict
        'loads'
        """
        packages.forget()
        return verdict(self.needs())

    def needs(self) -> Needs:
        """Return what the pickle needs where it is loaded."""
        return Needs.recorded(**{name: getattr(self, name) for name in _NEEDS})

    def as_json(self) -> dict[str, Any]:
        """Return the record as a dict for `json.dumps`: times are ISO 8601 strings."""
        fields = asdict(self)
        fields["stored_at"] = self.stored_at.isoformat(timespec="microseconds")
        fields["imports"] = None if self.imports is None else [*self.imports]
        fields["troubles"] = [*self.troubles]
        fields["metadata"] = None if self.metadata is None else plain(self.metadata)
        return fields


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
    #: What to do; empty when there is nothing to be done.
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
    #: The other's; None when nobody came.
    other_host: str | None
    #: How many commits of each side returned without an error.
    acknowledged_here: int
    acknowledged_there: int
    #: How many of these are there in the end, as this side sees it; 0 when it cannot be read.
    arrived_here: int
    arrived_there: int
    #: What failed on either side, in words.
    errors: tuple[str, ...]
    #: Whether both sides have one cache: then they found out nothing about the share.
    same_computer: bool
    #: How many seconds it took, with the waiting.
    took: float


def compared(one: ModelRecord, other: ModelRecord, everything: bool = False) -> list[tuple[Any, ...]]:
    """Return (field, value in one, value in the other): the metadata's fields, then what the store recorded.

    Args:
        one, other: the records.
        everything: fields that are equal too, and not only those that differ.
    """
    rows = [(field, getattr(one, field), getattr(other, field)) for field in RECORDED]
    recorded = [row for row in rows if everything or row[1] != row[2]]
    # As in conditions, `size` is the record's own, and the user's is `metadata.size`.
    given = [
        (f"metadata.{field}" if field in RECORDED else field, *values)
        for field, *values in differences(one.metadata, other.metadata, everything)
    ]
    return [*given, *recorded]
