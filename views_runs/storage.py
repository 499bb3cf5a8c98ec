"""`Storage`: models by name, with their metadata, in one SQLite file."""

import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast, Literal, TypeVar

from views_runs import files, names, query
from views_runs.database import rows, schema, uploads
from views_runs.pickles import loading, opcodes, packages, permissions, pickle_files, pickling, trust
from views_runs.database.connection import Connection
from views_runs.exceptions import (
    BackupError,
    DownloadError,
    InvalidMetadataError,
    InvalidPathError,
    MetadataExistsError,
    MetadataNotFoundError,
    ModelExistsError,
    ModelNotFoundError,
    QueryError,
    StorageError,
    StoreDamagedError,
    UntrustedModelError,
)
from views_runs.pickles.loadability import Verdict, verdict
from views_runs.metadata import (
    Metadata,
    ModelMetadata,
    check,
    decode,
    encode,
    equivalent,
    lacking,
    missing,
    round_trip,
)
from views_runs.records import Backup, Decided, Finding, ModelRecord, Verification

__all__ = ["ModelMetadata", "ModelRecord", "Storage", "fetch_metadata", "retrieve", "store"]

T = TypeVar("T")

#: What a script is called that runs, also in the processes that multiprocessing spawns.
MAIN = ("__main__", "__mp_main__")

log = logging.getLogger("views_runs")

#: With at least so many models an index no longer narrows the search: reading all in the order of storing does as well.
MOST_HITS = 2000


