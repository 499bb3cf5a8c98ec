"""Pruning: find out which versions the rules keep, and delete the others."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from views_runs.conditions import OWN_FIELDS, Condition, Field
from views_runs.database import deletion, runs
from views_runs.database.database import Database
from views_runs.database.models import Models
from views_runs.database.selection import Wanted, readable, refuse_mistakes, select
from views_runs.exceptions import QueryError
from views_runs.metadata import to_jsonable
from views_runs.names import MAX_INTEGER
from views_runs.query import Question, as_conditions, parse_age, parse_field
from views_runs.records import Disposition, ModelRecord


class Rule(NamedTuple):
    """What to keep: a version is kept if any part of the rule keeps it."""

    keep_last: int | None
    keep_within: timedelta | None
    keep_runs: int | None
    keep: tuple[str, ...]
    group_by: str | None

    @classmethod
    def of(
        cls,
        keep_last: int | None = None,
        keep_within: str | timedelta | None = None,
        keep_runs: int | None = None,
        keep: str | Iterable[str] = (),
        group_by: str | None = None,
    ) -> "Rule":
        """Check the arguments of `Storage.prune`."""
        for name, count in (("keep_last", keep_last), ("keep_runs", keep_runs)):
            if count is not None and (type(count) is not int or count < 1):
                raise QueryError(f"{name} must be a positive integer, not {count!r}")
        within = None if keep_within is None else parse_age(keep_within)
        rule = cls(keep_last, within, keep_runs, as_conditions(keep), group_by)
        if not any(rule[:4]):
            raise QueryError(
                "there is no rule for what to keep", advice="Give keep_last, keep_within, keep_runs or keep"
            )
        return rule

    @property
    def age(self) -> str | None:
        """The maximum age of a version that is kept by `keep_within`, in days."""
        return None if self.keep_within is None else f"{self.keep_within / timedelta(days=1):g}d"

    def __str__(self) -> str:
        counts = {"last": self.keep_last, "within": self.age, "runs": self.keep_runs}
        parts = [f"--keep-{name} {value}" for name, value in counts.items() if value is not None]
        parts += [f"--keep {condition!r}" for condition in self.keep]
        return " ".join(parts + ([] if self.group_by is None else [f"--group-by {self.group_by}"]))


class Plan(NamedTuple):
    """What `Storage.prune` is about to do: by id, the versions that it considers, and why each is kept, if it is."""

    records: Mapping[int, ModelRecord]
    reasons: Mapping[int, str]
    rule: Rule

    @property
    def doomed(self) -> dict[int, ModelRecord]:
        """The versions to delete."""
        return {id: record for id, record in self.records.items() if not self.reasons[id]}

    def summary(self) -> list[Disposition]:
        """Return what pruning would do."""
        return [
            Disposition(record, not self.reasons[id], self.reasons[id] or "no rule keeps it")
            for id, record in self.records.items()
        ]


def plan(models: Models, wanted: Wanted, rule: Rule) -> Plan:
    """Find out which versions the rule keeps."""
    field = None if rule.group_by is None else parse_field(rule.group_by)
    if field is not None and field.own and OWN_FIELDS[str(field)].members:
        raise QueryError(f"a version can have more than one {field}", advice="Group by another field")
    questions = [Question.of([condition], {}, all_versions=True) for condition in rule.keep]
    if field is not None:
        # Not as a field to sort by, which may have a minus sign.
        refuse_mistakes(models, Question("", (), [Condition(field, "exists")]))
    for question in questions:
        refuse_mistakes(models, question)
    with models.connection.snapshot():
        chosen = select(models, wanted._replace(all_versions=True), whole=True, strict=True)
        records = models.by_id(readable(chosen))
        kept = defaultdict(list, _protect(models, records))
        for question, condition in zip(questions, rule.keep):
            for id in models.search_ids(question):
                kept[id].append(f"meets {condition}")
        if rule.keep_runs is not None:
            for (id,) in models.connection.rows(runs.USED_BY_LAST, (min(rule.keep_runs, MAX_INTEGER),)):
                kept[id].append("a recent run used it")
    _count(kept, records, rule, field)
    return Plan(records, {id: ", ".join(kept[id]) for id in records}, rule)


def _protect(models: Models, records: Mapping[int, ModelRecord]) -> dict[int, list[str]]:
    """Return why versions are kept regardless of the rule, by id."""
    used = {id for (id,) in models.connection.rows(runs.USED_BY_COMPLETE)}
    return {id: _explain_protection(record, id in used) for id, record in records.items()}


def _explain_protection(record: ModelRecord, is_used: bool) -> list[str]:
    reasons = ["current"] if record.current else []
    reasons += [f"has the alias {', '.join(record.aliases)}"] if record.aliases else []
    return [*reasons, "a complete run used it"] if is_used else reasons


def _count(kept: dict[int, list[str]], records: Mapping[int, ModelRecord], rule: Rule, field: Field | None) -> None:
    """Add what is kept because it is among the last of its group, or young enough."""
    groups: dict[str, int] = defaultdict(int)
    start = None if rule.keep_within is None else datetime.now(UTC) - rule.keep_within
    # Ids show which version was stored later, even if clocks were wrong.
    for id, record in sorted(records.items(), reverse=True):
        group = record.name if field is None else _find_group(field, record)
        groups[group] += 1
        if rule.keep_last is not None and groups[group] <= rule.keep_last:
            kept[id].append(f"among the last {rule.keep_last}")
        if start is not None and record.stored_at >= start:
            kept[id].append(f"stored within {rule.age}")


def _find_group(field: Field, record: ModelRecord) -> str:
    """Return the group of a version as a text: values of different types are not equal."""
    value: Any = getattr(record, str(field)) if field.own else field.value_in(record.metadata or {})
    return json.dumps(to_jsonable(value), sort_keys=True)


def carry_out(database: Database, made: Plan) -> list[Disposition]:
    """Delete what the rule does not keep, unless something protects it now."""
    models, connection = database.models, database.connection

    # Looked up again only when another program has changed the file: it takes longer than a deletion.
    @lru_cache(maxsize=1)
    def find_used(data_version: int) -> set[int]:
        return {id for (id,) in connection.rows(runs.USED_BY_COMPLETE)}

    def keep(now: ModelRecord) -> str:
        used = find_used(connection.value("PRAGMA data_version"))
        reasons = _explain_protection(now, models.id(now) in used)
        return f"it is protected now ({', '.join(reasons)})" if reasons else ""

    done = dict(zip(made.doomed, deletion.delete_each(database, made.doomed, keep, "pruned", rule=str(made.rule))))
    planned = dict(zip(made.records, made.summary()))
    return [done[id] if id in done and not done[id].deleted else one for id, one in planned.items()]
