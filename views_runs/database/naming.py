"""What versions are called: which one is current, their aliases, and the name of a model."""

from views_runs import names
from views_runs.database.models import ALIASED, Models, describe
from views_runs.exceptions import InvalidNameError, ModelExistsError, StorageError
from views_runs.records import ModelRecord, Reference


def restore(models: Models, reference: Reference) -> ModelRecord:
    """Make a version current, and return its record."""
    connection = models.connection
    with connection.transaction():
        reference = models.resolve(reference)
        if reference.version is None:
            advice = "Give one, as in 'forest:2'; `views-runs model history` shows them"
            raise InvalidNameError("no version was given", advice)
        record = models.record(reference)
        before = models.record(Reference(record.name))
        if record.current:
            return record
        highest = connection.value("SELECT max(version) FROM models WHERE name = ?", (record.name,))
        connection.change("DELETE FROM restored WHERE name = ?", (record.name,))
        if record.version < highest:
            insert = "INSERT INTO restored (name, version, highest) VALUES (?, ?, ?)"
            connection.change(insert, (record.name, models.id(record), highest))
        models.note("restored", record, instead_of=before.version)
        return models.record(record.reference)


def set_alias(models: Models, reference: Reference, alias: str) -> ModelRecord:
    """Give a version an alias, or move the alias to it; return the version's record."""
    connection = models.connection
    with connection.transaction():
        record = models.record(reference)
        before = _find_alias(models, record.name, alias)
        if before == record.version:
            return record
        connection.change(
            "INSERT INTO aliases (model, alias, version) VALUES (?, ?, ?) "
            "ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version",
            (models.number(record.name)[0], alias, models.id(record)),
        )
        models.note("aliased", record, alias=alias, before=before)
        return models.record(record.reference)


def remove_alias(models: Models, reference: Reference, alias: str) -> ModelRecord:
    """Remove an alias; return the record of the version that had it."""
    if reference.version is not None:
        raise InvalidNameError("an alias is removed from a model, not from one version", "Give the name alone")
    connection = models.connection
    with connection.transaction():
        name, _ = models.resolve(reference)
        version = _find_alias(models, name, alias)
        if version is None:
            raise models.no_alias(name, alias)
        record = models.record(Reference(name, version))
        delete = "DELETE FROM aliases WHERE model = (SELECT id FROM names WHERE name = ?) AND alias = ?"
        connection.change(delete, (name, alias))
        models.note("unaliased", record, alias=alias)
        return models.record(record.reference)


def _find_alias(models: Models, name: str, alias: str) -> int | None:
    version: int | None = models.connection.value(ALIASED, (name, alias))
    return version


def rename(models: Models, old: str, new: str) -> ModelRecord:
    """Give a model, with all its versions, another name."""
    connection = models.connection
    with connection.transaction():
        record = models.record(Reference(old))
        if old != record.name:
            raise names.explain_one_version()
        if old == new:
            return record
        if "@" in new:
            raise names.explain_at_sign(new)
        _refuse_taken(models, new)
        number, given = models.number(old)
        lowest = connection.value("SELECT min(version) FROM models WHERE name = ?", (old,))
        shift = _free_name(models, new, number, lowest)
        if given + shift > names.MAX_INTEGER:
            raise StorageError(f"there are no version numbers left for the name {new!r}", "Choose another name")
        connection.change("UPDATE models SET name = ?, version = version + ? WHERE name = ?", (new, shift, old))
        connection.change("UPDATE names SET name = ?, versions = versions + ? WHERE id = ?", (new, shift, number))
        update = "UPDATE restored SET name = ?, highest = highest + ? WHERE name = ?"
        connection.change(update, (new, shift, old))
        connection.change("INSERT INTO names (name, versions, renamed_to) VALUES (?, ?, ?)", (old, given, number))
        models.events.add("renamed", new, old=old, new=new, shift=shift)
        return models.record(Reference(new))


def _refuse_taken(models: Models, new: str) -> None:
    other = models.find(Reference(new))
    if other is not None:
        raise ModelExistsError(
            f"the model {new!r} already exists: {describe(other)}",
            "Choose another name, or rename that model first; nothing was changed",
        )


def _free_name(models: Models, new: str, number: int, lowest: int) -> int:
    """Take a name from the deleted model that had it; return what to add to numbers, so that none is given again."""
    row = models.connection.row("SELECT id, versions, renamed_to FROM names WHERE name = ?", (new,))
    if row is None:
        return 0
    other, versions, renamed_to = row
    # Models that gave up their name to that one earlier follow it, so that one lookup finds the events of all of them.
    update = "UPDATE names SET name = NULL, renamed_to = ?1 WHERE id = ?2 OR name IS NULL AND renamed_to = ?2"
    models.connection.change(update, (number, other))
    shifted = "SELECT 1 FROM events WHERE model = ? AND action = 'renamed' AND changes ->> '$.shift' > 0"
    # The model that gets back its own name gets back its own numbers.
    is_own = renamed_to == number and not models.connection.value(shifted, (number,))
    # No more than is needed: if all used numbers were added, they would double each time two names take turns.
    return 0 if is_own else max(0, versions - lowest + 1)