class Storage:
    """A store of trained models in one SQLite file.

    Wherever a name is taken, ``NAME:VERSION`` names one version. Any number of processes, threads and computers may
    use one file at once: each operation opens the file and closes it again.

    Args:
        path: the file. Without it, ``$VIEWS_RUNS_STORE``; without that, ``models.db`` in the user's data folder.
        timeout: for how many seconds to wait while another program keeps the file locked.
        trusted: hold every fetch to the user's own list of what models may import (``viewser model trust``).
            ``$VIEWS_RUNS_TRUSTED_ONLY=1`` does so too.
        allow_open_permissions: fetch also from a store that everyone on the system may write.
            ``$VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS=1`` does so too.

    Raises:
        InvalidPathError: the path cannot be a file's.
        StorageError: no path was given, and there is no home folder.

    >>> store = Storage("models.db")
    >>> store.store("my-model", {"any": "object"}, {"author": "testuser"}).version
    1
    >>> store.fetch("my-model")
    {'any': 'object'}
    >>> store.list()
    ['my-model']
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 120.0,
        trusted: bool = False,
        allow_open_permissions: bool = False,
    ) -> None:
        given = path if path is not None else os.environ.get("VIEWS_RUNS_STORE") or None
        #: The file, as an absolute path.
        self.path = schema.default_path() if given is None else _absolute(given)
        #: For how many seconds an operation waits for a lock.
        self.timeout = timeout
        #: Whether every fetch is held to the user's own list.
        self.trusted = trusted or trust.is_asked_for("VIEWS_RUNS_TRUSTED_ONLY")
        self._allows_open_permissions = allow_open_permissions or trust.is_asked_for(
            "VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS"
        )
        self._is_default = given is None
        self._decided_by = Decided.GIVEN if path is not None else Decided.ENVIRONMENT if given else Decided.DEFAULT

    def __repr__(self) -> str:
        return f"Storage({str(self.path)!r})"

    def store(self, name: str, model: Any, metadata: Any = None, overwrite: bool = False) -> ModelRecord:
        """Store a model, and return the record of it once it is safely there.

        This makes the file if it is not there yet (but not its folder, unless it is the default one).

        Args:
            name: up to 255 characters; no control characters, and no colon with a number at the end.
            model: any object that can be pickled, of any size.
            metadata: a dict, a `ModelMetadata`, a dataclass or a pydantic model.
            overwrite: when there is a model of this name, add a version and make it current. The version
                before it stays.

        Raises:
            ModelExistsError: there is a model of this name, and ``overwrite`` is false.
            InvalidNameError, InvalidMetadataError, ModelPickleError: it cannot be stored; the file is as it was.
            StorageError: the file cannot be written.

        >>> Storage("models.db").store("forest", [1, 2, 3], {"train_end": 480}).metadata.train_end
        480
        """
        return self._store(name, model, metadata, lambda current: overwrite)

    def fetch_or_train(self, name: str, train: Callable[[], T], metadata: Any, retrain: bool = False) -> T:
        """Return the stored model if it was trained as is needed now; train and store it otherwise.

        Which of the two, and why, is logged by the logger ``views_runs`` at level INFO: for instance that
        ``train_end 480 -> 492`` differs.

        Args:
            name: of the model.
            train: called without arguments when the model has to be trained; returns it.
            metadata: what the model has to have been trained with, as `exists_with_metadata` compares it; stored with
                the model that is trained.
            retrain: train in any case.

        Raises:
            StorageError: the store cannot be used; before the training, if that can be known. If storing the trained
                model failed, the error has it as ``.model``.

        >>> store = Storage("models.db")
        >>> store.fetch_or_train("forest", lambda: "trained", {"train_end": 480})
        'trained'
        >>> store.fetch_or_train("forest", lambda: "trained again", {"train_end": 480})
        'trained'
        >>> store.fetch_or_train("forest", lambda: "trained again", {"train_end": 492})
        'trained again'
        """
        metadata = {} if metadata is None else metadata
        version = self._equivalent_version(name, metadata, retrain)
        if version is not None:
            with suppress(ModelNotFoundError):
                return cast(T, self.fetch(name, version))
            log.info("training %s: it was deleted meanwhile", name)
        model = train()
        try:
            self._store(name, model, metadata, lambda current: retrain or not equivalent(current.metadata, metadata))
        except ModelExistsError:
            log.info("another process stored an equivalent %s meanwhile; the one trained here is returned", name)
        except BaseException as error:
            # It may have taken hours to train.
            error.model = model  # type: ignore[attr-defined]
            raise
        return model

    def _equivalent_version(self, name: str, metadata: Any, retrain: bool) -> int | None:
        """Return the current version if it is equivalent; log what is going to happen, and why."""
        doing = f"store {name!r}"
        name = names.new_name(name)
        columns = _encode(metadata, doing)
        # The file is made and checked now: training may take hours.
        with self._connect(doing, create=True) as connection:
            record = None if retrain else rows.find(connection, name, None)
            if record is not None and equivalent(record.metadata, metadata):
                log.info("fetching %s, version %s, from %s", name, record.version, self.path)
                return record.version
            with connection.transaction():
                # A store that may not be written says so here.
                self._refuse_incomplete(connection, columns)
        if retrain:
            log.info("training %s: retrain=True", name)
        elif record is None:
            log.info("training %s: there is no such model in %s", name, self.path)
        else:
            shown = (f"{field} {old} -> {new}" for field, old, new in lacking(record.metadata, metadata))
            log.info("training %s: %s", name, ", ".join(shown) or "it has no metadata")
        return None

    def _store(self, name: str, model: Any, metadata: Any, may_replace: Callable[[ModelRecord], bool]) -> ModelRecord:
        def write(sink: Callable[[pickling.Part], None], doing: str) -> tuple[pickling.PartWriter, opcodes.Reading]:
            reader = opcodes.Reader()

            def read_too(part: pickling.Part) -> None:
                reader.feed(part.data)
                sink(part)

            return pickling.dump(model, read_too, doing), reader.result()

        def describe(reading: opcodes.Reading) -> dict[str, Any]:
            _warn_of_main(name, reading)
            return _environment(model, reading)

        return self._put(name, metadata, may_replace, write, describe)

    def _put(
        self,
        name: str,
        metadata: Any,
        may_replace: Callable[[ModelRecord], bool],
        write: Callable[[Callable[[pickling.Part], None], str], tuple[pickling.PartWriter, opcodes.Reading]],
        describe: Callable[[opcodes.Reading], dict[str, Any]],
    ) -> ModelRecord:
        """Store a pickle.

        Args:
            write: writes it to a sink for its parts, and reads what it imports.
            describe: returns what to record of it, by what its bytes say.
        """
        doing = f"store {name!r}"
        name = names.new_name(name)
        columns = _encode(metadata, doing)
        self._refuse_early(name, columns, may_replace, doing)
        with uploads.Upload(lambda: self._connect(doing, create=True)) as upload:
            writer, reading = write(upload.add, doing)
            environment = json.dumps(describe(reading))
            upload.flush()
            return self._publish(upload, name, writer, columns, environment, may_replace)

    def upload(
        self, path: str | os.PathLike[str], name: str, metadata: Any = None, overwrite: bool = False
    ) -> ModelRecord:
        """Store a pickle file from elsewhere, its bytes as they are, without unpickling it; return its record.

        Args:
            path: the file. It is read once, and little memory is used.
            name, metadata, overwrite: as for `store`.

        Raises:
            UploadError: the file is not a pickle, or cannot be read; nothing was stored.
            StorageError: as for `store`.

        >>> import pickle
        >>> _ = Path("forest.pickle").write_bytes(pickle.dumps([1, 2, 3]))
        >>> store = Storage("models.db")
        >>> store.upload("forest.pickle", "forest", {"author": "testuser"}).size
        22
        >>> store.fetch("forest")
        [1, 2, 3]
        """

        def write(sink: Callable[[pickling.Part], None], doing: str) -> tuple[pickling.PartWriter, opcodes.Reading]:
            return pickle_files.copy(path, self.path, sink, doing)

        def describe(reading: opcodes.Reading) -> dict[str, Any]:
            defined = sorted(str(found) for found in reading.imports if found.module in MAIN)
            if defined:
                log.warning("%s needs %s: it can be fetched only where that is defined", name, ", ".join(defined))
            return pickle_files.description(reading)

        return self._put(name, metadata, lambda current: overwrite, write, describe)

    def fetch(
        self,
        name: str,
        version: int | None = None,
        *,
        trusted: Iterable[str] | Literal[True] | None = None,
        sha256: str | None = None,
    ) -> Any:
        """Return a stored model: the current version of it, or the one asked for.

        Unpickling runs code that the pickle names: fetch from stores whose writers you trust, or say what to trust. Each
        part is verified before it is unpickled.

        Args:
            name: of the model.
            version: which version; without it, the current one.
            trusted: what the pickle may import, each ``module.name`` (``module:name`` if the name has dots), and nothing
                else; True for what is on the user's own list. It is read to its end first.
            sha256: what its bytes must be, in hexadecimal. They are read to their end first.

        Raises:
            ModelNotFoundError: it is not there, or was deleted while it was being read.
            CorruptModelError: its bytes are damaged.
            ModelLoadError: it cannot be unpickled here; if a module is missing, nothing was unpickled.
            UntrustedModelError: it would import something else, or it cannot be told what; nothing was unpickled.
            DigestMismatchError: its bytes are others; nothing was unpickled.
            OpenPermissionsError: everyone on the system may write the store.

        >>> store = Storage("models.db")
        >>> store.store("forest", [1, 2, 3]).version, store.store("forest", [4], overwrite=True).version
        (1, 2)
        >>> store.fetch("forest"), store.fetch("forest:1"), store.fetch("forest", version=1)
        ([4], [1, 2, 3], [1, 2, 3])
        >>> store.fetch("forest", trusted=[], sha256=store.inspect("forest").sha256)
        [4]
        """
        with self._open(f"fetch {name!r}", name, version) as (connection, name, version):
            if sha256 is None and not self._allows_open_permissions:
                permissions.refuse_open(connection.path)
            stored = rows.stored(connection, name, version)
            return loading.load(connection, stored, self._trusted_imports(connection, trusted), sha256)

    def _trusted_imports(
        self, connection: Connection, trusted: Iterable[str] | Literal[True] | None
    ) -> frozenset[opcodes.Import] | None:
        """Return what a fetch is held to; None for nothing."""
        own = trust.listed() if self.trusted or trusted is True else None
        if trusted is None or trusted is True:
            return own
        try:
            listed = trust.parsed(trusted)
            # Whoever asked that every fetch is held to their own list is not asked here again.
            return listed if own is None else listed & own
        except (ValueError, TypeError, AttributeError) as error:
            raise connection.failure(
                UntrustedModelError, f"the list of what is trusted cannot be read: {error}"
            ) from error

    def retrieve(self, name: str, version: int | None = None) -> Any:
        """Return a stored model: the older name of `fetch`."""
        return self.fetch(name, version)

    def inspect(self, name: str, version: int | None = None) -> ModelRecord:
        """Return what is known of a model, without unpickling it.

        What it imports is read from its bytes, to their end, and is not what was recorded.

        Raises:
            ModelNotFoundError: it is not there.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.inspect("forest") == record
        True
        """
        with self._open(f"inspect {name!r}", name, version) as (connection, name, version):
            record = rows.record(connection, name, version)
            with suppress(ModelNotFoundError):
                # Deleted meanwhile: what was recorded is all there is to tell.
                stored = rows.stored(connection, record.name, record.version)
                record = rows.with_reading(record, rows.reading(connection, stored))
            return record

    def check(self, *models: str) -> "list[tuple[ModelRecord, Verdict]]":
        """Return the records of models, or of all current ones, each with whether it will load on this machine.

        Nothing is loaded or imported. What a model needs is what was recorded when it was stored; where nothing was, it
        is read from the bytes.

        Raises:
            ModelNotFoundError: there is no model of a name.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> [(record.name, verdict.verdict) for record, verdict in store.check()]
        [('forest', 'loads')]
        """
        found = [self._look_up(name) for name in models] if models else self.find()
        records = [self.inspect(one.name, one.version) if one.imports is None else one for one in found]
        # What is installed is looked up once, and not for each model.
        packages.forget()
        return [(record, verdict(record.needs())) for record in records]

    def find(
        self,
        *where: str,
        name: str | None = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        sort: str | None = None,
        limit: int | None = None,
        **fields: Any,
    ) -> "list[ModelRecord]":
        """Return the records of the models that meet all conditions, the last stored first.

        Args:
            where: conditions ``FIELD OP VALUE`` with one of ``= != < <= > >= ~`` (``~`` is a glob), ``FIELD`` (the model
                has it) or ``!FIELD`` (it lacks it, or it is null). ``a.b`` is the field ``b`` in ``a``. ``size``,
                ``stored_at``, ``stored_by``, ``version`` and ``type`` are the record's own; ``metadata.size`` is yours.
            name: a glob: ``*`` stands for any characters, ``?`` for one, ``[...]`` for one of these.
            since, until: when the model was stored; local time unless it has an offset, and a date is its whole day.
            all_versions: older versions too, and not the current ones alone.
            sort: a field, or ``-field`` for descending; models that lack it come last.
            limit: how many records at most.
            fields: metadata fields that are equal to a value, or to any of a list.

        Raises:
            QueryError: a condition cannot be read; the message points at the place.

        >>> store = Storage("models.db")
        >>> for month in 480, 492:
        ...     record = store.store(f"forest_{month}", [month], {"author": "testuser", "train_end": month})
        >>> [record.name for record in store.find("train_end > 2019-12", author="testuser")]
        ['forest_492']
        """
        wanted = query.conditions(where, fields) + query.stored_between(since, until)
        order = query.order(sort)
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryError(f"limit is how many records at most, 0 or more, not {limit!r}")
        if self._reads_as_empty():
            return []
        pieces = [condition.sql() for condition in wanted]
        if name is not None:
            pieces.append(query.glob_on_names(name))
        if not all_versions:
            pieces.append(query.SQL(f"models.version = {rows.NEWEST}"))
        with self._connect("find models") as connection:
            connection.function(query.compare_time, 3)
            tables, hit = self._narrowed(connection, wanted)
            where_all = query.all_of([*hit, *pieces])
            found = connection.rows(
                f"SELECT {rows.COLUMNS} FROM {tables}"
                f"{' WHERE ' if where_all else ''}{where_all.text} ORDER BY {order.text} LIMIT ?",
                (*where_all.parameters, *order.parameters, -1 if limit is None else min(limit, names.MAX_INTEGER)),
            )
        return [rows.as_record(row, self.path) for row in found]

    def _narrowed(self, connection: Connection, wanted: "list[query.Condition]") -> "tuple[str, list[query.SQL]]":
        """Choose the index that leaves the fewest models to look at; return the tables, and the condition on it.

        SQLite would choose without knowing how many there are; and would read the rows, with their pickles, where the
        index models_record has all that is asked for.
        """
        counts: list[tuple[int, int, query.SQL]] = []
        for condition in wanted:
            sql = condition.index_sql("hit")
            if sql:
                counted = f"SELECT count(*) FROM (SELECT 1 FROM models AS hit WHERE {sql.text} LIMIT {MOST_HITS})"
                counts.append((connection.value(counted, sql.parameters), len(counts), sql))
        fewest = min(counts, default=None, key=lambda one: one[:2])
        if fewest is None or fewest[0] >= MOST_HITS:
            return rows.TABLE, []
        return f"models AS hit CROSS JOIN {rows.TABLE}", [fewest[2], query.SQL("models.id = hit.id")]

    def versions(self, name: str) -> "list[ModelRecord]":
        """Return the records of all versions of a model, the highest first.

        Raises:
            ModelNotFoundError: there is none.
        """
        with self._open(f"inspect {name!r}", name, None) as (connection, name, version):
            found = connection.rows(f"{rows.SELECT} WHERE name = ? ORDER BY version DESC", (name,))
            if version is not None:
                found = [row for row in found if row[1] == version]
            if not found:
                raise rows.not_found(connection, name, version)
            return [rows.as_record(row, self.path) for row in found]

    def exists(self, name: str) -> bool:
        """Whether there is a model of this name.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.exists("forest"), store.exists("forest:2"), store.exists("boosted")
        (True, False, False)
        """
        return self._existing(name) is not None

    def exists_with_metadata(self, name: str, metadata: Any) -> bool:
        """Whether there is a model of this name whose metadata has every field given, equal.

        ``training_date`` does not count, nor do fields of the stored metadata that were not given; so leave out
        ``author`` and ``run_id`` where a model that a colleague or an earlier run trained will do.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], {"author": "testuser", "train_end": 480})
        >>> store.exists_with_metadata("forest", {"author": "testuser"})
        True
        >>> store.exists_with_metadata("forest", {"author": "testuser", "train_end": 492})
        False
        """
        wanted = rows.decoded(*_encode({} if metadata is None else metadata, f"look up {name!r}"))
        record = self._existing(name)
        return record is not None and equivalent(record.metadata, wanted)

    def has_metadata(self, name: str) -> bool:
        """Whether there is a model of this name, and metadata with it."""
        record = self._existing(name)
        return record is not None and record.metadata is not None

    def fetch_metadata(self, name: str, version: int | None = None) -> Metadata:
        """Return the metadata of a model: a dict whose known fields are attributes too.

        Raises:
            ModelNotFoundError: the model is not there.
            MetadataNotFoundError: it has no metadata.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], ModelMetadata(author="testuser"))
        >>> store.fetch_metadata("forest")
        {'author': 'testuser'}
        """
        doing = f"fetch the metadata of {name!r}"
        with self._open(doing, name, version) as (connection, name, version):
            record = rows.record(connection, name, version)
            if record.metadata is None:
                raise connection.failure(
                    MetadataNotFoundError,
                    "the model is there, but was stored without metadata. Add some with store_metadata(name, metadata)",
                )
            return record.metadata

    def store_metadata(
        self, name: str, metadata: Any, overwrite: bool = False, version: int | None = None
    ) -> ModelRecord:
        """Give metadata to a model that is there, and return its new record.

        Args:
            name: of the model.
            metadata: as `store` takes it.
            overwrite: replace the metadata that the model has.
            version: which version; without it, the current one.

        Raises:
            ModelNotFoundError: the model is not there.
            MetadataExistsError: it has metadata, and ``overwrite`` is false.
            InvalidMetadataError: this metadata would not come back as it was given.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.store_metadata("forest", {"author": "testuser"}).metadata
        {'author': 'testuser'}
        """
        doing = f"store the metadata of {name!r}"
        columns = _encode(metadata, doing)
        with self._open(doing, name, version) as (connection, name, version), connection.transaction():
            record = rows.record(connection, name, version)
            if not overwrite and self._has_any_metadata(connection, record):
                raise connection.failure(MetadataExistsError, "the model has metadata. Replace it with overwrite=True")
            return self._set_metadata(connection, record, columns)

    def annotate(self, name: str, version: int | None = None, unset: Iterable[str] = (), **fields: Any) -> ModelRecord:
        """Change some fields of a model's metadata, keep the others, and return the model's new record.

        Two that annotate one model at once both have their say.

        Args:
            name: of the model.
            version: which version; without it, the current one.
            unset: fields to remove.
            fields: fields to set.

        Raises:
            ModelNotFoundError: the model is not there.
            InvalidMetadataError: a field cannot have this value, is required, or is to be removed and is not there.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], {"author": "testuser", "note": "draft"})
        >>> store.annotate("forest", train_end=480, unset=["note"]).metadata
        {'author': 'testuser', 'train_end': 480}
        """
        return self.annotate_fields(name, fields, unset, version)

    def annotate_fields(
        self, name: str, fields: dict[str, Any], unset: Iterable[str] = (), version: int | None = None
    ) -> ModelRecord:
        """Do what `annotate` does, with fields of any name: also ``name``, ``version`` and ``unset``.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.annotate_fields("forest", {"version": "2 of the paper"}).metadata
        {'version': '2 of the paper'}
        """
        doing = f"annotate {name!r}"
        _encode(fields, doing)
        with self._open(doing, name, version) as (connection, name, version), connection.transaction():
            record = rows.record(connection, name, version)
            if record.metadata is None and self._has_any_metadata(connection, record):
                raise connection.failure(InvalidMetadataError, "another program wrote metadata that is not an object")
            metadata = dict(record.metadata or {})
            for field in [unset] if isinstance(unset, str) else unset:
                if field not in metadata:
                    trouble = f"its metadata has no field {field!r} to remove; it has {', '.join(metadata) or 'none'}"
                    raise connection.failure(InvalidMetadataError, trouble)
                del metadata[field]
            return self._set_metadata(connection, record, _encode({**metadata, **fields}, doing))

    def require(self, *fields: str) -> None:
        """Set the metadata fields that every model in this file must have from now on; without any, none.

        Everyone who uses the file is held to them. Models that are there already stay; `incomplete` returns those that
        lack a field.

        Raises:
            InvalidMetadataError: that cannot be the name of a field.

        >>> store = Storage("models.db")
        >>> store.require("author", "run_id")
        >>> store.required()
        ['author', 'run_id']
        >>> store.store("forest", [1, 2, 3], {"author": "testuser"})
        Traceback (most recent call last):
        views_runs.exceptions.InvalidMetadataError: ...
        """
        for field in fields:
            if not isinstance(field, str) or not field or not field.isprintable():
                raise InvalidMetadataError(f"{field!r} cannot be the name of a metadata field that is required")
        with self._connect("set the required fields", create=True) as connection, connection.transaction():
            connection.change("DELETE FROM required_fields")
            for field in dict.fromkeys(fields):
                connection.change("INSERT INTO required_fields (field) VALUES (?)", (field,))

    def required(self) -> "list[str]":
        """Return the metadata fields that every model in this file must have, in alphabetical order."""
        if self._reads_as_empty():
            return []
        with self._connect("look up the required fields") as connection:
            return _required(connection)

    def incomplete(self) -> "list[ModelRecord]":
        """Return the records of all models and versions that lack a required field, the last stored first."""
        required = self.required()
        if not required:
            return []
        return [record for record in self.find(all_versions=True) if missing(required, record.metadata)]

    def diff(self, name: str, other: str | None = None) -> tuple[ModelRecord, ModelRecord]:
        """Return the records of two models, or of a version and the one before it, to be compared.

        Args:
            name: of a model or a version.
            other: of another; without it, the first record is of the version before that of `name`.

        Raises:
            ModelNotFoundError: one is not there, or there is no version before.

        >>> store = Storage("models.db")
        >>> for month in 480, 492:
        ...     record = store.store("forest", [month], {"train_end": month}, overwrite=True)
        >>> [record.metadata for record in store.diff("forest")]
        [{'train_end': 480}, {'train_end': 492}]
        """
        record = self._look_up(name)
        if other is not None:
            return record, self._look_up(other)
        before = [one for one in self.versions(record.name) if one.version < record.version]
        if not before:
            raise ModelNotFoundError(
                f"cannot compare {name!r}: {self.path}: there is no version before {record.version}; name another model"
            )
        return before[0], record

    def delete(self, name: str, version: int | None = None) -> ModelRecord | None:
        """Delete a model with all its versions, or one version of it.

        The space can be used again at once; then it is given back to the disk in small steps.

        Returns:
            The record of the version that is current now; None when none is left.

        Raises:
            ModelNotFoundError: it is not there.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> record = store.store("forest", [4, 5, 6], overwrite=True)
        >>> store.delete("forest:2").version
        1
        >>> store.delete("forest")
        """
        with self._open(f"delete {name!r}", name, version) as (connection, name, version):
            found = connection.rows("SELECT id, version FROM models WHERE name = ? ORDER BY version", (name,))
            doomed = [row[0] for row in found if version in (None, row[1])]
            if not doomed:
                raise rows.not_found(connection, name, version)
            for model in doomed:
                self._delete_row(connection, name, model)
            try:
                uploads.clear_leftovers(connection)
                uploads.give_back(connection)
            except StorageError as error:
                # The models are gone; what is left of them is cleared by whoever stores or deletes next.
                log.warning("deleted %s, but could not give all its space back: %s", name, error)
            return rows.find(connection, name, None)

    def write_pickle(self, name: str, file: BinaryIO, version: int | None = None) -> ModelRecord:
        """Write the bytes of a model's pickle to an open binary file, without unpickling them.

        Raises:
            ModelNotFoundError: the model is not there, or was deleted while it was being read.
            CorruptModelError: its bytes are damaged; what was written before is whole.

        >>> import io
        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> file = io.BytesIO()
        >>> store.write_pickle("forest", file).size == len(file.getvalue())
        True
        """
        with self._open(f"download {name!r}", name, version) as (connection, name, version):
            record = rows.record(connection, name, version)
            with closing(rows.pieces(connection, rows.stored(connection, name, record.version))) as pieces:
                for piece in pieces:
                    _write_all(file, piece)
            return record

    def download(
        self,
        name: str,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        version: int | None = None,
    ) -> Path:
        """Write a model's pickle to a file, without unpickling it, and return the file's path.

        Args:
            name: of the model.
            file: where to; a folder, for a file named after the model in it; without it, in the current folder.
            overwrite: replace a file that is there.
            version: which version; without it, the current one.

        Raises:
            DownloadError: the file is there, or cannot be written, or is the store itself.
            ModelNotFoundError, CorruptModelError: as `write_pickle`.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.download("forest").name
        'forest.pickle'
        """
        reference = name if version is None else f"{name}:{version}"
        doing = f"download {reference!r}"
        target = files.target(file, names.file_name(reference), self.path, overwrite, DownloadError, doing)
        with files.written(target, overwrite, DownloadError, doing) as beside, beside.open("wb") as stream:
            self.write_pickle(reference, stream)
        return target

    def verify(self, *models: str, progress: Callable[[int, int], object] | None = None) -> Verification:
        """Read models to their end and hold every byte against the digests that were stored with it.

        Nothing is unpickled, little memory is used, and others can store meanwhile.

        Args:
            models: which, with all versions, or ``NAME:VERSION``; without any, all.
            progress: called with the bytes read so far, and how many there are.

        Returns:
            How many versions were read, and those that are damaged.

        Raises:
            ModelNotFoundError: there is no model of a name.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.verify().versions, store.verify("forest").damaged
        (1, ())
        """
        # What few need is imported when it is needed: `list` is to begin at once.
        from views_runs.database import verification

        references = [names.reference(model, None) for model in models]
        if not references and self._reads_as_empty():
            return Verification(0, 0, ())
        self._need_a_store("verify")
        with self._connect("verify") as connection:
            found = verification.chosen(connection, references)
            result = verification.verify(connection, found, _Counter(verification.total(found), progress).add)
            tables = () if references else verification.damaged_tables(connection)
            return replace(result, damaged=(*result.damaged, *tables))

    def backup(
        self,
        file: str | os.PathLike[str],
        overwrite: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> Backup:
        """Copy the whole store, as it is at one moment, to another file, and verify the copy.

        Others can store and delete meanwhile. The copy is a store too; versions and their numbers are the same.

        Args:
            file: where to; a folder, for a file of the store's name in it.
            overwrite: replace a file that is there.
            progress: called with the bytes copied and read back so far, and how many there are.

        Returns:
            What was copied, and what was not: a version that was deleted meanwhile, or one that is damaged.

        Raises:
            BackupError: the file is there, or cannot be written, or is the store itself.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.backup("copy.db").versions
        1
        >>> Storage("copy.db").fetch("forest")
        [1, 2, 3]
        """
        from views_runs.database import backup, verification

        doing = f"back up {self.path}"
        target = files.target(file, self.path.name, self.path, overwrite, BackupError, doing).absolute()
        with self._connect(doing) as connection:
            counter = _Counter(2 * verification.total(verification.chosen(connection, ())), progress)
            return backup.back_up(connection, target, overwrite, counter.add)

    def doctor(self, peer: bool = False, say: Callable[[str], object] | None = None) -> "list[Finding]":
        """Look at the file, its journal, its folder and its file system, and return what there is to say of each.

        Whatever is there, this raises nothing, and without `peer` it returns at once. `verify` reads the models too.

        Args:
            peer: wait for another computer that does this for the same store within a minute; both commit to a
                scratch database beside it, and count what arrives of what was acknowledged.
            say: called with what goes on meanwhile, in words; without it, the logger ``views_runs``.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> {finding.state for finding in store.doctor() if finding.topic in ("store", "file", "leftovers")}
        {'ok'}
        """
        from views_runs.health import doctor

        return doctor.examine(self.path, self._decided_by, (say or log.info) if peer else None)

    @contextmanager
    def _open(self, doing: str, name: str, version: int | None) -> Iterator[tuple[Connection, str, int | None]]:
        """Open the store to do something with one model; yield the model's name and version too."""
        name, version = names.reference(name, version)
        self._need_a_store(doing)
        with self._connect(doing) as connection:
            yield connection, name, version

    def _need_a_store(self, doing: str) -> None:
        if self._reads_as_empty():
            raise ModelNotFoundError(
                f"cannot {doing}: there is no store yet at {self.path}; the first model stored makes it"
            )

    def _connect(self, doing: str, create: bool = False) -> Connection:
        if create and self._is_default:
            schema.make_folder(self.path.parent, doing)
        return schema.connect(self.path, doing, self.timeout, create, uploads.writers)

    def _reads_as_empty(self) -> bool:
        # Only the default file may be missing: a given one that is not there may be on a share that is not mounted.
        return self._is_default and not schema.exists(self.path, "look at the default store")

    def _look_up(self, name: str) -> ModelRecord:
        with self._open(f"inspect {name!r}", name, None) as (connection, name, version):
            return rows.record(connection, name, version)

    def _existing(self, name: str) -> ModelRecord | None:
        name, version = names.reference(name, None)
        if self._reads_as_empty():
            return None
        with self._connect(f"look up {name!r}") as connection:
            return rows.find(connection, name, version)

    def _refuse_early(
        self,
        name: str,
        columns: tuple[str | None, str | None],
        may_replace: Callable[[ModelRecord], bool],
        doing: str,
    ) -> None:
        """Raise before the pickling, which may take hours, what would be raised after it."""
        if not schema.exists(self.path, doing) or not self.path.stat().st_size:
            return
        with self._connect(doing, create=True) as connection:
            self._refuse_incomplete(connection, columns)
            self._refuse_existing(connection, name, may_replace)

    def _refuse_incomplete(self, connection: Connection, columns: tuple[str | None, str | None]) -> None:
        """Hold metadata to the fields that this file requires."""
        metadata = None if columns[0] is None else decode(columns[0], columns[1])
        required = _required(connection)
        lacks = missing(required, metadata)
        if lacks:
            error = connection.failure(
                InvalidMetadataError,
                f"every model in this store must have the metadata {' and '.join(required)}, and this one has no "
                f"{' and no '.join(lacks)}. Give it in the metadata; nothing was changed",
            )
            raise InvalidMetadataError(str(error), lacks[0])

    def _refuse_existing(self, connection: Connection, name: str, may_replace: Callable[[ModelRecord], bool]) -> None:
        record = rows.find(connection, name, None)
        if record is None or may_replace(record):
            return
        raise connection.failure(
            ModelExistsError,
            f"there is a model of this name, version {record.version}, stored {record.stored_at:%Y-%m-%d %H:%M} UTC by "
            f"{record.stored_by}. Take another name, or add a version with overwrite=True; nothing was stored",
        )

    def _publish(
        self,
        upload: uploads.Upload,
        name: str,
        writer: pickling.PartWriter,
        columns: tuple[str | None, str | None],
        environment: str,
        may_replace: Callable[[ModelRecord], bool],
    ) -> ModelRecord:
        """Make the model's row, in one small transaction."""
        assert upload.first is not None
        connection = upload.connection
        with connection.transaction():
            self._refuse_incomplete(connection, columns)
            self._refuse_existing(connection, name, may_replace)
            upload.publish()
            version = connection.value(
                "INSERT INTO names (name, versions) VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET versions = versions + 1 RETURNING versions",
                (name,),
            )
            stored = (name, version, _now(), uploads.this_user(), *columns, environment)
            whole = (writer.size, writer.sha256, upload.first.digest, upload.id, upload.first.data)
            connection.change(
                "INSERT INTO models (name, version, stored_at, stored_by, metadata, datetimes, environment, "
                "size, sha256, digest, upload, pickle) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                stored + whole,
            )
            return rows.record(connection, name, version)

    def _set_metadata(
        self, connection: Connection, record: ModelRecord, columns: tuple[str | None, str | None]
    ) -> ModelRecord:
        """Give a model other metadata, in a transaction."""
        self._refuse_incomplete(connection, columns)
        connection.change(
            "UPDATE models SET metadata = ?, datetimes = ? WHERE name = ? AND version = ?",
            (*columns, record.name, record.version),
        )
        return rows.record(connection, record.name, record.version)

    def _has_any_metadata(self, connection: Connection, record: ModelRecord) -> bool:
        """Whether the column holds something; another program may have written what is not an object."""
        found = "SELECT 1 FROM models WHERE name = ? AND version = ? AND metadata IS NOT NULL"
        return connection.row(found, (record.name, record.version)) is not None

    def _delete_row(self, connection: Connection, name: str, model: int) -> None:
        # A transaction for each version, so that its journal fits in what is reserved on a full disk.
        with connection.transaction():
            upload = connection.value("SELECT upload FROM models WHERE id = ?", (model,))
            if not connection.change("DELETE FROM models NOT INDEXED WHERE id = ? AND name = ?", (model, name)):
                if connection.row("SELECT 1 FROM models NOT INDEXED WHERE id = ?", (model,)):
                    raise connection.failure(StoreDamagedError, rows.MISLED.format(name))
                return
            if upload is not None:
                uploads.condemn_published(connection, upload)

    # Defined last: from here on `list` is the method, also in annotations.
    def list(self, *where: str, **options: Any) -> list[str]:
        """Return the names of the models that `find` returns the records of; it takes the same.

        >>> store = Storage("models.db")
        >>> for model in "forest", "boosted":
        ...     record = store.store(model, model)
        >>> store.list(), store.list(name="f*")
        (['boosted', 'forest'], ['forest'])
        """
        return [record.name for record in self.find(*where, **options)]


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the path as SQLite is to get it; refuse what names no file."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise InvalidPathError(f"the path of a store is a string or a Path, not {text!r}")
    if not text or "\0" in text:
        raise InvalidPathError(f"{text!r} cannot be the path of a store: give a file, as in Storage('models.db')")
    if text == ":memory:":
        raise InvalidPathError("a store is a file, so ':memory:' cannot be one: give a file in a temporary folder")
    # Not resolved: SQLite follows links itself, and the messages show the path that was given.
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))
    except OSError as error:
        raise InvalidPathError(f"{text!r} is relative to a folder that is gone: {error.strerror}") from error


