"""The versions that names, globs and conditions choose."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from typing import Any, NamedTuple

from views_runs import names
from views_runs.database.models import Models
from views_runs.exceptions import ModelNotFoundError, QueryError, StorageError, StoreDamagedError
from views_runs.query import Question, as_conditions
from views_runs.records import Damage, ModelRecord, Reference

log = logging.getLogger("views_runs")


class Selection(NamedTuple):
    """The versions that were chosen."""

    #: Their records, each once: first those of names, then those of globs and conditions, in the order of `find`.
    records: list[ModelRecord]
    #: Rows that a glob or conditions chose and that cannot be read.
    unreadable: list[Damage]
    #: The versions that a glob or conditions chose, and no name.
    matched: frozenset[Reference]


class Wanted(NamedTuple):
    """What a method on several models is asked for."""

    names: tuple[str, ...]
    where: tuple[str, ...]
    fields: Mapping[str, Any]
    alias: str | None
    run: str | list[str] | None
    since: datetime | date | str | None
    until: datetime | date | str | None
    all_versions: bool

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        where: str | Iterable[str] = (),
        alias: str | None = None,
        run: str | list[str] | None = None,
        since: datetime | date | str | None = None,
        until: datetime | date | str | None = None,
        all_versions: bool = False,
        **fields: Any,
    ) -> "Wanted":
        """Take the arguments of `Storage.select`."""
        return cls(tuple(names), as_conditions(where), fields, alias, run, since, until, all_versions)

    @property
    def has_conditions(self) -> bool:
        """Whether there are conditions."""
        bounds = (self.alias, self.run, self.since, self.until)
        return bool(self.where or self.fields or any(one is not None for one in bounds))

    def __str__(self) -> str:
        return names.listed([*map(repr, self.names)]) or "models"

    def question(self, name: str | None = None) -> Question:
        """Return the question of `Storage.find` for the same conditions, with the glob `name`."""
        _, where, fields, *_ = self
        options = {field: getattr(self, field) for field in ("alias", "run", "since", "until", "all_versions")}
        return Question.of(where, fields, name=name, **options)


def warn_of_mistakes(models: Models, question: Question) -> None:
    """Log what is probably mistaken in a question; rows that cannot be read were reported already."""
    with suppress(StoreDamagedError):
        for complaint in _find_complaints(models, question):
            log.warning("%s", complaint)


def refuse_mistakes(models: Models, question: Question) -> None:
    """Refuse a question that is probably mistaken, before anything is changed."""
    for complaint in _find_complaints(models, question):
        # It can end in a question mark.
        raise QueryError(f"nothing was changed: {complaint}")


def _find_complaints(models: Models, question: Question) -> Iterator[str]:
    # Rarely needed, so imported here: it would delay the start of `list`.
    from views_runs.database.complaints import find_complaints

    return find_complaints(models.connection, question)


def split(models: Models, wanted: Wanted) -> tuple[list[Reference], Wanted | None]:
    """Return the versions and models that are asked for by their own names, and what else is asked for, if anything."""
    if wanted.has_conditions:
        return [], wanted
    own, globs = [], []
    for name in wanted.names:
        reference = Reference.of(name)
        if _is_own(models, reference):
            own.append(reference)
        else:
            globs.append(name)
    return own, None if own and not globs else wanted._replace(names=tuple(globs))


def _is_own(models: Models, reference: Reference) -> bool:
    """Return whether this is the name of a model rather than a glob; a name that exists comes before a glob."""
    if not names.is_glob(reference.name):
        return True
    try:
        name, _ = models.resolve(reference)
    except StorageError:
        return False
    return _has(models, name)


def _has(models: Models, name: str) -> bool:
    return bool(models.connection.value("SELECT 1 FROM models WHERE name = ?", (name,)))


def select(models: Models, wanted: Wanted, *, whole: bool = False, strict: bool = False) -> Selection:
    """Choose versions; call this in a snapshot.

    Args:
        models, wanted: the store, and what is asked for.
        whole: a name alone means all versions of the model.
        strict: refuse probable mistakes in the conditions; otherwise, they are logged if nothing was found.
    """
    if strict:
        refuse_mistakes(models, wanted.question())
    own, others = split(models, wanted)
    found: dict[Reference, ModelRecord] = {}
    for reference in own:
        several = reference.version is None and (whole or wanted.all_versions)
        for record in models.versions(reference) if several else [models.record(reference)]:
            found.setdefault(record.reference, record)
    named = frozenset(found)
    unreadable = []
    for one in () if others is None else search(models, others):
        if isinstance(one, Damage):
            unreadable.append(one)
        else:
            found.setdefault(one.reference, one)
    return Selection([*found.values()], unreadable, frozenset(found) - named)


def readable(chosen: Selection) -> list[ModelRecord]:
    """Return the records of a selection, and log which rows cannot be read."""
    for damage in chosen.unreadable:
        log.warning("skipping %s: %s", damage.name, damage.trouble)
    return chosen.records


def search(models: Models, wanted: Wanted) -> Iterator[ModelRecord | Damage]:
    """Yield what the conditions, and each of the names and globs with them, choose; each must choose something."""
    for name in wanted.names or (None,):
        question = wanted.question() if name is None else _narrow(models, wanted, name)
        found = models.search(question)
        if not found and (wanted.names or wanted.has_conditions):
            warn_of_mistakes(models, question)
            raise _explain_nothing(wanted, name)
        yield from found


def _narrow(models: Models, wanted: Wanted, name: str) -> Question:
    """Return the question for a name or a glob together with the conditions."""
    reference = Reference.of(name)
    if not _is_own(models, reference):
        return wanted.question(name)
    name, version = models.resolve(reference)
    if not _has(models, name):
        raise models.not_found(reference)
    quoted = name.replace("\\", r"\\").replace('"', r"\"")
    where = [f'name = "{quoted}"', *([] if version is None else [f"version = {version}"])]
    every = wanted.all_versions or version is not None
    return wanted._replace(where=(*wanted.where, *where), all_versions=every).question()


def _explain_nothing(wanted: Wanted, name: str | None) -> ModelNotFoundError:
    advice = "`views-runs model list` lists all models"
    if name is None:
        return ModelNotFoundError("no model meets the conditions", advice)
    if wanted.has_conditions:
        return ModelNotFoundError(f"no model that matches {name!r} meets the conditions", advice)
    if Reference.of(name).version is not None:
        advice = "A glob has no version: use the condition 'version = 2' and all_versions=True (--all-versions)"
    return ModelNotFoundError(f"no model's name matches {name!r}", advice)
