"""Results of verbs that are not records of the library; `views` shows them, or turns them into JSON.

Named tuples, as most records of the library: a frozen dataclass takes seven times as long to define, and all of them
would cost each command 25 ms.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from views_runs import records
    from views_runs.records import (
        Damage,
        Disposition,
        Event,
        Finding,
        Lifetime,
        ModelRecord,
        RunModel,
        RunRecord,
        Verification,
    )


class Listing(NamedTuple):
    """Models that meet some conditions, and rows that could not be read."""

    records: "list[ModelRecord]"
    unreadable: "list[Damage]"
    #: The names, if only they are to be shown.
    names: list[str] | None
    #: The message if there are none.
    if_empty: str
    #: The columns to show, as in ``name,mse``, or ``+mse`` for one more; empty for the usual ones.
    columns: str = ""


#: How two models differ: each row has a ``field`` and its two ``values``.
Differences = NamedTuple(
    "Differences", [("rows", list[dict[str, Any]]), ("one", "ModelRecord"), ("other", "ModelRecord")]
)

#: A stored model; a model whose metadata was changed; versions that were deleted, or that a rule kept or did not keep,
#: or would be or do.
Stored = NamedTuple("Stored", [("record", "ModelRecord")])
Change = NamedTuple("Change", [("after", "ModelRecord"), ("before", "ModelRecord")])
Deletion = NamedTuple("Deletion", [("records", "list[ModelRecord]"), ("found", "records.Deletion"), ("dry_run", bool)])
Pruning = NamedTuple("Pruning", [("versions", "list[Disposition]"), ("dry_run", bool)])


class Several(NamedTuple):
    """Several values: each is shown as if it were alone, and the JSON of all is an array."""

    values: list[Any]
    unreadable: "list[Damage]" = []


class Naming(NamedTuple):
    """A version that was restored, or whose name or alias changed."""

    record: "ModelRecord"
    #: As in the event: ``restored``, ``renamed``, ``aliased`` or ``unaliased``.
    action: str
    #: The version that was current, or had the name or alias, before.
    before: "ModelRecord | None"
    alias: str = ""


#: What was done to a store; the versions that a model has or had.
Log = NamedTuple("Log", [("events", "list[Event]"), ("if_empty", str)])
History = NamedTuple("History", [("versions", "list[Lifetime]"), ("name", str)])

#: Whether models will load on this machine, with the fields of a `Verdict` in each; and rows that could not be read.
Checks = NamedTuple("Checks", [("models", list[dict[str, Any]]), ("unreadable", "list[Damage]")])

#: All runs, and the message if there are none.
RunListing = NamedTuple("RunListing", [("records", "list[RunRecord]"), ("quiet", bool), ("if_empty", str)])


class RunShown(NamedTuple):
    """A run and its models."""

    run: "RunRecord"
    models: "list[RunModel]"
    #: The names of the models that another run used and this one lacks.
    lacking: list[str]
    unreadable: "list[Damage]"
    #: The other run; the field to group the models by.
    like: str | None
    group_by: str | None


#: The findings of `verify` and of `doctor`.
Verified = NamedTuple("Verified", [("found", "Verification"), ("store", "Path")])
Diagnosis = NamedTuple("Diagnosis", [("findings", "list[Finding]")])

#: A downloaded pickle; the fields that a store requires, and the models that lack one; the imports added to the user's
#: list, and its file; a page of the guide. Their JSON has all their fields; that of the values above is the first one.
Download = NamedTuple("Download", [("name", str), ("file", "Path"), ("size", int)])
Requirements = NamedTuple("Requirements", [("required", list[str]), ("incomplete", "list[ModelRecord]")])
Trust = NamedTuple("Trust", [("file", "Path"), ("added", list[str])])
Topic = NamedTuple("Topic", [("topic", str), ("text", str)])

OBJECTS = (Download, Requirements, Trust, Topic)
