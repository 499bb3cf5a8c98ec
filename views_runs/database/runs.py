"""The tables of runs: which versions each run used, which models it should use, and which processes are in it."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from views_runs import names
from views_runs.conditions import RUNS
from views_runs.database import owners
from views_runs.exceptions import InvalidNameError, ModelNotFoundError, RunNotFoundError, StorageError
from views_runs.query import Question
from views_runs.records import Damage, ModelRecord, Reference, RunModel, RunRecord

if TYPE_CHECKING:
    from views_runs.database.connection import Connection
    from views_runs.database.models import Models

#: After this time, a process on another computer no longer counts as being in a run: it may have been killed.
MAX_INSIDE = timedelta(days=7)

_LIKE_THIS = "Use an id such as 2026-11"

#: The runs that used each version that exists: ``run``, ``version`` (models.id) and ``size``.
USED = f"""SELECT used.value AS run, models.id AS version, models.size AS size FROM models INDEXED BY models_record
    CROSS JOIN json_each((SELECT json_group_array(value) FROM {RUNS})) AS used"""

#: The name of the model in a row of ``run_models``, whether or not there is a model with it.
_NAME = """ifnull(
    (
        SELECT ifnull(own.name, other.name) FROM names AS own LEFT JOIN names AS other ON other.id = own.renamed_to
        WHERE own.id = run_models.model
    ),
    '?'
)"""

#: Whether a run has a version of the model that exists now.
_IS_THERE = f"""EXISTS (
    SELECT 1 FROM models WHERE models.name = {_NAME} AND EXISTS (SELECT 1 FROM {RUNS} WHERE value = run_models.run)
)"""

#: The runs that trained or reused all expected models, even if some have been deleted since.
COMPLETED = f"""SELECT run FROM run_models WHERE expected
    GROUP BY run HAVING NOT max(version IS NULL AND NOT {_IS_THERE})"""

#: The versions (models.id) that these runs used.
USED_BY_COMPLETE = f"SELECT version FROM ({USED}) WHERE run IN ({COMPLETED})"

#: When each run began, by whom, and how it ended. A run that is known from metadata only began when the first of its
#: models that still exist was stored.
STARTED = """SELECT id AS run, started_at, started_by, ended_at, succeeded FROM runs
    UNION ALL
    SELECT metadata ->> '$.run_id' AS own, min(stored_at), stored_by, NULL, NULL FROM models INDEXED BY models_record
    WHERE json_type(metadata, '$.run_id') = 'text' AND metadata ->> '$.run_id' NOT IN (SELECT id FROM runs)
    GROUP BY own"""

#: The versions (models.id) that the last runs used; the parameter is the number of runs.
USED_BY_LAST = f"""SELECT version FROM ({USED}) WHERE run IN (
    SELECT run FROM ({STARTED}) ORDER BY started_at DESC, run DESC LIMIT ?
)"""


def check_text(run: str) -> str:
    """Check the id of a run that may be known from metadata only, and return it as a plain `str`."""
    try:
        str.encode(run)
    except (TypeError, UnicodeError) as error:
        raise InvalidNameError(f"the id of a run must be a string, not {run!r:.60}", _LIKE_THIS) from error
    return str.__str__(run)


def check_id(run: str) -> str:
    """Check the id of a run before something is recorded for it, and return it."""
    try:
        return names.check_name(run)
    except InvalidNameError as error:
        raise InvalidNameError(error.trouble.replace("the name of a model", "the id of a run"), _LIKE_THIS) from error


def enter(models: "Models", run: str, owner: str) -> None:
    """Record that a process is in a run from now on."""
    connection = models.connection
    with connection.transaction():
        _create(connection, run)
        _forget_ended(connection, run)
        insert = "INSERT INTO run_processes (run, owner, entered_at) VALUES (?, ?, ?)"
        connection.change(insert, (run, owner, _now()))
        models.events.add("entered")


def leave(models: "Models", run: str, owner: str, error: str | None) -> None:
    """Record that a process has left a run, and what went wrong."""
    connection = models.connection
    with connection.transaction():
        connection.change("DELETE FROM run_processes WHERE run = ? AND owner = ?", (run, owner))
        _forget_ended(connection, run)
        update = "UPDATE runs SET ended_at = ?, succeeded = ? WHERE id = ?"
        connection.change(update, (_now(), error is None, run))
        if error is None:
            models.events.add("ended")
        else:
            models.events.add("failed", error=error)


def _create(connection: "Connection", run: str) -> None:
    insert = "INSERT INTO runs (id, started_at, started_by) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
    connection.change(insert, (run, _now(), owners.this_user()))


def _forget_ended(connection: "Connection", run: str) -> None:
    """Remove the processes that were killed in a run."""
    for owner, entered_at in connection.rows("SELECT owner, entered_at FROM run_processes WHERE run = ?", (run,)):
        if _has_ended(owner, entered_at):
            connection.change("DELETE FROM run_processes WHERE run = ? AND owner = ?", (run, owner))


def _has_ended(owner: str, entered_at: str) -> bool:
    # The clocks of two computers are compared, which is good enough for what is only shown.
    return owners.has_ended(owner) or str(entered_at) < _now(-MAX_INSIDE)


def _now(later: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + later).isoformat(timespec="microseconds")


def use(models: "Models", record: ModelRecord, is_new: bool = False) -> None:
    """Record that the run of this operation uses a version, if it still exists; call this in a transaction."""
    connection, run = models.connection, models.run
    select = "SELECT id FROM models WHERE name = ? AND version = ?"
    id, model = connection.value(select, record.reference), models.number(record.name)[0]
    before = connection.row("SELECT version, number FROM run_models WHERE run = ? AND model = ?", (run, model))
    if run is None or id is None or (before and before[0] == id):
        return
    _create(connection, run)
    is_trained = record.metadata is not None and record.metadata.get("run_id") == run
    connection.change(
        "INSERT INTO run_models (run, model, version, number, trained) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (run, model) DO UPDATE "
        "SET version = excluded.version, number = excluded.number, trained = excluded.trained",
        (run, model, id, record.version, is_trained),
    )
    if before and before[0] is not None:
        models.note("replaced", record, instead_of=before[1])
    elif not is_new:
        models.note("used", record)


def expect(models: "Models", expected: list[str]) -> None:
    """Replace the list of models that the run of this operation should use."""
    connection, run = models.connection, models.run or ""
    with connection.transaction():
        before = connection.rows("SELECT model FROM run_models WHERE run = ? AND expected", (run,))
        for name in expected:
            if "@" in name and not connection.value("SELECT 1 FROM models WHERE name = ?", (name,)):
                raise names.explain_at_sign(name)
        # A number, although there may be no such model yet: it stays if the model is renamed.
        wanted = {models.number(name)[0] for name in expected}
        if wanted == {model for (model,) in before}:
            return
        _create(connection, run)
        connection.change("UPDATE run_models SET expected = 0 WHERE run = ?", (run,))
        for model in wanted:
            insert = "INSERT INTO run_models (run, model, expected) VALUES (?, ?, 1) "
            connection.change(f"{insert} ON CONFLICT (run, model) DO UPDATE SET expected = 1", (run, model))
        connection.change("DELETE FROM run_models WHERE run = ? AND version IS NULL AND NOT expected", (run,))
        models.events.add("expected", models=expected)


def used_by(models: "Models", run: str, reference: Reference) -> Reference:
    """Return the version of a model that a run used; with an alias or a version, it must be that one."""
    reference = models.resolve(reference)
    select = f"SELECT version FROM models WHERE name = ? AND EXISTS (SELECT 1 FROM {RUNS} WHERE value = ?)"
    found: int | None = models.connection.value(select, (reference.name, run))
    if found is not None and reference.version in (None, found):
        return Reference(reference.name, found)
    refuse_unknown(models, run)
    if found is not None:
        raise ModelNotFoundError(f"the run {run!r} used version {found}", "Give the name alone")
    select = f"SELECT number FROM run_models WHERE run = ? AND version IS NOT NULL AND {_NAME} = ?"
    if number := models.connection.value(select, (run, reference.name)):
        raise ModelNotFoundError(f"the run {run!r} used version {number}, which has been deleted")
    if models.find(Reference(reference.name)) is None:
        raise models.not_found(Reference(reference.name))
    advice = "`views-runs run show` lists the models that it used"
    raise ModelNotFoundError(f"the run {run!r} did not use the model {reference.name!r}", advice)


def models_of(models: "Models", run: str) -> list[RunModel | Damage]:
    """Return the models of a run by name, including those that have been deleted or are missing."""
    select = f"""SELECT {_NAME}, found.name, found.version, run_models.version, CAST(number AS INTEGER),
            trained, expected
        FROM run_models LEFT JOIN models AS found INDEXED BY models_record ON found.id = run_models.version
        WHERE run = ?"""
    with models.connection.snapshot():
        refuse_unknown(models, run)
        rows = models.connection.rows(select, (run,))
        found = models.search(Question.of((), {}, run=run, sort="name"))
    wanted = {name for name, *_, expected in rows if expected}
    trained = {Reference(name, version): bool(trained) for _, name, version, _, _, trained, _ in rows}
    there: list[RunModel | Damage] = [
        RunModel.of(one, trained.get(one.reference, True), one.name in wanted) if isinstance(one, ModelRecord) else one
        for one in found
    ]
    absent = [
        RunModel(name, number, "missing" if id is None else "deleted", bool(expected))
        for name, current, _, id, number, _, expected in rows
        if current is None and (id is not None or name not in {one.name for one in there})
    ]
    return sorted([*there, *absent], key=lambda one: one.name)


def refuse_unknown(models: "Models", run: str) -> None:
    """Raise an error if there is no such run."""
    if models.connection.value(f"SELECT 1 FROM ({STARTED}) WHERE run = ?", (run,)):
        return
    known = models.connection.rows(f"SELECT run FROM ({STARTED}) ORDER BY started_at DESC LIMIT 5000")
    others = [one for (one,) in known if isinstance(one, str)]
    raise RunNotFoundError(f"there is no run {run!r}", names.suggest(run, others, "run"))


def find(models: "Models", run: str | None = None) -> list[RunRecord]:
    """Return the records of all runs, the last first, or of one."""
    rows, chosen = models.connection.rows, "WHERE run = ifnull(?, run)"
    with models.connection.snapshot():
        started = rows(f"SELECT * FROM ({STARTED}) {chosen} ORDER BY started_at DESC, run DESC", (run,))
        used = rows(f"SELECT run, count(*), sum(size) FROM ({USED}) {chosen} GROUP BY run", (run,))
        expected = rows(
            f"SELECT run, count(*), sum(NOT {_IS_THERE}) FROM run_models {chosen} AND expected GROUP BY run", (run,)
        )
        inside = rows(f"SELECT run, owner, entered_at FROM run_processes {chosen}", (run,))
    has_used, is_expected = ({one: counts for one, *counts in found} for found in (used, expected))
    found = []
    for *row, succeeded in started:
        have_ended = [_has_ended(owner, entered_at) for one, owner, entered_at in inside if one == row[0]]
        counts = (*has_used.get(row[0], (0, 0)), *is_expected.get(row[0], (0, 0)))
        found.append(RunRecord.of(tuple(row), _state(have_ended, succeeded), *counts))
    return found


def _state(have_ended: list[bool], succeeded: Any) -> str | None:
    if not all(have_ended):
        return "running"
    if have_ended:
        return "interrupted"
    return None if succeeded is None else "succeeded" if succeeded else "failed"


def refuse_empty(expected: int) -> None:
    """Raise an error if no models are expected for a run."""
    if not expected:
        raise StorageError(
            "no models are expected for this run",
            "Set them with run.expect([...]), or compare it with another run: run.missing(like='2026-10')",
        )
