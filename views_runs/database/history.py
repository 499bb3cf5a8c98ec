"""The versions that a model ever had."""

import logging

from views_runs.database.models import Models
from views_runs.metadata import differences
from views_runs.records import Event, Lifetime, ModelRecord, Reference, read_time

log = logging.getLogger("views_runs")


def of_model(models: Models, name: str) -> list[Lifetime]:
    """Return the lifetimes of the versions of a model, highest version first."""
    with models.connection.snapshot():
        records = models.versions(Reference(name)) if models.find(Reference(name)) else []
        deletions = [*models.events.search(name, actions=("deleted", "pruned"))]
    existing = [_describe(record, before) for record, before in zip(records, [*records[1:], None])]
    deleted = filter(None, map(_describe_deleted, deletions))
    return sorted([*existing, *deleted], key=lambda one: one.version, reverse=True)


def _describe(record: ModelRecord, before: ModelRecord | None) -> Lifetime:
    changes = differences(before.metadata, record.metadata) if before else []
    return Lifetime(record.version, record.stored_at, record.stored_by, record.size, record, tuple(changes))


def _describe_deleted(event: Event) -> Lifetime | None:
    changes = event.changes
    try:
        stored_at = read_time(changes["stored_at"])
        return Lifetime(event.version or 0, stored_at, str(changes["stored_by"]), int(changes["size"]), None, (), event)
    except (LookupError, ValueError, TypeError) as error:
        # The row was damaged when it was deleted.
        log.warning("skipping a deleted version, %s: %s: %s", event.version, type(error).__name__, error)
        return None
