"""`Run`, which `Storage.run` returns: the set of versions that a production run trained or reused."""

import logging
import os
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from views_runs import names, signals
from views_runs.database import owners, runs
from views_runs.exceptions import InvalidMetadataError, InvalidNameError, StorageError
from views_runs.metadata import Metadata
from views_runs.pickles.loadability import Verdict
from views_runs.records import Damage, ModelRecord, Obtained, Reference, RunModel, RunRecord, combine
from views_runs.storage import Storage

T = TypeVar("T")

log = logging.getLogger("views_runs")


def _describe(error: BaseException) -> str:
    """Return what went wrong in a run, in words that can be stored."""
    try:
        text = str(error)
    except Exception as trouble:
        signals.let_through(trouble)
        # The exception and its text come from the user's code.
        text = "(its text cannot be shown)"
    # The name of a file that is not valid UTF-8 has surrogates.
    return f"{type(error).__name__}: {text}"[:500].encode("utf-8", "backslashreplace").decode()


class Run:
    """A run: the set of versions that it trained or reused, at most one of each model.

    The file is not kept open. A run can be passed to other processes, such as those of joblib, which need not enter it.

    >>> store = Storage("models.db")
    >>> with store.run("2026-10") as run:
    ...     model = run.fetch_or_train("forest", lambda: "trained", {"train_end": 480})
    >>> with store.run("2026-11") as run:
    ...     model = run.fetch_or_train("forest", lambda: "trained again", {"train_end": 480})
    >>> [(model.name, model.state, model.trained_in) for model in run.models()]
    [('forest', 'reused', '2026-10')]
    """

    def __init__(self, store: Storage, id: str, why: str | None = None) -> None:
        #: The run's id.
        self.id = runs.check_text(id)
        self._why = why
        self._store = copy(store)
        self._store._run = self.id
        # The process and the token of each block that is not left yet.
        self._entered: list[tuple[int, str, str]] = []

    def __repr__(self) -> str:
        return f"{self._store!r}.run({self.id!r})"

    def __enter__(self) -> "Run":
        token = os.urandom(8).hex()
        owner = owners.this_process(token)
        with self._store._open(f"enter the run {self.id!r:.80}", create=True, why=self._why) as database:
            runs.check_id(self.id)
            self._store._create(database)
            owners.active_tokens[token] = self
            runs.enter(database.models, self.id, owner)
        self._entered.append((os.getpid(), token, owner))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, token, owner = self._entered.pop()
        if process != os.getpid():
            # In a forked child, the block is its parent's.
            return
        has_failed = error is not None and not (isinstance(error, SystemExit) and not error.code)
        reason = _describe(error) if error is not None and has_failed else None
        try:
            with self._store._open(f"leave the run {self.id!r}", change=True) as database:
                runs.leave(database.models, self.id, owner, reason)
        except StorageError as trouble:
            # The models are stored. An error raised here would hide the one that ended the block.
            log.warning("%s", trouble)
        finally:
            owners.active_tokens.pop(token, None)

    def store(
        self, name: str, model: Any, metadata: Any = None, overwrite: bool = False, *, why: str | None = None
    ) -> ModelRecord:
        """Store a model that was trained in this run, and return its record.

        Its metadata gets the field ``run_id``. If the run already has a version of the model, the new one replaces it
        in the run.

        Raises:
            InvalidMetadataError: the metadata has another ``run_id``, or is invalid; nothing was stored.
            StorageError: as for `Storage.store`.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.store("forest", [1, 2, 3], {"author": "testuser"}).metadata
        {'author': 'testuser', 'run_id': '2026-11'}
        """
        return self._store.store(name, model, self._claim(name, None, metadata), overwrite, why=why)

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
        """Return the stored model if its metadata matches; otherwise train a new one in this run, and store it.

        This is ``obtain(...).model``; `metadata` is the argument `needed` of `obtain`.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.fetch_or_train("forest", lambda: "trained", {"train_end": 480})
        'trained'
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
        """Fetch the stored model if its metadata matches; otherwise train a new one in this run, and store it.

        Either way, the version is added to the run. A new version gets the metadata field ``run_id``, which is not
        compared.

        Args:
            name, train, needed, recorded, retrain, why: as for `Storage.obtain`.

        Raises:
            InvalidMetadataError: the metadata has another ``run_id``, or is invalid; nothing was trained.
            StorageError: as for `Storage.obtain`.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.obtain("forest", lambda: "trained", {"train_end": 480}).record.metadata
        {'train_end': 480, 'run_id': '2026-11'}
        """
        return self._store.obtain(name, train, needed, self._claim(name, needed, recorded), retrain, why=why)

    def _claim(self, name: str, needed: Any, recorded: Any) -> Metadata:
        """Return the metadata to record with a new model, with this run's id; refuse another one."""
        try:
            wanted, fields = combine(needed, recorded)
            if fields.get("run_id") not in (None, self.id):
                trouble = f"the metadata field run_id is {fields.run_id!r}, but the run is {self.id!r}"
                raise InvalidMetadataError(trouble, "run_id", "Leave it out: the run sets it")
        except StorageError as error:
            raise error.locate(f"store {name!r}", self._store.path)
        return Metadata({field: one for field, one in (fields | {"run_id": self.id}).items() if field not in wanted})

    def add(self, name: str, version: int | None = None, *, why: str | None = None) -> ModelRecord:
        """Add a stored version to this run, and return its record.

        Args:
            name: the model's name, ``NAME:VERSION`` or ``NAME@ALIAS``.
            version: the version; defaults to the current one.
            why: the reason, for `log`.

        Raises:
            ModelNotFoundError: the model does not exist.

        >>> store = Storage("models.db")
        >>> record = store.store("forest", [1, 2, 3])
        >>> with store.run("2026-11") as run:
        ...     run.add("forest").version
        1
        """
        reference = Reference.of(name, version)
        with self._store._open(f"add to the run {self.id!r}", reference, change=True, why=why) as database:
            runs.check_id(self.id)
            with database.connection.transaction():
                record = database.models.record(reference)
                runs.use(database.models, record)
                return record

    def fetch(self, name: str, **options: Any) -> Any:
        """Return a model, in the version that this run used, whichever version is current.

        Args:
            name: the model's name.
            options: ``trusted`` and ``sha256``, as for `Storage.fetch`.

        Raises:
            ModelNotFoundError: the run did not use the model, or the version has been deleted.
            RunNotFoundError: there is no such run.
            StorageError: as for `Storage.fetch`.

        >>> store = Storage("models.db")
        >>> with store.run("2026-11") as run:
        ...     record = run.store("forest", "first")
        >>> record = store.store("forest", "second", overwrite=True)
        >>> store.fetch("forest"), run.fetch("forest")
        ('second', 'first')
        """
        reference = Reference.of(name)
        with self._store._open(f"fetch from the run {self.id!r}", reference) as database:
            used = runs.used_by(database.models, self.id, reference)
        return self._store.fetch(*used, **options)

    def inspect(self) -> RunRecord:
        """Return what is known about this run: when and by whom it was run, its state, and whether it is complete.

        Raises:
            RunNotFoundError: there is no such run.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.inspect().state
        'running'
        """
        with self._store._open(f"inspect the run {self.id!r}") as database:
            runs.refuse_unknown(database.models, self.id)
            (found,) = runs.find(database.models, self.id)
            return found

    def models(self, on_damage: Callable[[Damage], object] | None = None) -> list[RunModel]:
        """Return the models of this run by name: trained in it, reused by it, deleted since, and missing.

        Args:
            on_damage: called for each row that cannot be read; by default, a warning is logged.

        Raises:
            RunNotFoundError: there is no such run.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.expect(["forest", "boosted"])
        ...     record = run.store("forest", [1, 2, 3])
        >>> [(model.name, model.version, model.state) for model in run.models()]
        [('boosted', None, 'missing'), ('forest', 1, 'trained')]
        """
        with self._store._open(f"list the models of the run {self.id!r}") as database:
            found = runs.models_of(database.models, self.id)
        damaged = [one for one in found if isinstance(one, Damage)]
        for one in damaged:
            if on_damage is None:
                log.warning("skipping %s: %s", one.name, one.trouble)
            else:
                on_damage(one)
        return [one for one in found if isinstance(one, RunModel)]

    def expect(self, models: Iterable[str], *, why: str | None = None) -> None:
        """Set the models that this run should use; it is complete when it has all of them.

        The list is kept in the file, and replaces an earlier one. Without a list, or with an empty one, the run is
        never complete.

        Raises:
            InvalidNameError: a name is not valid.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     run.expect(["forest"])
        ...     before = run.inspect().complete
        ...     record = run.store("forest", [1, 2, 3])
        >>> before, run.inspect().complete
        (False, True)
        """
        with self._store._open(f"set the models of the run {self.id!r:.80}", create=True, why=why) as database:
            if isinstance(models, str):
                raise InvalidNameError(f"expect takes a list of names, not {models!r:.60}", f"Give [{models!r:.60}]")
            expected = [*dict.fromkeys(map(names.check_new_name, models))]
            runs.check_id(self.id)
            database.open()
            runs.expect(database.models, expected)

    def missing(self, like: str | None = None) -> list[str]:
        """Return the names of the expected models that this run does not have, in alphabetical order.

        Args:
            like: the id of another run, whose models are expected instead.

        Raises:
            RunNotFoundError: there is no such run.
            StorageError: no models are expected, and ``like`` was not given.

        >>> store = Storage("models.db")
        >>> with store.run("2026-10") as run:
        ...     records = [run.store(name, [1]) for name in ("forest", "boosted")]
        >>> with store.run("2026-11") as run:
        ...     record = run.add("forest")
        >>> run.missing(like="2026-10")
        ['boosted']
        """
        with self._store._open(f"compare the run {self.id!r}", lenient=False) as database:
            found = runs.models_of(database.models, self.id)
            there = {one.name for one in found if isinstance(one, Damage) or one.record is not None}
            if like is None:
                wanted = [one for one in found if isinstance(one, RunModel) and one.expected]
                runs.refuse_empty(len(wanted))
            else:
                others = runs.models_of(database.models, runs.check_text(like))
                wanted = [one for one in others if isinstance(one, RunModel) and one.version is not None]
        return [name for name in dict.fromkeys(one.name for one in wanted) if name not in there]

    def check(self) -> list[tuple[ModelRecord, Verdict]]:
        """Return the records of this run's models, each with a verdict on whether it will load on this machine.

        Nothing is loaded. Models that have been deleted or are missing are not in the list; see `models`.

        Raises:
            RunNotFoundError: there is no such run.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     record = run.store("forest", [1, 2, 3])
        >>> [(record.name, verdict.verdict) for record, verdict in run.check()]
        [('forest', 'loads')]
        """
        is_empty = all(one.record is None for one in self.models())
        found = [] if is_empty else self._store.check(run=self.id)
        return sorted(found, key=lambda one: one[0].name)

    def download(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[tuple[ModelRecord, Path]]:
        """Write the pickles of this run's models to files in a folder, as `Storage.download_many` does.

        Raises:
            DownloadError: a file exists or cannot be written.
            RunNotFoundError: there is no such run.

        >>> with Storage("models.db").run("2026-11") as run:
        ...     record = run.store("forest", [1, 2, 3])
        >>> [path.name for record, path in run.download("pickles")]
        ['forest.pickle']
        """
        is_empty = all(one.record is None for one in self.models())
        return [] if is_empty else self._store.download_many(folder, run=self.id, overwrite=overwrite)