def _encode(metadata: Any, doing: str) -> tuple[str | None, str | None]:
    if metadata is None:
        return None, None
    try:
        check(round_trip(metadata))
        return encode(metadata)
    except InvalidMetadataError as error:
        raise InvalidMetadataError(f"cannot {doing}: {error}; nothing was changed", error.key) from error


def _required(connection: Connection) -> list[str]:
    return [row[0] for row in connection.rows("SELECT field FROM required_fields ORDER BY field")]


def _environment(model: Any, reading: opcodes.Reading) -> dict[str, Any]:
    suppliers = packages.suppliers(name.split(".")[0] for name in reading.modules)
    return {
        "type": pickling.type_name(model),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{sys.platform}-{platform.machine()}",
        "protocol": pickling.PROTOCOL,
        **rows.imported(reading),
        "packages": packages.versions(suppliers.values()),
        "suppliers": suppliers,
    }


def _warn_of_main(name: str, reading: opcodes.Reading) -> None:
    defined = sorted(found.name for found in reading.imports if found.module in MAIN)
    if defined:
        warnings.warn(
            f"{name!r} needs {', '.join(defined)}, defined in the script that runs now: it can be fetched only where "
            "__main__ has that too. Move it to a module that can be imported, and store the model again",
            stacklevel=6,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _write_all(file: BinaryIO, piece: memoryview) -> None:
    """Write to a file that may take less than it is given, as a raw one does."""
    while piece:
        written = file.write(piece)
        piece = piece[len(piece) if written is None else written :]


class _Counter:
    """Adds up what is done, and hands on how much that is, of how much."""

    def __init__(self, total: int, progress: Callable[[int, int], object] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress or (lambda done, total: None)
        self.add(0)

    def add(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)


def store(name: str, model: Any, metadata: Any = None, overwrite: bool = False) -> ModelRecord:
    """Store a model in the default store; `Storage.store` is the present way."""
    _warn("store")
    return Storage().store(name, model, metadata, overwrite)


def retrieve(name: str) -> Any:
    """Fetch a model from the default store; `Storage.fetch` is the present way."""
    _warn("retrieve")
    return Storage().fetch(name)


def fetch_metadata(name: str) -> Metadata:
    """Fetch a model's metadata from the default store; `Storage.fetch_metadata` is the present way."""
    _warn("fetch_metadata")
    return Storage().fetch_metadata(name)


def _list() -> list[str]:
    """Return the names of the models in the default store; `Storage.list` is the present way."""
    _warn("list")
    return Storage().list()


def __getattr__(name: str) -> Any:
    # So that `from views_runs.storage import list` works, and `list` is the builtin in this module.
    if name == "list":
        return _list
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _warn(name: str) -> None:
    warnings.warn(
        f"views_runs.storage.{name}() is deprecated: use views_runs.Storage().{name}()",
        DeprecationWarning,
        stacklevel=3,
    )
