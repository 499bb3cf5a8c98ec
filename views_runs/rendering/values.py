"""What verbs return that is not a record of the library; `views` shows it, and makes it JSON.

Named tuples: a frozen dataclass takes seven times as long to define, and all of them would cost each command 15 ms.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from views_runs.records import Damage, Finding, ModelRecord, Verification


class Listing(NamedTuple):
    """The models that meet some conditions, and the rows that could not be read."""

    records: "list[ModelRecord]"
    unreadable: "list[Damage]"
    #: The names, if only these are shown.
    names: list[str] | None
    #: What to say if there are none.
    if_empty: str


#: How two models differ: a ``field`` and its two ``values`` for each row.
Differences = NamedTuple(
    "Differences", [("rows", list[dict[str, Any]]), ("one", "ModelRecord"), ("other", "ModelRecord")]
)

#: A model that was stored; one whose metadata was changed; versions that were deleted, and what is current now.
Stored = NamedTuple("Stored", [("record", "ModelRecord")])
Change = NamedTuple("Change", [("after", "ModelRecord"), ("before", "ModelRecord")])
Deletion = NamedTuple("Deletion", [("records", "list[ModelRecord]"), ("current", "dict[str, ModelRecord | None]")])

#: Whether a version will load on this machine; whether many will, and the rows that could not be read.
Check = NamedTuple(
    "Check", [("name", str), ("version", int), ("verdict", str), ("reasons", "tuple[str, ...]"), ("fix", str)]
)
Checks = NamedTuple("Checks", [("models", list[Check]), ("unreadable", "list[Damage]")])

#: What `verify` found in a store, and what `doctor` did.
Verified = NamedTuple("Verified", [("found", "Verification"), ("store", "Path")])
Diagnosis = NamedTuple("Diagnosis", [("findings", "list[Finding]")])

#: Values whose JSON is that of their first field; the JSON of others is an object with all fields.
WRAPPERS = (Listing, Differences, Stored, Change, Deletion, Checks, Verified, Diagnosis)

#: A pickle that was downloaded; the fields that a store requires, and the models that lack one; the imports that were
#: added to the user's list, and its file; a page of the guide.
Download = NamedTuple("Download", [("name", str), ("file", "Path"), ("size", int)])
Requirements = NamedTuple("Requirements", [("required", list[str]), ("incomplete", "list[ModelRecord]")])
Trust = NamedTuple("Trust", [("file", "Path"), ("added", list[str])])
Topic = NamedTuple("Topic", [("topic", str), ("text", str)])
