"""What verbs return that is not a record of the library; `views` shows it, and makes it JSON.

Named tuples: a frozen dataclass takes seven times as long to define, and all of them would cost each command 15 ms.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from views_runs.records import Damage, Finding, ModelRecord, Verification


class Listing(NamedTuple):
    """The models that meet some conditions, or only their names."""

    records: "Sequence[ModelRecord]"
    names: Sequence[str] | None
    #: What to say if there are none.
    if_empty: str
    #: The rows that could not be read.
    damaged: "Sequence[Damage]"


class Differences(NamedTuple):
    """Two models, and how they differ: the field and its two values, from `records.compared`."""

    one: "ModelRecord"
    other: "ModelRecord"
    values: Sequence[tuple[Any, ...]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the differences as JSON has them."""
        return [{"field": field, "values": values} for field, *values in self.values]


class Topic(NamedTuple):
    """A page of the guide."""

    topic: str
    text: str


class Stored(NamedTuple):
    """A model that was stored."""

    record: "ModelRecord"


class Change(NamedTuple):
    """A model before and after its metadata was changed."""

    before: "ModelRecord"
    after: "ModelRecord"


class Deletion(NamedTuple):
    """Versions that were deleted, and by name the version that is current now."""

    records: "Sequence[ModelRecord]"
    current: "Mapping[str, ModelRecord | None]"


class Download(NamedTuple):
    """A model whose pickle was written to a file."""

    name: str
    file: "Path"
    size: int


class Check(NamedTuple):
    """Whether a version of a model will load on this machine."""

    name: str
    version: int
    verdict: str
    reasons: Sequence[str]
    fix: str


class Checks(NamedTuple):
    """Whether models will load, and the rows that could not be read."""

    models: Sequence[Check]
    damaged: "Sequence[Damage]"


class Verified(NamedTuple):
    """What `verify` found in a store."""

    found: "Verification"
    store: "Path"


class Diagnosis(NamedTuple):
    """What `doctor` found."""

    findings: "Sequence[Finding]"


class Requirements(NamedTuple):
    """The metadata fields that a store requires, and the models that lack one."""

    required: list[str]
    incomplete: "Sequence[ModelRecord]"


class Trust(NamedTuple):
    """The imports that were added to the user's list, and the file with the list."""

    file: "Path"
    added: Sequence[str]


#: The field of a value that is all of its JSON. The JSON of others is an object with their fields.
JSON_FIELDS = {
    Listing: "records",
    Differences: "rows",
    Stored: "record",
    Change: "after",
    Deletion: "records",
    Checks: "models",
    Verified: "found",
    Diagnosis: "findings",
}
