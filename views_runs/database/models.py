"""The tables ``models`` and ``model_parts``: read rows as records and verified pickles, and add or delete them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from views_runs import names
from views_runs.conditions import CURRENT, compare_large, compare_time, rank_large
from views_runs.database import owners, runs, uploads
from views_runs.database.connection import Connection
from views_runs.database.events import Events
from views_runs.database.schema import SCHEMA_VERSION
from views_runs.exceptions import (
    AliasNotFoundError,
    CorruptModelError,
    InvalidMetadataError,
    InvalidNameError,
    ModelExistsError,
    ModelNotFoundError,
    StorageError,
    StoreDamagedError,
)
from views_runs.metadata import Metadata, differences, missing_fields, to_jsonable
from views_runs.query import Question, refuse_beyond_limits
from views_runs.records import Damage, Entry, ModelRecord, Reference, as_records, read_environment
from views_runs.texts import printable

if TYPE_CHECKING:
    from views_runs.pickles.loadability import Needs
    from views_runs.pickles.parts import Pickled

#: The maximum number of names, most recent first, to compare with a missing name.
MAX_GUESSES = 5000

#: The columns of a record; the third, to be filled in, is whether it is current. The aliases are bytes: one that is not
#: valid UTF-8 would otherwise make the whole row unreadable.
COLUMNS = """name, version, {}, stored_at, stored_by, size, sha256, metadata, datetimes, environment,
    CAST((SELECT group_concat(alias, ' ') FROM aliases WHERE aliases.version = models.id) AS BLOB)"""

#: This index contains all of them, so that no pickle is read. SQLite would not always choose it by itself.
TABLE = "models INDEXED BY models_record"
SELECT = f"SELECT {COLUMNS.format(CURRENT)} FROM {TABLE}"

#: The id and number of the requested or the highest version, according to the index of names and versions.
FOUND = f"""(SELECT id AS found_id, version AS found_version FROM models WHERE name = ?1
    AND (version = ?2 OR ?2 IS NULL AND {CURRENT}) ORDER BY version DESC LIMIT 1)"""
FIND = f"SELECT {COLUMNS.format(CURRENT)}, found_version FROM {FOUND} CROSS JOIN {TABLE} ON id = found_id"

#: The digest of the model according to the index of records, to be compared with the row's. The end of a wide row is on
#: a page of its own, which a torn copy of the file can have from another row.
LISTED = "(SELECT sha256 FROM models INDEXED BY models_record WHERE id = found_id)"

#: The number of the version with an alias.
ALIASED = """SELECT models.version FROM names JOIN aliases ON aliases.model = names.id
    JOIN models ON models.id = aliases.version AND models.name = names.name
    WHERE names.name = ? AND aliases.alias = ?"""

REQUIRED = "SELECT CAST(field AS TEXT) FROM required_fields ORDER BY field"


class Stored(NamedTuple):
    """What is needed to read a pickle: columns of its row, unchecked and possibly damaged."""

    id: int
    name: str
    version: int
    size: int
    sha256: str
    digest: bytes
    upload: int | None
    environment: str
    #: The pickle, if it has only one part.
    whole: bytes | None

    @property
    def needs(self) -> "Needs":
        """The recorded needs of the pickle; empty if they cannot be read."""
        from views_runs.pickles.loadability import Needs

        try:
            return Needs.recorded(**read_environment(self.environment))
        except (ValueError, TypeError):
            return Needs.recorded()


_STORED = "id, name, version, size, sha256, digest, upload, environment, CASE WHEN upload IS NULL THEN pickle END"


class Models:
    """The models of an open store. A missing model is a `ModelNotFoundError`, unless `find` is asked for it."""

    def __init__(self, connection: Connection, why: str | None = None, run: str | None = None) -> None:
        self.connection = connection
        self._why = why
        #: The run that this operation is part of.
        self.run = run

    @cached_property
    def events(self) -> Events:
        """The log of the store."""
        return Events(self.connection, self._why, self.run)

    def resolve(self, reference: Reference) -> Reference:
        """Return the version that ``NAME@ALIAS`` refers to; a model with such a name comes first."""
        # In a damaged row, the name can be of any type.
        name, at, alias = reference.name.rpartition("@") if isinstance(reference.name, str) else ("", "", "")
        if not at or self.connection.value("SELECT 1 FROM models WHERE name = ?", (reference.name,)):
            return reference
        if reference.version is not None:
            raise InvalidNameError(f"{str(reference)!r} gives both an alias and a version", "Give one of them")
        version = self.connection.value(ALIASED, (name, alias))
        if version is None:
            raise self.no_alias(name, alias)
        return Reference(name, version)

    def _row(self, select: str, reference: Reference) -> tuple[Reference, tuple[Any, ...] | None]:
        """Return the version that is meant, without an alias, and its first row."""
        # In a snapshot, because the alias may be moved, and the version that had it deleted. Others need none.
        with self.connection.snapshot() if "@" in str(reference.name) else nullcontext():
            reference = self.resolve(reference)
            return reference, self.connection.row(select, reference)

    def find(self, reference: Reference) -> ModelRecord | None:
        """Return the record of a version, by default the current one, or None if it does not exist."""
        try:
            reference, row = self._row(FIND, reference)
        except ModelNotFoundError:
            return None
        return None if row is None else self._read_found(reference.name, row)

    def _read_found(self, name: str, row: tuple[Any, ...]) -> ModelRecord:
        *columns, version = row
        self._refuse_other(Reference(name, version), *columns[:2])
        return ModelRecord.from_row(tuple(columns))

    def record(self, reference: Reference) -> ModelRecord:
        """Return the record of a version, by default the current one."""
        found = self.find(reference)
        if found is None:
            raise self.not_found(self.resolve(reference))
        return found

    def versions(self, reference: Reference) -> list[ModelRecord]:
        """Return the records of all versions of a model, or of one version, highest version first."""
        reference = self.resolve(reference)
        found = self.connection.rows(
            f"{SELECT} WHERE name = ? AND version = ifnull(?, version) ORDER BY version DESC",
            reference,
        )
        if not found:
            raise self.not_found(reference)
        return [ModelRecord.from_row(row) for row in found]

    def search(self, question: Question) -> list[ModelRecord | Damage]:
        """Return the results of a question, in its order, with a `Damage` for each row that cannot be read."""
        try:
            return as_records(self._ask(SELECT, question))
        except StoreDamagedError:
            # Read the rows one by one, to return those that can be read.
            return [found for id in self.search_ids(question) if (found := self.read(id)) is not None]

    def search_ids(self, question: Question) -> list[int]:
        """Return the ids of the rows that a question finds, in its order."""
        return [id for (id,) in self._ask(f"SELECT id FROM {TABLE}", question)]

    def _ask(self, select: str, question: Question) -> list[tuple[Any, ...]]:
        self.connection.add_function(compare_time, 3)
        self.connection.add_function(compare_large, 4)
        self.connection.add_function(rank_large, 2)
        sql, parameters = question.sql, question.parameters
        try:
            return self.connection.rows(f"{select} {sql}", parameters)
        except StorageError as error:
            refuse_beyond_limits(error)
            raise

    def read(self, id: int) -> ModelRecord | Damage | None:
        """Return the record of the row with this id, or a `Damage` if it cannot be read; None if it does not exist."""
        try:
            row = self.connection.row(f"{SELECT} WHERE id = ?", (id,))
            # It may have been deleted meanwhile.
            return None if row is None else as_records([row])[0]
        except StoreDamagedError as error:
            name = self.connection.value(f"SELECT CAST(name AS BLOB) FROM {TABLE} WHERE id = ?", (id,))
            shown = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else f"(row {id})"
            return Damage(shown, 0, str(error))

    def row(self, reference: Reference) -> Stored:
        """Return what is needed to read a model's pickle."""
        found = f"{FOUND} CROSS JOIN models NOT INDEXED ON id = found_id"
        reference, row = self._row(f"SELECT {_STORED}, found_version, {LISTED} FROM {found}", reference)
        if row is None:
            raise self.not_found(reference)
        *columns, version, listed = row
        stored = Stored(*columns)
        self._refuse_other(Reference(reference.name, version), stored.name, stored.version)
        refuse_other_digest(stored, listed)
        return stored

    def row_of(self, id: int) -> Stored | None:
        """Return what is needed to read the pickle of the row with this id, or None if the row does not exist."""
        row = self.connection.row(f"SELECT {_STORED} FROM models NOT INDEXED WHERE id = ?", (id,))
        return None if row is None else Stored(*row)

    def pieces(self, row: Stored) -> AbstractContextManager[Iterator[memoryview]]:
        """Return a context manager for the verified parts of a pickle; no lock is held between two of them."""
        from views_runs.pickles.parts import PART_SIZE, StoredPart, verified, verified_whole

        if row.upload is None:
            return nullcontext(iter([memoryview(verified_whole(row.whole, row.size, row.sha256))]))
        # The parts are listed once, as they never change. Looking up each in turn took 62 of 97 SQLite steps for 20 MB.
        select = "SELECT digest, rowid FROM model_parts WHERE upload = ? ORDER BY part"
        explain, read = partial(self._explain, row), self.connection.read_blob
        try:
            listed = self.connection.rows(select, (row.upload,))
        except StoreDamagedError as error:
            raise explain(error) from error
        parts = [StoredPart(row.digest, partial(read, "models", "pickle", row.id, PART_SIZE))]
        for digest, rowid in listed:
            parts.append(StoredPart(digest, partial(read, "model_parts", "data", rowid, PART_SIZE)))
        return closing(verified(parts, row.size, row.sha256, explain))

    def _explain(self, row: Stored, error: StorageError) -> StorageError:
        """Return the error to raise if a part cannot be read or does not match its digest."""
        # If the model has been deleted, the rowids of its parts may already be in use for parts of another model.
        if type(error) not in (StorageError, StoreDamagedError, CorruptModelError):
            return error
        now = self.connection.row("SELECT upload FROM models NOT INDEXED WHERE id = ?", (row.id,))
        if now is None:
            return ModelNotFoundError("the model was deleted while being read")
        if now[0] != row.upload:
            return StorageError("the model was changed while being read", "Try again")
        from views_runs.pickles.parts import damaged

        return error if isinstance(error, CorruptModelError) else damaged(f"a part cannot be read: {error.trouble}")

    def refuse(self, entry: Entry) -> None:
        """Raise an error if an entry must not be stored: a required field or permission to overwrite is missing."""
        if self.connection.refusal:
            raise self.connection.refusal.with_traceback(None)
        with self.connection.snapshot():
            required = self.connection.rows(REQUIRED)
            row = self.connection.row(FIND, Reference(entry.name))
        if required:
            _refuse_incomplete(entry.metadata, required)
        current = None if row is None else self._read_found(entry.name, row)
        if current is None and "@" in entry.name:
            raise names.explain_at_sign(entry.name)
        if current is not None and not entry.may_follow(current):
            error = ModelExistsError(
                f"the model already exists: {describe(current)}",
                "Choose another name, or add a version with overwrite=True; nothing was stored",
            )
            error.record = current
            raise error

    def refuse_incomplete(self, metadata: Metadata | None) -> None:
        """Raise an error if metadata lacks a required field."""
        _refuse_incomplete(metadata, self.connection.rows(REQUIRED))

    def refuse_read_only(self) -> None:
        """Raise an error if the file cannot be written to; call this in a transaction."""
        # SQLite can begin an immediate transaction on a read-only file. Writing a page also needs the journal.
        self.connection.change(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def add(self, entry: Entry, pickled: "Pickled", upload: int | None) -> ModelRecord:
        """Insert the row of a model and return its record; call this in a transaction."""
        now, user = datetime.now(UTC).isoformat(timespec="microseconds"), owners.this_user()
        version = self.connection.value(
            "INSERT INTO names (name, versions) VALUES (?, 1) "
            "ON CONFLICT (name) DO UPDATE SET versions = versions + 1, renamed_to = NULL RETURNING versions",
            (entry.name,),
        )
        columns = (entry.name, version, now, user, *entry.columns, pickled.environment)
        pickle = (pickled.size, pickled.sha256, pickled.first.digest, upload, pickled.first.data)
        ((id, *row),) = self.connection.rows(
            "INSERT INTO models (name, version, stored_at, stored_by, metadata, datetimes, environment, "
            "size, sha256, digest, upload, pickle) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "RETURNING id, name, version, true, stored_at, stored_by, size, sha256, NULL, NULL, environment, NULL",
            columns + pickle,
        )
        self.events.add("stored", entry.name, id, version, by=user)
        record = replace(ModelRecord.from_row(tuple(row)), metadata=entry.metadata)
        if self.run is not None:
            runs.use(self, record, is_new=True)
        return record

    def has_metadata(self, record: ModelRecord) -> bool:
        """Return whether the column is not NULL; another program may have written JSON that is not an object."""
        found = "SELECT metadata IS NOT NULL FROM models WHERE name = ? AND version = ?"
        return bool(self.connection.value(found, (record.name, record.version)))

    def set_metadata(
        self, record: ModelRecord, columns: tuple[str | None, str | None], metadata: Metadata | None
    ) -> ModelRecord:
        """Replace a model's metadata and return the new record; call this in a transaction."""
        self.refuse_incomplete(metadata)
        update = "UPDATE models SET metadata = ?, datetimes = ? WHERE name = ? AND version = ?"
        self.connection.change(update, (*columns, record.name, record.version))
        found = differences(record.metadata, metadata)
        changes = [(field, to_jsonable(old), to_jsonable(new)) for field, old, new in found]
        if changes:
            self.note("annotated", record, fields=changes)
        return replace(record, metadata=metadata)

    def note(self, action: str, record: ModelRecord, **changes: Any) -> None:
        """Record what was done to a version; call this in its transaction."""
        self.events.add(action, record.name, self.id(record), record.version, **changes)

    def id(self, record: ModelRecord) -> int:
        """Return the id of a version's row; call this in a transaction."""
        return int(self.connection.value("SELECT id FROM models WHERE name = ? AND version = ?", record.reference))

    def by_id(self, records: Sequence[ModelRecord]) -> dict[int, ModelRecord]:
        """Return the records of versions by the ids of their rows, in the same order; call this in a transaction."""
        # One statement: a hundred thousand of them would keep others from committing for seconds.
        places = json.dumps([one.reference for one in records])
        ids = self.connection.rows(
            "SELECT place.key, models.id FROM json_each(?) AS place CROSS JOIN models "
            "ON models.name = place.value ->> 0 AND models.version = place.value ->> 1 ORDER BY place.key",
            (places,),
        )
        return {id: records[place] for place, id in ids}

    def number(self, name: str) -> tuple[int, int]:
        """Return the id of a name and its number of versions, perhaps of no model yet; call this in a transaction."""
        # The row is missing if another program has inserted the model.
        self.connection.change(
            "INSERT INTO names (name, versions) SELECT ?1, ifnull(max(version), 0) FROM models WHERE name = ?1 "
            "ON CONFLICT (name) DO NOTHING",
            (name,),
        )
        return self.connection.rows("SELECT id, versions FROM names WHERE name = ?", (name,))[0]

    def required(self) -> list[str]:
        """Return the metadata fields that this store requires."""
        return _read_required(self.connection.rows(REQUIRED))

    def require(self, fields: tuple[str, ...]) -> None:
        """Replace the list of required fields."""
        with self.connection.transaction():
            before = self.required()
            self.connection.change("DELETE FROM required_fields")
            for field in dict.fromkeys(fields):
                self.connection.change("INSERT INTO required_fields (field) VALUES (?)", (field,))
            self.events.add("required", before=before, after=[*dict.fromkeys(fields)])

    def known_name(self, name: str) -> str:
        """Return the name of a model that exists or was deleted; ``NAME@ALIAS`` is one with an alias."""
        known = "SELECT 1 FROM names WHERE name = ?1 AND renamed_to IS NULL AND versions"
        known += " UNION ALL SELECT 1 FROM models WHERE name = ?1"
        if self.connection.value(known, (names.check_name(name),)):
            return name
        reference = self.resolve(Reference(name))
        if reference.version is None:
            raise self.not_found(reference)
        return reference.name

    def delete_row(self, id: int, reference: Reference, action: str = "deleted", **changes: Any) -> None:
        """Delete the row of a version, and record the action; call this in a transaction."""
        select = "SELECT name, version, upload, stored_at, stored_by, size FROM models NOT INDEXED WHERE id = ?"
        row = self.connection.row(select, (id,))
        if row is None:
            # Another process has deleted it in the meantime.
            return
        name, version, upload, stored_at, stored_by, size = row
        self._refuse_other(reference, name, version)
        self.connection.change("DELETE FROM aliases WHERE version = ?", (id,))
        # If it is current, the highest version that is left is current from now on.
        delete = f"DELETE FROM restored WHERE name = ?1 AND (SELECT id FROM models WHERE name = ?1 AND {CURRENT}) = ?2"
        self.connection.change(delete, (name, id))
        self.connection.change("DELETE FROM models NOT INDEXED WHERE id = ?", (id,))
        self.events.add(action, name, id, version, stored_at=stored_at, stored_by=stored_by, size=size, **changes)
        if upload is not None:
            uploads.condemn_published(self.connection, upload)

    def not_found(self, reference: Reference) -> StorageError:
        """Return the error for a model that does not exist, with suggestions."""
        select = "SELECT version FROM models WHERE name = ? ORDER BY version DESC LIMIT 9"
        versions = [str(version) for (version,) in self.connection.rows(select, (reference.name,))]
        if versions and reference.version is not None:
            return ModelNotFoundError(
                f"the model {reference.name!r} has no version {reference.version}; "
                f"its {'only version is' if len(versions) == 1 else 'versions are'} {', '.join(versions)}",
                self._explain_deletion(reference),
            )
        select = f"SELECT DISTINCT name FROM {TABLE} ORDER BY id DESC LIMIT ?"
        others = [name for (name,) in self.connection.rows(select, (MAX_GUESSES,)) if isinstance(name, str)]
        if versions or reference.name in others:
            return ModelNotFoundError(
                f"the model {reference.name!r} has just been stored, or an index in the file is damaged",
                "Try again. If the error persists, run `views-runs model verify`",
            )
        advice = self._explain_absence(reference.name) or names.suggest(reference.name, others)
        return ModelNotFoundError(f"there is no model {reference.name!r}", advice)

    def _explain_absence(self, name: str) -> str:
        """Return advice for a name that a model had, or that means the current version elsewhere."""
        renamed = "SELECT own.name FROM names JOIN names AS own ON own.id = names.renamed_to WHERE names.name = ?"
        if new := self.connection.value(renamed, (name,)):
            return f"It was renamed to {new!r}"
        other, _, word = name.rpartition(":")
        if word in ("current", "latest") and self.connection.value("SELECT 1 FROM models WHERE name = ?", (other,)):
            return f"{other!r} alone is its current version"
        return ""

    def _explain_deletion(self, reference: Reference) -> str:
        """Return advice for a version that does not exist, if the model once had it."""
        had = self.connection.value("SELECT 1 FROM names WHERE name = ? AND versions >= ?", reference)
        return "It was deleted; see `views-runs model history`" if had and reference.version else ""

    def no_alias(self, name: str, alias: str) -> StorageError:
        """Return the error for an alias that a model does not have."""
        select = "SELECT alias FROM aliases JOIN names ON names.id = aliases.model WHERE name = ? ORDER BY alias"
        aliases = [alias for (alias,) in self.connection.rows(select, (name,))]
        if not self.connection.value("SELECT 1 FROM models WHERE name = ?", (name,)):
            return self.not_found(Reference(name))
        has = f"It has {', '.join(map(repr, aliases))}" if aliases else "Set one with `views-runs model alias`"
        if alias.casefold() in names.NO_ALIASES:
            has = f"{name!r} alone is its current version"
        return AliasNotFoundError(f"the model {name!r} has no alias {alias!r}", has)

    def _refuse_other(self, reference: Reference, name: str, version: int) -> None:
        """Raise an error if an index has led to the wrong row."""
        if name != reference.name or reference.version not in (None, version):
            raise StoreDamagedError(
                f"an index of the file is damaged: it leads from {str(reference)!r} to another model",
                "Restore the file from a backup, or run REINDEX on it with sqlite3",
            )


def describe(record: ModelRecord) -> str:
    """Return when and by whom a version was stored, for a message."""
    when = f"{record.stored_at:%Y-%m-%d %H:%M} UTC"
    return f"version {record.version}, stored {when} by {printable(record.stored_by)}"


def refuse_other_digest(stored: Stored, listed: object) -> None:
    """Raise an error if the digest of a row is not that in the index of records."""
    if stored.sha256 != listed:
        raise StoreDamagedError(
            "the digest of the pickle differs between the model's row and the index",
            "Run `views-runs model verify`, and restore the file from a backup",
        )


def _read_required(rows: list[tuple[Any, ...]]) -> list[str]:
    # SQLite removes a condition that a column is not NULL if its table says so.
    if (None,) in rows:
        raise StoreDamagedError("the table required_fields is damaged", "Restore the file from a backup")
    return [field for (field,) in rows]


def _refuse_incomplete(metadata: Metadata | None, rows: list[tuple[Any, ...]]) -> None:
    required = _read_required(rows)
    lacking = missing_fields(required, metadata)
    if lacking:
        raise InvalidMetadataError(
            f"this store requires {' and '.join(map(printable, required))} in the metadata; "
            f"missing: {', '.join(map(printable, lacking))}",
            lacking[0],
            "Add what is missing; nothing was changed",
        )
