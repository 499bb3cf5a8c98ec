"""`Storage` keeps models under their names, with metadata, in one SQLite file."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

from views_runs import files, names
from views_runs.database import history, naming, runs, selection
from views_runs.database.database import Database, find_default_path, get_status
from views_runs.database.uploads import Upload
from views_runs.exceptions import (
    BackupError,
    CorruptModelError,
    DownloadError,
    InvalidMetadataError,
    InvalidNameError,
    InvalidPathError,
    MetadataExistsError,
    MetadataNotFoundError,
    ModelExistsError,
    ModelNotFoundError,
    QueryError,
    StorageError,
    StoreDamagedError,
    UntrustedModelError,
    UploadError,
)
from views_runs.metadata import Metadata, ModelMetadata, is_equivalent, missing_fields, unmet_fields
from views_runs.query import Question, find_start
from views_runs.records import (
    Backup,
    Damage,
    Decided,
    Deletion,
    Disposition,
    Entry,
    Event,
    Finding,
    Lifetime,
    ModelRecord,
    Obtained,
    Reference,
    RunRecord,
    Verification,
    combine,
    encode,
)
from views_runs.texts import escape_record, printable, shell_line

# What deals with pickles is imported where it is needed: it would delay the start of `list` by a fifth.
if TYPE_CHECKING:
    from views_runs.pickles.loadability import Verdict
    from views_runs.pickles.parts import PickleWriter
    from views_runs.runs import Run

__all__ = ["ModelMetadata", "ModelRecord", "Storage", "fetch_metadata", "retrieve", "store"]

T = TypeVar("T")

log = logging.getLogger("views_runs")
# Scripts print what is logged, and it can contain what anyone wrote to the file.
log.addFilter(escape_record)


class Storage:
    """A store of trained models in one SQLite file.

    Wherever a name is expected, ``NAME:VERSION`` and ``NAME@ALIAS`` refer to one version. Any number of processes,
    threads and computers can use the same file at once: each operation opens the file and closes it again.

    If the file does not exist yet but its folder does, the store is treated as empty, and a warning with the path is
    logged. A missing folder is an error: the share may not be mounted.

    Args:
        path: the file; defaults to ``$VIEWS_RUNS_STORE`` or, if unset, to ``models.db`` in the user's data folder.
        timeout: seconds to wait while another program keeps the file locked.
        trusted: restrict every fetch to the user's own list of trusted imports (``views-runs model trust``). Setting
            ``VIEWS_RUNS_TRUSTED_ONLY=1`` has the same effect.
        allow_open_permissions: also fetch from a store that everyone on the system can write to. Setting
            ``VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS=1`` has the same effect.
        allow_unsafe_share: also write to an SMB share that is mounted with ``nobrl``; models are lost if another
            computer uses the file. Setting ``VIEWS_RUNS_ALLOW_UNSAFE_SHARE=1`` has the same effect.
        must_exist: treat a missing file as an error rather than as an empty store, except for the default store and
            when storing.

    Raises:
        InvalidPathError: the path is not valid for a file.
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
        allow_unsafe_share: bool = False,
        must_exist: bool = False,
    ) -> None:
        given = path if path is not None else os.environ.get("VIEWS_RUNS_STORE") or None
        #: The file, as an absolute path.
        self.path = find_default_path() if given is None else _make_absolute(given)
        #: Seconds that an operation waits for a lock.
        self.timeout = timeout
        #: Whether every fetch is restricted to the user's own list.
        self.trusted = trusted or _is_asked_for("VIEWS_RUNS_TRUSTED_ONLY")
        self._allows_open_permissions = allow_open_permissions or _is_asked_for("VIEWS_RUNS_ALLOW_OPEN_PERMISSIONS")
        self._allows_unsafe_share = allow_unsafe_share or _is_asked_for("VIEWS_RUNS_ALLOW_UNSAFE_SHARE")
        self._is_default = given is None
        self._must_exist = must_exist and not self._is_default
        #: The run that all operations belong to.
        self._run: str | None = None
        self._decided_by = Decided.GIVEN if path is not None else Decided.ENVIRONMENT if given else Decided.DEFAULT

    def __repr__(self) -> str:
        return f"Storage({str(self.path)!r})"

    def store(
        self, name: str, model: Any, metadata: Any = None, overwrite: bool = False, *, why: str | None = None
    ) -> ModelRecord:
        """Store a model, and return its record once it is safely on disk.

        The file is created if necessary; its folder is created only for the default store.

        Args:
            name: up to 255 characters; it must not contain control characters or @, or end in a colon and a number.
            model: any object that can be pickled, of any size.
            metadata: a dict, a `ModelMetadata`, a dataclass or a pydantic model.
            overwrite: if a model with this name exists, add a new current version and keep the earlier versions.
            why: the reason, for `log`.

        Raises:
            ModelExistsError: a model with this name exists, and ``overwrite`` is false.
            InvalidNameError, InvalidMetadataError, ModelPickleError: the model cannot be stored; nothing was changed.
            StorageError: the file cannot be written.

        >>> Storage("models.db").store("forest", [1, 2, 3], {"train_end": 480}).metadata.train_end
        480
        """
        return self._put(name, metadata, lambda writer: writer.dump(model), overwrite, why=why)

    def upload(
        self,
        path: str | os.PathLike[str],
        name: str,
        metadata: Any = None,
        overwrite: bool = False,
        *,
        why: str | None = None,
    ) -> ModelRecord:
        """Store an existing pickle file unchanged, without unpickling it, and return its record.

        Args:
            path: the file; it is read once, in small pieces.
            name, metadata, overwrite, why: as for `store`.

        Raises:
            UploadError: the file is not a pickle or cannot be read; nothing was stored.
            StorageError: as for `store`.

        >>> import pickle
        >>> _ = Path("forest.pickle").write_bytes(pickle.dumps([1, 2, 3]))
        >>> store = Storage("models.db")
        >>> store.upload("forest.pickle", "forest", {"author": "testuser"}).size
        22
        >>> store.fetch("forest")
        [1, 2, 3]
        """

        from views_runs.pickles import pickle_files

        def copy(writer: "PickleWriter") -> None:
            # Reading the store as a plain file, and closing it, would drop SQLite's locks on it.
            if files.is_same(path, self.path):
                raise UploadError("this is the store itself", "Give another file; nothing was stored")
            pickle_files.copy(path, writer)

        return self._put(name, metadata, copy, overwrite, why=why)

    def _put(
        self,
        name: str,
        metadata: Any,
        fill: "Callable[[PickleWriter], object]",
        overwrite: bool,
        unless_has: Metadata | None = None,
        why: str | None = None,
    ) -> ModelRecord:
        """Store whatever `fill` writes to a `PickleWriter`."""
        from views_runs.pickles import opcodes
        from views_runs.pickles.parts import PickleWriter, warn_caller

        with self._open(f"store {name!r}", create=True, why=why) as database:
            entry = Entry.of(name, metadata, overwrite, unless_has)
            if not database.has_content and "@" in entry.name:
                raise names.explain_at_sign(entry.name)
            if database.has_content:
                # Checked before pickling, which may take hours.
                database.models.refuse(entry)
            with Upload(database) as upload, PickleWriter(upload.add, opcodes.Reader()) as writer:
                fill(writer)
                record = upload.publish(entry, writer.finish())
        for text in writer.warnings:
            warn_caller(text)
        return record

    def fetch_or_train(
        self,
        name: str,
        train: Callable[[], T],
        metadata: Any,
        retrain: bool = False,
        recorded: Any = None,
        *,
        why: str | None = None,
    ) -> T:
        """Return the stored model if its metadata matches; otherwise train a new one, store it, and return it.

        This is ``obtain(...).model``; `metadata` is the argument `needed` of `obtain`.

        >>> store = Storage("models.db")
        >>> store.fetch_or_train("forest", lambda: "trained", {"train_end": 480})
        'trained'
        >>> store.fetch_or_train("forest", lambda: "trained again", {"train_end": 480})
        'trained'
        >>> store.fetch_or_train("forest", lambda: "trained again", {"train_end": 492})
        'trained again'
        """
        return self.obtain(name, train, metadata, recorded, retrain, why=why).model

    def obtain(
        self,
        name: str,
        train: Callable[[], T],
        needed: Any,
        recorded: Any = None,
        retrain: bool = False,
        *,
        why: str | None = None,
    ) -> Obtained[T]:
        """Fetch the stored model if its metadata matches; otherwise train a new one and store it.

        The logger ``views_runs`` records the decision at level INFO, with the reason, such as ``train_end 480 -> 492``.

        Args:
            name: the model's name.
            train: called without arguments to train the model; returns it.
            needed: the metadata that the stored model must have, compared as by `exists_with_metadata`.
            recorded: further metadata to store with a newly trained model, such as its author and the run; it is not
                compared. Fields that the store requires can be in either.
            retrain: train even if the stored model matches.
            why: the reason for storing a newly trained model, for `log`.

        Returns:
            The model, its record, and whether it was trained. If another process has stored an equivalent model during
            the training, the record is of that model.

        Raises:
            InvalidMetadataError: a field is both needed and recorded, or a required field is in neither.
            StorageError: the store cannot be used; raised before the training if possible. If the trained model cannot
                be stored, the exception's ``model`` attribute holds it.

        >>> store = Storage("models.db")
        >>> result = store.obtain("forest", lambda: "trained", {"train_end": 480}, {"run_id": "2026-11"})
        >>> result.model, result.record.version, result.trained
        ('trained', 1, True)
        >>> store.obtain("forest", lambda: "trained again", {"train_end": 480}, {"run_id": "2026-12"}).trained
        False
        """
        entry, record = self._find_equivalent(name, needed, recorded, retrain, why)
        if record is not None:
            with suppress(ModelNotFoundError):
                return Obtained(cast(T, self.fetch(name, record.version)), record, False)
            log.info("training %s: the stored model has just been deleted", name)
        model = train()
        try:
            record = self._put(
                name, entry.metadata, lambda writer: writer.dump(model), retrain, entry.unless_has, why=why
            )
            return Obtained(model, record, True)
        except ModelExistsError as error:
            log.info("another process has meanwhile stored an equivalent %s; returning the one trained here", name)
            record = cast(ModelRecord, error.record)
            if self._run is not None:
                with self._open(f"store {name!r}", change=True) as database, database.connection.transaction():
                    runs.use(database.models, record)
            return Obtained(model, record, True)
        except BaseException as error:
            # Training may have taken hours: do not lose the model.
            error.model = model  # type: ignore[attr-defined]
            raise

    def _find_equivalent(
        self, name: str, needed: Any, recorded: Any, retrain: bool, why: str | None
    ) -> tuple[Entry, ModelRecord | None]:
        """Return what to store, and the current version if it is equivalent; log the decision and its reason."""
        # Create and check the file now: training may take hours.
        with self._open(f"store {name!r}", create=True, why=why) as database:
            wanted, metadata = combine(needed, recorded)
            entry = Entry.of(name, metadata, retrain, None if retrain else wanted)
            self._create(database)
            record = None if retrain else database.models.find(Reference(entry.name))
            if record is not None and is_equivalent(record.metadata, wanted):
                log.info("fetching %s, version %s, from %s", name, record.version, self.path)
                if self._run is not None:
                    with database.connection.transaction():
                        runs.use(database.models, record)
                return entry, record
            with database.connection.transaction():
                database.models.refuse_read_only()
                database.models.refuse_incomplete(entry.metadata)
        if retrain:
            log.info("training %s: retrain=True", name)
        elif record is None:
            log.info("training %s: no such model in %s", name, self.path)
        else:
            unmet = [f"{field} {old!s:.60} -> {new!s:.60}" for field, old, new in unmet_fields(record.metadata, wanted)]
            log.info("training %s: %s", name, ", ".join(unmet) or "it has no metadata")
        return entry, None

    def fetch(
        self,
        name: str,
        version: int | None = None,
        *,
        trusted: Iterable[str] | Literal[True] | None = None,
        sha256: str | None = None,
    ) -> Any:
        """Return a stored model.

        Unpickling can run arbitrary code. Fetch only from stores whose writers you trust, or restrict what the pickle
        may import. Each part is verified before it is unpickled.

        Args:
            name: the model's name.
            version: the version; defaults to the current one.
            trusted: the only imports that the pickle may make, each as ``module.name`` (``module:name`` if the name has
                dots), or True for the user's own list. The whole pickle is checked before anything is unpickled.
            sha256: the expected digest of the pickle, in hexadecimal. The whole pickle is checked before anything is
                unpickled.

        Raises:
            ModelNotFoundError: the model does not exist, or was deleted while being read.
            CorruptModelError: its bytes are damaged.
            ModelLoadError: it cannot be unpickled on this machine; if a module is missing, nothing was unpickled.
            UntrustedModelError: it would import something else, or its imports cannot be determined; nothing was
                unpickled.
            DigestMismatchError: its digest differs; nothing was unpickled.
            OpenPermissionsError: everyone on the system can write to the store.

        >>> store = Storage("models.db")
        >>> store.store("forest", [1, 2, 3]).version, store.store("forest", [4], overwrite=True).version
        (1, 2)
        >>> store.fetch("forest"), store.fetch("forest:1"), store.fetch("forest", version=1)
        ([4], [1, 2, 3], [1, 2, 3])
        >>> store.fetch("forest", trusted=[], sha256=store.inspect("forest").sha256)
        [4]
        """
        from views_runs.pickles import permissions, trust, unpickling

        reference = Reference.of(name, version)
        with self._open("fetch", reference) as database:
            if trusted is None and self.trusted:
                trusted = True
            allowed = None if trusted is None else trust.find_allowed(trusted, self.trusted)
            row = database.models.row(reference)
            if sha256 is None and not self._allows_open_permissions:
                permissions.refuse_open(self.path)
            # The store's writers choose the name, and users may paste this line into a shell.
            line = ["views-runs", "model", "--store", str(self.path), "trust", "--", f"{row.name}:{row.version}"]
            return unpickling.load(partial(database.models.pieces, row), row.needs, allowed, sha256, shell_line(*line))

    def retrieve(self, name: str, version: int | None = None) -> Any:
        """Return a stored model; an older name for `fetch`."""
        return self.fetch(name, version)

    def inspect(self, name: str, version: int | None = None) -> ModelRecord:
        """Return a model's record, without unpickling the model.

        Its imports are determined by reading the whole pickle, not taken from what was recorded when it was stored.

        Raises:
            ModelNotFoundError: the model does not exist.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.inspect("forest") == record
        True
        """
        reference = Reference.of(name, version)
        with self._open("inspect", reference) as database:
            return _inspect(database, database.models.record(reference))

    def check(
        self, *models: str, on_damage: Callable[[Damage], object] | None = None, **options: Any
    ) -> "list[tuple[ModelRecord, Verdict]]":
        """Return the records of models, each with a verdict on whether the model will load on this machine.

        Nothing is loaded or imported. The verdict is based on what was recorded when the model was stored; if nothing
        was recorded, on its pickle.

        Args:
            models: names and globs, as for `select`; defaults to the current versions of all models.
            on_damage: as for `find`.
            options: the conditions of `select`.

        Raises:
            ModelNotFoundError: a model does not exist, or a glob or the conditions choose nothing.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> [(record.name, verdict.verdict) for record, verdict in store.check()]
        [('forest', 'loads')]
        """
        from views_runs.pickles import loadability, packages

        wanted = selection.Wanted.of(models, **options)
        with self._open(f"check {wanted}", lenient=not models) as database:
            if not database.exists:
                return []
            with database.connection.snapshot():
                chosen = selection.select(database.models, wanted)
            found = _keep_records([*chosen.records, *chosen.unreadable], on_damage)
            records = [_inspect(database, record) if record.imports is None else record for record in found]
        # Look up the installed distributions once, not for each model.
        packages.forget()
        return [(record, loadability.verdict(record.needs())) for record in records]

    def find(
        self,
        *where: str,
        name: str | None = None,
        alias: str | None = None,
        run: "str | list[str] | None" = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        sort: str | None = None,
        limit: int | None = None,
        on_damage: Callable[[Damage], object] | None = None,
        **fields: Any,
    ) -> "list[ModelRecord]":
        """Return the records of the models that meet all conditions, most recently stored first.

        Args:
            where: conditions ``FIELD OP VALUE`` with an operator ``= != < <= > >= ~`` (``~`` matches a glob),
                ``FIELD in (VALUE, VALUE)``, ``FIELD has VALUE`` (a member of a list), ``FIELD`` (the model has the
                field) or ``!FIELD`` (the field is missing or null), joined by ``and``, ``or``, ``not`` and parentheses.
                ``a.b`` is the field ``b`` in ``a``. ``size``, ``stored_at``, ``stored_by``, ``version``, ``type`` and
                ``current`` are fields of the record; write ``metadata.size`` for a metadata field with such a name.
            name: a glob, where ``*`` matches any characters, ``?`` any one character, and ``[...]`` one of a set;
                ``GLOB@ALIAS`` finds the versions of these models that have an alias.
            alias: an alias that the versions must have, whether they are current or not.
            run: the id of a run, or several: versions that it used, current or not.
            since, until: bounds on when the model was stored, in local time unless they have an offset; a date means
                the whole day, ``7d`` means seven days ago (``h``, ``d`` and ``w``), and there are ``yesterday`` and
                ``today``.
            all_versions: include older versions.
            sort: a field to sort by, or ``-field`` for descending order; models that lack it come last.
            limit: the maximum number of records.
            on_damage: called for each row that cannot be read; by default, a warning is logged. The other records are
                returned in either case.
            fields: metadata fields that must equal a value, or one of a list of values.

        Raises:
            QueryError: a condition is invalid; the message points to the offending character.

        If nothing is found and no model has a field that was asked for, or has a value of that type in it, a warning is
        logged; likewise if no model has the field to sort by.

        >>> store = Storage("models.db")
        >>> for month in 480, 492:
        ...     record = store.store(f"forest_{month}", [month], {"author": "testuser", "train_end": month})
        >>> [record.name for record in store.find("train_end > 2019-12", author="testuser")]
        ['forest_492']
        """
        question = Question.of(
            where,
            fields,
            name=name,
            run=run,
            alias=alias,
            since=since,
            until=until,
            all_versions=all_versions,
            sort=sort,
            limit=limit,
        )
        with self._open("find models", lenient=True) as database:
            if not database.exists:
                return []
            found = _keep_records(database.models.search(question), on_damage)
            if not found or question.sort is not None:
                selection.warn_of_mistakes(
                    database.models, question if not found else question._replace(conditions=())
                )
            return found

    def select(
        self,
        *names: str,
        where: str | Iterable[str] = (),
        alias: str | None = None,
        run: "str | list[str] | None" = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        on_damage: Callable[[Damage], object] | None = None,
        **fields: Any,
    ) -> "list[ModelRecord]":
        """Return the records of the versions that names, globs and conditions choose, each once, those of names first.

        A name alone chooses the current version. A glob, or anything together with conditions, chooses what `find`
        returns for it. The name of a model is never read as a glob.

        Args:
            names: names, ``NAME:VERSION``, ``NAME@ALIAS`` and globs; defaults to all models.
            where: a condition, or several, as for `find`.
            alias, run, since, until, on_damage, fields: as for `find`.
            all_versions: include older versions.

        Raises:
            ModelNotFoundError: a model does not exist, or a glob or the conditions choose nothing.
            QueryError: a condition is invalid.

        >>> store = Storage("models.db")
        >>> for name in "forest", "fast-forest", "ridge":
        ...     record = store.store(name, name, {"author": "testuser"})
        >>> [record.name for record in store.select("ridge", "*forest")]
        ['ridge', 'fast-forest', 'forest']
        >>> [record.name for record in store.select("*forest", where="author = testuser")]
        ['fast-forest', 'forest']
        """
        wanted = selection.Wanted.of(names, where, alias, run, since, until, all_versions, **fields)
        with self._open(f"find {wanted}") as database:
            with database.connection.snapshot():
                chosen = selection.select(database.models, wanted)
            return _keep_records([*chosen.records, *chosen.unreadable], on_damage)

    def versions(self, name: str) -> "list[ModelRecord]":
        """Return the records of all versions of a model, highest version first.

        Raises:
            ModelNotFoundError: the model does not exist.

        >>> store = Storage("models.db")
        >>> for model in "first", "second":
        ...     record = store.store("forest", model, overwrite=True)
        >>> [(record.version, record.current) for record in store.versions("forest")]
        [(2, True), (1, False)]
        """
        reference = Reference.of(name)
        with self._open("list the versions of", reference) as database:
            return database.models.versions(reference)

    def exists(self, name: str, metadata: Any = None) -> bool:
        """Return whether a model with this name exists.

        Args:
            name: a model or a version.
            metadata: deprecated; use `exists_with_metadata`.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.exists("forest"), store.exists("forest:2"), store.exists("boosted")
        (True, False, False)
        """
        if metadata is not None:
            warnings.warn(
                "exists(name, metadata) is deprecated: use exists_with_metadata(name, metadata)",
                DeprecationWarning,
                stacklevel=2,
            )
            return self.exists_with_metadata(name, metadata)
        return self._look_up(name) is not None

    def exists_with_metadata(self, name: str, metadata: Any) -> bool:
        """Return whether a model with this name exists and its metadata has all these fields with equal values.

        ``training_date`` is ignored, as are stored fields that are not given here. Leave out ``author`` and ``run_id``
        to accept a model trained by a colleague or in an earlier run.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], {"author": "testuser", "train_end": 480})
        >>> store.exists_with_metadata("forest", {"author": "testuser"})
        True
        >>> store.exists_with_metadata("forest", {"author": "testuser", "train_end": 492})
        False
        """
        return self._look_up(name, {} if metadata is None else metadata) is not None

    def has_metadata(self, name: str) -> bool:
        """Return whether a model with this name exists and has metadata."""
        record = self._look_up(name)
        return record is not None and record.metadata is not None

    def fetch_metadata(self, name: str, version: int | None = None) -> Metadata:
        """Return a model's metadata: a dict whose fields can also be read as attributes.

        Raises:
            ModelNotFoundError: the model does not exist.
            MetadataNotFoundError: it has no metadata.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], ModelMetadata(author="testuser"))
        >>> store.fetch_metadata("forest")
        {'author': 'testuser'}
        """
        reference = Reference.of(name, version)
        with self._open("fetch the metadata of", reference) as database:
            record = database.models.record(reference)
            if record.metadata is None:
                raise MetadataNotFoundError(
                    "the model was stored without metadata", "Add some with store_metadata(name, metadata)"
                )
            return record.metadata

    def store_metadata(
        self,
        name: str,
        metadata: Any,
        overwrite: bool = False,
        version: int | None = None,
        *,
        why: str | None = None,
    ) -> ModelRecord:
        """Store metadata for an existing model, and return its new record.

        Args:
            name: the model's name.
            metadata: as for `store`.
            overwrite: replace existing metadata.
            version: the version; defaults to the current one.
            why: the reason, for `log`.

        Raises:
            ModelNotFoundError: the model does not exist.
            MetadataExistsError: it already has metadata, and ``overwrite`` is false.
            InvalidMetadataError: the metadata is invalid, or would not compare equal when fetched.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.store_metadata("forest", {"author": "testuser"}).metadata
        {'author': 'testuser'}
        """
        reference = Reference.of(name, version)
        with self._open("store the metadata of", reference, change=True, why=why) as database:
            columns, fields = encode(metadata)
            with database.connection.transaction():
                record = database.models.record(reference)
                if not overwrite and database.models.has_metadata(record):
                    raise MetadataExistsError("the model already has metadata", "Replace it with overwrite=True")
                return database.models.set_metadata(record, columns, fields)

    def annotate(
        self,
        name: str,
        version: int | None = None,
        unset: Iterable[str] = (),
        *,
        why: str | None = None,
        **fields: Any,
    ) -> ModelRecord:
        """Set or remove some fields of a model's metadata, keep the others, and return the model's new record.

        Concurrent annotations of the same model are all applied.

        Args:
            name: the model's name.
            version: the version; defaults to the current one.
            unset: fields to remove.
            why: the reason, for `log`.
            fields: fields to set.

        Raises:
            ModelNotFoundError: the model does not exist.
            InvalidMetadataError: a value is invalid, or a field to remove is missing or required.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], {"author": "testuser", "note": "draft"})
        >>> store.annotate("forest", train_end=480, unset=["note"]).metadata
        {'author': 'testuser', 'train_end': 480}
        """
        return self.annotate_fields(name, fields, unset, version, why=why)

    def annotate_fields(
        self,
        name: str,
        fields: dict[str, Any],
        unset: Iterable[str] = (),
        version: int | None = None,
        *,
        why: str | None = None,
    ) -> ModelRecord:
        """Like `annotate`, but accept any field name, including ``name``, ``version``, ``unset`` and ``why``.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.annotate_fields("forest", {"version": "2 of the paper"}).metadata
        {'version': '2 of the paper'}
        """
        reference = Reference.of(name, version)
        with self._open("annotate", reference, change=True, why=why) as database:
            encode(fields)
            return _annotate(database, reference, fields, [unset] if isinstance(unset, str) else [*unset])

    def annotate_many(
        self,
        *names: str,
        fields: Mapping[str, Any] | None = None,
        unset: Iterable[str] = (),
        where: str | Iterable[str] = (),
        why: str | None = None,
    ) -> "list[tuple[ModelRecord, ModelRecord]]":
        """Set or remove some fields in the metadata of several models.

        Nothing is changed unless all can be. They are changed one after the other.

        Args:
            names, where: as for `select`.
            fields: fields to set.
            unset: fields to remove; each model must have them.
            why: the reason, for `log`.

        Returns:
            For each model, its record before and after.

        Raises:
            ModelNotFoundError: as for `select`.
            QueryError: a condition is invalid, or about a field that no model has; nothing was changed.
            InvalidMetadataError: as for `annotate`.

        >>> store = Storage("models.db")
        >>> for name in "forest", "ridge":
        ...     record = store.store(name, name, {"author": "testuser"})
        >>> changed = store.annotate_many(where="author = testuser", fields={"author": "ines"})
        >>> [after.metadata for before, after in changed]
        [{'author': 'ines'}, {'author': 'ines'}]
        """
        wanted = selection.Wanted.of(names, where)
        fields, unset = dict(fields or {}), [unset] if isinstance(unset, str) else [*unset]
        with self._open(f"annotate {wanted}", change=True, why=why) as database:
            encode(fields)
            with database.connection.snapshot():
                records = selection.readable(selection.select(database.models, wanted, strict=True))
                for record in records:
                    try:
                        _, changed = _change_metadata(database, record, fields, unset)
                        database.models.refuse_incomplete(changed)
                    except InvalidMetadataError as error:
                        # Say which model it is about.
                        raise error.locate(f"annotate {str(record.reference)!r}" if len(records) > 1 else "")
            return [(record, _annotate(database, record.reference, fields, unset)) for record in records]

    def require(self, *fields: str, why: str | None = None) -> None:
        """Set the metadata fields that every model stored from now on must have; without arguments, require none.

        This applies to everyone who uses the file. Existing models are not affected; `incomplete` returns those that
        lack a required field.

        Args:
            fields: the names of metadata fields.
            why: the reason, for `log`.

        Raises:
            InvalidMetadataError: a field name is not valid.

        >>> store = Storage("models.db")
        >>> store.require("author", "run_id")
        >>> store.required()
        ['author', 'run_id']
        >>> store.store("forest", [1, 2, 3], {"author": "testuser"})
        Traceback (most recent call last):
        views_runs.exceptions.InvalidMetadataError: ...
        """
        with self._open("set the required fields", create=True, why=why) as database:
            for field in fields:
                if not isinstance(field, str) or not field or not field.isprintable():
                    raise InvalidMetadataError(f"{field!r} cannot be the name of a required metadata field")
            database.open()
            database.models.require(fields)

    def required(self) -> "list[str]":
        """Return the required metadata fields of this store, in alphabetical order."""
        with self._open("look up the required fields", lenient=True) as database:
            return database.models.required() if database.exists else []

    def incomplete(self) -> "list[ModelRecord]":
        """Return the records of all versions that lack a required field, most recently stored first."""
        required = self.required()
        if not required:
            return []
        return [record for record in self.find(all_versions=True) if missing_fields(required, record.metadata)]

    def diff(self, name: str, other: str | None = None) -> tuple[ModelRecord, ModelRecord]:
        """Return the records of two models, or of a version and its predecessor, for comparison.

        Args:
            name: a model or a version.
            other: another model or version. Without it, the predecessor of `name` is returned first, then `name`.

        Raises:
            ModelNotFoundError: a model does not exist, or there is no earlier version.

        >>> store = Storage("models.db")
        >>> for month in 480, 492:
        ...     record = store.store("forest", [month], {"train_end": month}, overwrite=True)
        >>> [record.metadata for record in store.diff("forest")]
        [{'train_end': 480}, {'train_end': 492}]
        """
        reference = Reference.of(name)
        with self._open("compare", reference) as database:
            record = database.models.record(reference)
            if other is not None:
                return record, database.models.record(Reference.of(other))
            versions = database.models.versions(Reference(record.name))
            before = next((one for one in versions if one.version < record.version), None)
            if before is None:
                raise ModelNotFoundError(f"there is no version before {record.version}", "Give two models to compare")
            return before, record

    def delete(
        self,
        name: str,
        version: int | None = None,
        *,
        force: bool = False,
        why: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> ModelRecord | None:
        """Delete a model with all its versions, or one version of it.

        The space can be reused immediately, and is then returned to the disk in small steps.

        Args:
            name: the model's name.
            version: the version; defaults to all of them.
            force: also delete versions that have an alias.
            why: the reason, for `log`.
            progress: called with the number of bytes returned to the disk so far, and the total, if that takes several
                steps. With it, Ctrl-C during these steps is not raised: a later deletion does the rest.

        Returns:
            The record of the version that is now current, or None if no version is left.

        Raises:
            ModelNotFoundError: the model does not exist.
            ModelInUseError: a version has an alias, and ``force`` is false; nothing was deleted.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> record = store.store("forest", [4, 5, 6], overwrite=True)
        >>> store.delete("forest:2").version
        1
        >>> store.delete("forest")
        """
        # Rarely needed, so imported here, as in `delete_many` and `prune`: it would delay the start of `list`.
        from views_runs.database import deletion

        reference = Reference.of(name, version)
        with self._open("delete", reference, change=True, why=why) as database:
            database.progress = progress
            return deletion.delete(database, reference, force)

    def delete_many(
        self,
        *names: str,
        promote_older: bool = False,
        force: bool = False,
        dry_run: bool = False,
        confirm: Callable[[Deletion], object] | None = None,
        why: str | None = None,
        progress: Callable[[int, int], object] | None = None,
        **options: Any,
    ) -> Deletion:
        """Delete the versions that names, globs and conditions choose; a name alone means all versions of the model.

        A version is kept, and reported, if it got an alias or became current after it was chosen.

        Args:
            names: as for `select`.
            promote_older: let a glob or condition delete the current version of a model even if other versions remain;
                one of these then becomes current.
            force: also delete versions that have an alias.
            dry_run: delete nothing.
            confirm: called with the planned `Deletion`, while the file is not open; if it raises an exception,
                nothing is deleted.
            why: the reason, for `log`.
            progress: as for `delete`.
            options: the conditions of `select`. With ``all_versions=True``, current versions are deleted too.

        Raises:
            ModelNotFoundError: as for `select`; nothing was deleted.
            QueryError: a condition is invalid, or about a field that no model has, or neither names nor conditions were
                given; nothing was deleted.
            ModelInUseError: a version has an alias, and ``force`` is false, or a glob or condition would make an older
                version current, and ``promote_older`` is false; nothing was deleted.

        >>> store = Storage("models.db")
        >>> for month in 480, 492, 504:
        ...     record = store.store("forest", [month], {"train_end": month}, overwrite=True)
        >>> found = store.delete_many(where="not current", all_versions=True)
        >>> [str(record.reference) for record in found.deleted], found.current
        (['forest:2', 'forest:1'], {'forest': 3})
        """
        from views_runs.database import deletion

        wanted = selection.Wanted.of(names, **options)
        with self._open(f"delete {wanted}") as database:
            plan = deletion.plan(database.models, wanted, promote_older, force)
        if dry_run:
            return plan.summary()
        if confirm is not None:
            confirm(plan.summary())
        with self._open(f"delete {wanted}", change=True, why=why) as database:
            database.progress = progress
            return deletion.carry_out(database, plan, force)

    def prune(
        self,
        *names: str,
        keep_last: int | None = None,
        keep_within: str | timedelta | None = None,
        keep_runs: int | None = None,
        keep: str | Iterable[str] = (),
        group_by: str | None = None,
        dry_run: bool = False,
        confirm: "Callable[[list[Disposition]], object] | None" = None,
        why: str | None = None,
        progress: Callable[[int, int], object] | None = None,
        **options: Any,
    ) -> "list[Disposition]":
        """Delete the versions that no rule keeps.

        At least one rule is needed; a version is kept if any of them keeps it. Current versions, versions with an
        alias, and those that a complete run used are never deleted, even if they became so after pruning began.

        Args:
            names: as for `select`; defaults to all models. All their versions are considered.
            keep_last: keep this many versions of each model: those stored last.
            keep_within: keep versions no older than this: ``90d``, ``12w``, ``36h`` or a timedelta.
            keep_runs: keep the versions that this many runs used: those that began last.
            keep: keep the versions that meet this condition, or any of several.
            group_by: a field; `keep_last` then applies to each of its values rather than to each model.
            dry_run: delete nothing.
            confirm: called with the list that would be returned, while the file is not open; if it raises an exception,
                nothing is deleted.
            why: the reason, for `log`.
            progress: as for `delete`.
            options: the conditions of `select`: consider only versions that meet them.

        Returns:
            For each version considered, whether it was or would be deleted, and why.

        Raises:
            ModelNotFoundError: as for `select`; nothing was deleted.
            QueryError: there is no rule, or one is invalid, or a condition is about a field that no model has; nothing
                was deleted.

        >>> store = Storage("models.db")
        >>> for month in 480, 492, 504:
        ...     record = store.store("forest", [month], {"train_end": month}, overwrite=True)
        >>> for one in store.prune(keep_last=1, keep="train_end = 2019-12", dry_run=True):
        ...     print(one.record.version, one.deleted, one.reason)
        3 False current, among the last 1
        2 True no rule keeps it
        1 False meets train_end = 2019-12
        """
        from views_runs.database import retention

        wanted = selection.Wanted.of(names, **options)
        with self._open(f"prune {wanted}") as database:
            rule = retention.Rule.of(keep_last, keep_within, keep_runs, keep, group_by)
            plan = retention.plan(database.models, wanted, rule)
        if dry_run or not plan.doomed:
            return plan.summary()
        if confirm is not None:
            confirm(plan.summary())
        with self._open(f"prune {wanted}", change=True, why=why) as database:
            database.progress = progress
            return retention.carry_out(database, plan)

    def restore(self, name: str, version: int | None = None, *, why: str | None = None) -> ModelRecord:
        """Make an earlier version of a model current again, and return its record.

        Nothing is copied. The next version that is stored becomes current.

        Args:
            name: ``NAME:VERSION`` or ``NAME@ALIAS``, or the model's name.
            version: the version.
            why: the reason, for `log`.

        Raises:
            InvalidNameError: no version was given.
            ModelNotFoundError: the model, or this version of it, does not exist.

        >>> store = Storage("models.db")
        >>> for model in "first", "second":
        ...     record = store.store("forest", model, overwrite=True)
        >>> store.restore("forest:1").current, store.fetch("forest")
        (True, 'first')
        >>> store.restore("forest:2").current, store.fetch("forest")
        (True, 'second')
        """
        reference = Reference.of(name, version)
        with self._open("restore", reference, change=True, why=why) as database:
            return naming.restore(database.models, reference)

    def alias(self, name: str, alias: str, version: int | None = None, *, why: str | None = None) -> ModelRecord:
        """Give a version of a model another name, such as ``production``, and return its record.

        ``NAME@ALIAS`` then refers to this version wherever a name is expected, until the alias is moved to another
        version. A version with an alias is deleted only with ``force=True``.

        Args:
            name: the model's name.
            alias: up to 64 letters, digits, dots, underscores and hyphens.
            version: the version; defaults to the current one.
            why: the reason, for `log`.

        Raises:
            InvalidNameError: the alias is not valid.
            ModelNotFoundError: the model, or this version of it, does not exist.

        >>> store = Storage("models.db")
        >>> for model in "first", "second":
        ...     record = store.store("forest", model, overwrite=True)
        >>> store.alias("forest", "production", 1).aliases
        ('production',)
        >>> store.fetch("forest@production")
        'first'
        """
        reference = Reference.of(name, version)
        with self._open("give an alias to", reference, change=True, why=why) as database:
            return naming.set_alias(database.models, reference, names.check_alias(alias))

    def unalias(self, name: str, alias: str, *, why: str | None = None) -> ModelRecord:
        """Remove an alias of a model, and return the record of the version that had it.

        Args:
            name: the model's name.
            alias: the alias.
            why: the reason, for `log`.

        Raises:
            AliasNotFoundError: the model has no such alias.
            ModelNotFoundError: the model does not exist.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> record = store.alias("forest", "production")
        >>> store.unalias("forest", "production").aliases
        ()
        """
        reference = Reference.of(name)
        with self._open(f"remove the alias {alias!r} from", reference, change=True, why=why) as database:
            return naming.remove_alias(database.models, reference, alias)

    def rename(self, name: str, new: str, *, why: str | None = None) -> ModelRecord:
        """Rename a model, with all its versions, aliases and history, and return the record of its current version.

        If a deleted model had the new name, its version numbers are not reused: the versions are renumbered to follow
        them, unless they have higher numbers already.

        Args:
            name: the model's name.
            new: the new name, as for `store`.
            why: the reason, for `log`.

        Raises:
            ModelExistsError: there is a model with the new name; nothing was changed.
            InvalidNameError: the new name is not valid.
            ModelNotFoundError: the model does not exist.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.rename("forest", "random-forest").name
        'random-forest'
        >>> store.fetch("forest")
        Traceback (most recent call last):
        views_runs.exceptions.ModelNotFoundError: ... It was renamed to 'random-forest'
        """
        reference = Reference.of(name)
        with self._open(f"rename {name!r} to {new!r}", change=True, why=why) as database:
            if reference.version is not None:
                raise names.explain_one_version()
            return naming.rename(database.models, reference.name, names.check_new_name(new))

    def log(
        self,
        name: str | None = None,
        *,
        since: datetime | date | str | None = None,
        by: str | None = None,
        limit: int | None = None,
    ) -> "list[Event]":
        """Return the changes to the store, or to one model, most recent first.

        Changes from before the file had layout 2 are not recorded.

        Args:
            name: a model's name; events from before it was renamed are included.
            since: the earliest time, as for `find`.
            by: a glob that ``user@host`` must match; without an @, a glob for the user alone.
            limit: the maximum number of events.

        Raises:
            ModelNotFoundError: no model has or had this name.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.delete("forest", why="trained on the wrong data")
        >>> [(event.action, event.version, event.why) for event in store.log("forest")]
        [('deleted', 1, 'trained on the wrong data'), ('stored', 1, None)]
        """
        with self._open("read the log", lenient=name is None) as database:
            if not database.exists:
                return []
            name = None if name is None else database.models.known_name(name)
            start = None if since is None else find_start(since)
            return [*database.models.events.search(name, start, by, limit)]

    def history(self, name: str) -> "list[Lifetime]":
        """Return all versions that a model ever had, highest first, including deleted ones.

        Raises:
            ModelNotFoundError: no model has or had this name.

        >>> store = Storage("models.db")
        >>> for month in 480, 492:
        ...     record = store.store("forest", [month], {"train_end": month}, overwrite=True)
        >>> store.delete("forest:1").version
        2
        >>> [(one.version, one.is_deleted) for one in store.history("forest")]
        [(2, False), (1, True)]
        """
        with self._open("show the history of", Reference(names.check_name(name))) as database:
            return history.of_model(database.models, database.models.known_name(name))

    def run(self, id: str, *, why: str | None = None) -> "Run":
        """Return a run: the set of versions that it trained or reused, at most one of each model.

        Used as a context manager, it records when the run began and how it ended. Several processes and computers can
        be in the same run at once, and it can be entered again later. Without ``with``, it gives access to a run, even
        to one that is known only from the metadata field ``run_id`` of its models.

        Args:
            id: the run's id, as in ``2026-11``.
            why: the reason, for `log`.

        Raises:
            InvalidNameError: it is not a string, or, when the block is entered, it cannot be the id of a new run.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.fetch_or_train("forest", lambda: "trained", {"train_end": 480}, recorded={"author": "testuser"})
        'trained'
        >>> [(model.name, model.version, model.state) for model in run.models()]
        [('forest', 1, 'trained')]
        """
        from views_runs.runs import Run

        return Run(self, id, why)

    def runs(self) -> "list[RunRecord]":
        """Return the records of all runs, latest first.

        Runs that were never entered are included if they are in the metadata field ``run_id`` of a model.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3], {"run_id": "2026-10"})
        >>> with store.run("2026-11") as run:
        ...     record = run.add("forest")
        >>> [(run.id, run.models, run.state) for run in store.runs()]
        [('2026-11', 1, 'succeeded'), ('2026-10', 1, None)]
        """
        with self._open("list the runs", lenient=True) as database:
            return runs.find(database.models) if database.exists else []

    def write_pickle(self, name: str, file: BinaryIO, version: int | None = None) -> ModelRecord:
        """Write a model's pickle to an open binary file, without unpickling it, and return the model's record.

        Raises:
            ModelNotFoundError: the model does not exist, or was deleted while being read.
            CorruptModelError: its bytes are damaged; those already written are intact.

        >>> import io
        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> file = io.BytesIO()
        >>> store.write_pickle("forest", file).size == len(file.getvalue())
        True
        """
        reference = Reference.of(name, version)
        with self._open("download", reference) as database:
            record = database.models.record(reference)
            _write_pickle(database, record.reference, file)
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
            name: the model's name.
            file: the file, or a folder for a file named after the model; defaults to the current folder.
            overwrite: replace an existing file.
            version: the version; defaults to the current one.

        Raises:
            DownloadError: the file exists, cannot be written, or is the store itself.
            ModelNotFoundError, CorruptModelError: as for `write_pickle`.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.download("forest").name
        'forest.pickle'
        """
        reference = Reference.of(name, version)
        with self._open("download", reference) as database:
            target = files.choose_target(file, names.file_name(str(reference)), self.path, DownloadError, overwrite)
            _download(database, reference, target, overwrite)
        return target

    def download_many(
        self, folder: str | os.PathLike[str], *models: str, overwrite: bool = False, **options: Any
    ) -> "list[tuple[ModelRecord, Path]]":
        """Write the pickles of several models to a folder, without unpickling them.

        The file of a current version is named after the model, that of another also after the version. If one of the
        files exists, nothing is written.

        Args:
            folder: the folder; it is created if only it is missing, and not the folder that it is in.
            models: names and globs, as for `select`; defaults to the current versions of all models.
            overwrite: replace existing files.
            options: the conditions of `select`.

        Returns:
            The record of each model, and the path of its file.

        Raises:
            ModelNotFoundError: as for `select`.
            DownloadError: a file exists or cannot be written, or two models would be written to the same file.
            CorruptModelError: a model is damaged; the files of those before it were written.

        >>> store = Storage("models.db")
        >>> for name in "forest", "ridge":
        ...     record = store.store(name, name)
        >>> [path.name for record, path in store.download_many("models", "*")]
        ['ridge.pickle', 'forest.pickle']
        """
        wanted = selection.Wanted.of(models, **options)
        with self._open(f"download {wanted}") as database:
            with database.connection.snapshot():
                chosen = selection.select(database.models, wanted)
            records = selection.readable(chosen)
            targets = _choose_targets(records, files.make_folder(folder, DownloadError), self.path, overwrite)
            for record, target in zip(records, targets):
                _download(database, record.reference, target, overwrite)
        return [*zip(records, targets)]

    def verify(
        self, *models: str, progress: Callable[[int, int], object] | None = None, **options: Any
    ) -> Verification:
        """Read models completely, and verify every byte against the stored digests.

        Nothing is unpickled, memory use is small, and others can keep storing models.

        Args:
            models: names (all versions are verified), ``NAME:VERSION`` and globs, as for `select`; defaults to the
                whole store.
            progress: called with the number of bytes read so far, and the total.
            options: the conditions of `select`.

        Returns:
            The number of versions read, and the damaged ones.

        Raises:
            ModelNotFoundError: a model does not exist, or a glob or the conditions choose nothing.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.verify().versions, store.verify("forest").damaged
        (1, ())
        """
        # Rarely needed, so imported here: it would delay the start of `list`.
        from views_runs.database import verification

        wanted = selection.Wanted.of(models, **options)
        with self._open("verify", lenient=not models) as database:
            if not database.exists:
                return Verification(0, 0, ())
            references, damaged = verification.choose(database.models, wanted)
            chosen = verification.select_models(database.connection, references)
            counter = _Counter(verification.add_sizes(chosen), progress)
            result = verification.verify(database.connection, chosen, counter.add)
            tables = verification.find_damaged_tables(database.connection) if references is None else damaged
            return result._replace(damaged=(*result.damaged, *tables))

    def backup(
        self, file: str | os.PathLike[str], progress: Callable[[int, int], object] | None = None
    ) -> Backup:
        """Copy a consistent snapshot of the whole store to a new file, and verify the copy.

        Others can keep storing and deleting models. The copy is a store with the same models and version numbers.

        Args:
            file: a file that does not exist yet, or a folder in which to create a file with the store's name.
            progress: called with the number of bytes copied or read back so far, and the total.

        Returns:
            What was copied, and the versions that were not: those deleted during the backup, and the damaged ones.

        Raises:
            BackupError: the file exists, cannot be written, or is the store itself.
            UnsafeShareError: the file would be on an SMB share.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> store.backup("copy.db").versions
        1
        >>> Storage("copy.db").fetch("forest")
        [1, 2, 3]
        """
        from views_runs.database import backup, verification

        with self._open("back up the store") as database:
            target = files.choose_target(file, self.path.name, self.path, BackupError).absolute()
            database.refuse_unsafe_share(target)
            everything = verification.select_models(database.connection)
            counter = _Counter(2 * verification.add_sizes(everything), progress)
            return backup.back_up(database.connection, everything, target, counter.add)

    def doctor(self, peer: bool = False, say: Callable[[str], object] | None = None) -> "list[Finding]":
        """Check the file, its journal, its folder and its file system, and return the findings.

        This never raises an exception, and without `peer` it does not wait. To check the models as well, use `verify`.

        Args:
            peer: wait up to a minute for another computer that runs this on the same store; both then commit to a
                scratch database beside it, and count how many of the acknowledged commits arrive.
            say: called with progress messages; by default, they go to the logger ``views_runs``.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> {finding.state for finding in store.doctor() if finding.topic in ("store", "file", "leftovers")}
        {'ok'}
        """
        try:
            from views_runs.health import doctor
        except (ImportError, OSError) as error:
            # At the limit of open files, no module can be read either.
            advice = "Close files that this process has open, or run `views-runs model doctor` in a terminal"
            return [Finding("store", "failure", f"the checks cannot start: {error}", advice)]
        return doctor.examine(self.path, self._decided_by, (say or log.info) if peer else None)

    def exists_file(self) -> bool:
        """Return whether the store's file exists.

        Raises:
            StoreAccessError: this cannot be determined.

        >>> Storage("nothing.db").exists_file()
        False
        """
        return get_status(self.path) is not None

    def _open(
        self,
        operation: str,
        reference: Reference | None = None,
        *,
        create: bool = False,
        change: bool = False,
        lenient: bool = False,
        why: str | None = None,
    ) -> Database:
        """Return a context manager that opens the store for one operation."""
        return Database(
            self.path,
            self.timeout,
            operation,
            reference,
            create=create,
            change=change,
            lenient=lenient and not self._must_exist,
            is_default=self._is_default,
            why=why,
            run=self._run,
            allow_unsafe_share=self._allows_unsafe_share,
        )

    def _create(self, database: Database) -> None:
        """Open the store, and create it if need be."""
        if not database.exists and not self._is_default:
            log.warning("%s does not exist; creating it", self.path)
        database.open()

    def _look_up(self, name: str, metadata: Any = None) -> ModelRecord | None:
        """Return the record of a model if it exists and its metadata is equivalent."""
        reference = Reference.of(name)
        with self._open("look up", reference, lenient=True) as database:
            wanted = encode(metadata)[1]
            record = database.models.find(reference) if database.exists else None
            return record if record is None or wanted is None or is_equivalent(record.metadata, wanted) else None

    # Defined last: below this, `list` means the method, even in annotations.
    def list(self, *where: str, **options: Any) -> list[str]:
        """Return the names of the models that `find` would return for the same arguments.

        With ``all_versions=True``, return ``NAME:VERSION`` for each; otherwise, for those that are not current.

        >>> store = Storage("models.db")
        >>> for model in "forest", "boosted":
        ...     record = store.store(model, model)
        >>> store.list(), store.list(name="f*"), store.list(all_versions=True)
        (['boosted', 'forest'], ['forest'], ['boosted:1', 'forest:1'])
        """
        records = self.find(*where, **options)
        short = not options.get("all_versions")
        return [record.name if short and record.current else str(record.reference) for record in records]


def _is_asked_for(variable: str) -> bool:
    """Return whether an environment variable is set to anything but a false value."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def _make_absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a store, and refuse what cannot be a file."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise InvalidPathError(f"the path of a store must be a string or a Path, not {text!r}")
    if not text or "\0" in text:
        raise InvalidPathError(f"{text!r} cannot be the path of a store", "Give a file, as in Storage('models.db')")
    if text == ":memory:":
        raise InvalidPathError("a store is a file and cannot be in memory", "Use a file in a temporary folder")
    # Symbolic links are not resolved here: SQLite resolves them, and messages should show the path that was given.
    try:
        made = Path(os.path.abspath(os.path.expanduser(text)))
        made.as_uri()
    except OSError as error:
        raise InvalidPathError(f"{text!r} is relative to a folder that no longer exists ({error.strerror})") from error
    except ValueError as error:
        # On Windows, a server without a share, or a name that is not valid Unicode: SQLite is given a URI.
        raise InvalidPathError(f"{text!r} cannot be the path of a store", "Give a file in a folder") from error
    return made


def _inspect(database: Database, record: ModelRecord) -> ModelRecord:
    """Return a record whose imports are read from its pickle, and the versions too where none were recorded."""
    from views_runs.pickles import opcodes

    reader = opcodes.Reader()
    try:
        with database.models.pieces(database.models.row(record.reference)) as pieces:
            for piece in pieces:
                reader.feed(piece)
    except ModelNotFoundError:
        # Deleted in the meantime: only the recorded imports are left.
        return record
    except (CorruptModelError, StoreDamagedError) as error:
        damage = f"damaged: {error.trouble.partition(': ')[2]}"
        return replace(record, **{**opcodes.imported(reader.result()), "troubles": (damage,)})
    reading = reader.result()
    return replace(record, **opcodes.imported(reading), packages=record.packages or reading.versions)


def _keep_records(
    found: Iterable[ModelRecord | Damage], on_damage: Callable[[Damage], object] | None
) -> list[ModelRecord]:
    records = []
    for one in found:
        if isinstance(one, ModelRecord):
            records.append(one)
        elif on_damage is not None:
            on_damage(one)
        else:
            log.warning("skipping %s: %s", one.name, one.trouble)
    return records


def _annotate(
    database: Database, reference: Reference, fields: Mapping[str, Any], unset: Iterable[str]
) -> ModelRecord:
    """Set and remove some fields of a version's metadata, and return its new record."""
    with database.connection.transaction():
        record = database.models.record(reference)
        return database.models.set_metadata(record, *_change_metadata(database, record, fields, unset))


def _change_metadata(
    database: Database, record: ModelRecord, fields: Mapping[str, Any], unset: Iterable[str]
) -> tuple[tuple[str | None, str | None], Metadata | None]:
    """Return the metadata of a version with some fields set and removed, as `encode` does."""
    if record.metadata is None and database.models.has_metadata(record):
        raise InvalidMetadataError("the metadata is not a JSON object: another program wrote it")
    changed = dict(record.metadata or {})
    for field in unset:
        if field not in changed:
            has = ", ".join(map(printable, changed)) or "no fields"
            raise InvalidMetadataError(f"the metadata has no field {field!r} to remove; it has {has}")
        del changed[field]
    return encode({**changed, **fields}, stored=changed)


def _choose_targets(records: Iterable[ModelRecord], folder: Path, store: Path, overwrite: bool) -> list[Path]:
    """Return the file to write for each of several versions."""
    targets: dict[str, tuple[ModelRecord, Path]] = {}
    for record in records:
        name = names.file_name(record.name if record.current else str(record.reference))
        # Many file systems take upper and lower case for the same.
        other, _ = targets.get(name.casefold(), (None, None))
        if other is not None:
            trouble = f"{str(other.reference)!r} and {str(record.reference)!r} would both be written to {name}"
            raise DownloadError(trouble, "Download one of them to a file of its own; nothing was written")
        path = files.choose_target(folder / name, name, store, DownloadError, overwrite)
        targets[name.casefold()] = record, path
    return [path for _, path in targets.values()]


def _download(database: Database, reference: Reference, target: Path, overwrite: bool) -> None:
    with files.written(target, DownloadError, overwrite) as beside, beside.open("wb") as stream:
        _write_pickle(database, reference, stream)


def _write_pickle(database: Database, reference: Reference, file: BinaryIO) -> None:
    # As for `fetch`, without the record: the tables of aliases and of what is current may be damaged.
    with database.models.pieces(database.models.row(reference)) as pieces:
        for piece in pieces:
            while piece:
                # An unbuffered file may write fewer bytes than it is given.
                written = file.write(piece)
                piece = piece[len(piece) if written is None else written :]


class _Counter:
    """Counts the bytes processed, and reports progress."""

    def __init__(self, total: int, progress: Callable[[int, int], object] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress or (lambda done, total: None)
        self.add(0)

    def add(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)


def store(name: str, model: Any, metadata: Any = None, overwrite: bool = False) -> ModelRecord:
    """Store a model in the default store. Deprecated; use `Storage.store`."""
    _warn("store")
    return Storage().store(name, model, metadata, overwrite)


def retrieve(name: str) -> Any:
    """Fetch a model from the default store. Deprecated; use `Storage.fetch`."""
    _warn("retrieve", "fetch")
    return Storage().fetch(name)


def fetch_metadata(name: str) -> Metadata:
    """Fetch a model's metadata from the default store. Deprecated; use `Storage.fetch_metadata`."""
    _warn("fetch_metadata")
    return Storage().fetch_metadata(name)


def _list() -> list[str]:
    """Return the names of the models in the default store. Deprecated; use `Storage.list`."""
    _warn("list")
    return Storage().list()


def __getattr__(name: str) -> Any:
    # Makes `from views_runs.storage import list` work while `list` stays the builtin in this module.
    if name == "list":
        return _list
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _warn(name: str, replacement: str = "") -> None:
    warnings.warn(
        f"views_runs.storage.{name}() is deprecated: use views_runs.Storage().{replacement or name}()",
        DeprecationWarning,
        stacklevel=3,
    )
