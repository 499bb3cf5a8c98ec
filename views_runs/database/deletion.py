"""Delete versions, each only if it has not changed since it was chosen."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from views_runs.conditions import CURRENT
from views_runs.database.database import Database
from views_runs.database.models import Models
from views_runs.database.selection import Wanted, readable, select
from views_runs.exceptions import ModelInUseError, QueryError
from views_runs.names import listed
from views_runs.records import Damage, Deletion, Disposition, ModelRecord, Reference

#: Takes the present record of a version, and returns why it is kept; an empty string means that it is deleted.
Keep = Callable[[ModelRecord], str]


def delete(database: Database, reference: Reference, force: bool) -> ModelRecord | None:
    """Delete a model, oldest version first, or one version, even if it cannot be read; return what is current then."""
    models, select = database.models, "SELECT id, version FROM models WHERE name = ? AND version = ifnull(?, version)"
    reference = models.resolve(reference)
    found = models.connection.rows(f"{select} ORDER BY version", reference)
    if not found:
        raise models.not_found(reference)
    if not force:
        _refuse_aliased(_find_aliased(models, [id for id, _ in found]))
    for id, version in found:
        # One transaction for each version, so that its journal fits in the reserved space even if the disk is full.
        with models.connection.transaction():
            _delete_unchanged(models, id, Reference(reference.name, version), force)
    database.clear(str(reference))
    return models.find(Reference(reference.name))


def _delete_unchanged(models: Models, id: int, reference: Reference, force: bool) -> None:
    """Delete the row of a version if it has not been given another name or an alias; call this in a transaction."""
    if models.connection.value("SELECT id FROM models WHERE name = ? AND version = ?", reference) == id:
        if not force:
            _refuse_aliased(_find_aliased(models, [id]), "this version was kept")
        models.delete_row(id, reference)
    elif models.connection.value("SELECT 1 FROM models NOT INDEXED WHERE id = ?", (id,)):
        raise models.not_found(Reference(reference.name))


def _find_aliased(models: Models, ids: list[int]) -> list[str]:
    """Return which of these versions have aliases, for a message."""
    rows = models.connection.rows(
        "SELECT name, models.version, CAST(alias AS BLOB) FROM json_each(?) AS place "
        "CROSS JOIN models ON models.id = place.value JOIN aliases ON aliases.version = models.id ORDER BY place.key",
        (json.dumps(ids),),
    )
    # Bytes, because an alias that another program wrote may be invalid text.
    decoded = [(Reference(name, version), alias.decode("utf-8", "backslashreplace")) for name, version, alias in rows]
    return [_describe_aliases(reference, [alias]) for reference, alias in decoded]


class Plan(NamedTuple):
    """What `Storage.delete_many` is about to do."""

    #: The records by id, in the order in which they are shown.
    records: Mapping[int, ModelRecord]
    #: The versions that are kept if they become current meanwhile.
    fragile: frozenset[Reference]
    #: Whether the deletion may make another version current.
    promotes: bool
    #: For each model, the version that is current afterwards; None if none is left.
    current: Mapping[str, int | None]

    def summary(self) -> Deletion:
        """Return what the deletion would do."""
        return Deletion(tuple(Disposition(record, True, "") for record in self.records.values()), self.current)


def plan(models: Models, wanted: Wanted, promote_older: bool, force: bool) -> Plan:
    """Choose what to delete; unless it is allowed, refuse versions with an alias, and to make an older one current."""
    if not wanted.names and not wanted.has_conditions:
        raise QueryError("no names and no conditions were given", advice="Give '*' for all models; nothing was deleted")
    with models.connection.snapshot():
        chosen = select(models, wanted, whole=True, strict=True)
        records = models.by_id(readable(chosen))
        left = {name: _find_left(models, name, records) for name in dict.fromkeys(one.name for one in chosen.records)}
    if not force:
        _refuse_aliased([_describe_aliases(one.reference, one.aliases) for one in chosen.records if one.aliases])
    promotes = promote_older or wanted.all_versions
    if not promotes:
        _refuse_promotions([one for one in chosen.records if one.reference in chosen.matched and left[one.name]])
    return Plan(records, chosen.matched, promotes, left)


def _find_left(models: Models, name: str, records: Mapping[int, ModelRecord]) -> int | None:
    """Return the version that is current once these are deleted."""
    versions = models.connection.rows(f"SELECT id, {CURRENT}, version FROM models WHERE name = ?", (name,))
    remaining = [(is_current, version) for id, is_current, version in versions if id not in records]
    _, left = max(remaining, default=(0, None))
    return left


def _describe_aliases(reference: Reference, aliases: Iterable[str]) -> str:
    return f"{reference} has the alias {', '.join(aliases)}"


def _refuse_aliased(aliased: Sequence[str], outcome: str = "nothing was deleted") -> None:
    if aliased:
        raise ModelInUseError(listed(aliased), f"Remove the alias, or delete with force=True (--force); {outcome}")


def _refuse_promotions(records: Sequence[ModelRecord]) -> None:
    current = [str(one.reference) for one in records if one.current]
    if current:
        raise ModelInUseError(
            f"another version would become current in place of {listed(current)}",
            "Delete all versions with all_versions=True (--all-versions), or let another version become current with "
            "promote_older=True (--promote-older); nothing was deleted",
        )


def carry_out(database: Database, made: Plan, force: bool) -> Deletion:
    """Delete what was planned, and keep what has changed since in a way that matters."""
    connection = database.connection

    def keep(now: ModelRecord) -> str:
        before = made.records[models.id(now)]
        if now.aliases and not force:
            return f"it now has the alias {', '.join(now.aliases)}"
        if before.reference not in made.fragile or not now.current:
            return ""
        if not before.current:
            return "it is now the current version"
        others = "SELECT 1 FROM models WHERE name = ? AND version <> ?"
        has_others = not made.promotes and connection.value(others, now.reference)
        return "the model now has other versions" if has_others else ""

    models = database.models
    versions = delete_each(database, made.records, keep)
    names = dict.fromkeys(one.record.name for one in versions if one.deleted)
    return Deletion(tuple(versions), {name: _find_left(models, name, {}) for name in names})


def delete_each(
    database: Database, records: Mapping[int, ModelRecord], keep: Keep, action: str = "deleted", **changes: Any
) -> list[Disposition]:
    """Delete versions, given by id, unless `keep` says why not; return what was done, in the same order."""
    done = {}
    # The current version comes last, so that no other version becomes current meanwhile.
    for id, record in sorted(records.items(), key=lambda one: (one[1].current, one[1].version)):
        # One transaction for each version, so that its journal fits in the reserved space even if the disk is full.
        with database.connection.transaction(bulk=len(records) > 1):
            reason = _explain_change(record, now := database.models.read(id))
            if isinstance(now, ModelRecord):
                reason = reason or keep(now)
            if not reason:
                database.models.delete_row(id, record.reference, action, **changes)
        done[id] = Disposition(record, not reason, reason, changed=bool(reason))
    if any(one.deleted for one in done.values()):
        database.clear(listed([str(record.reference) for record in records.values()]))
    return [done[id] for id in records]


def _explain_change(record: ModelRecord, now: ModelRecord | Damage | None) -> str:
    """Return why a version can no longer be deleted as it was shown; an empty string if it can."""
    if now is None:
        return "it was deleted meanwhile"
    if isinstance(now, Damage):
        return f"it cannot be read: {now.trouble}"
    return "" if now.reference == record.reference else f"it was renamed to {str(now.reference)!r} meanwhile"
