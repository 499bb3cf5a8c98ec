"""The table ``events``: what was changed in a store, by whom and why."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from views_runs.database import owners
from views_runs.database.connection import Connection
from views_runs.exceptions import QueryError, StorageError, StoreDamagedError
from views_runs.names import MAX_INTEGER
from views_runs.query import check_limit
from views_runs.records import Event

#: The number of events in one read, during which nobody can commit.
EVENTS_PER_READ = 1000

#: The longest reason, in characters: the log of all that was done is read as a whole.
MAX_WHY = 10_000

ROW = ("id", "at", "by", "action", "model", "version", "number", "run", "changes", "why")

#: The columns of an event. A deleted model whose name was given to another model has the name of that model.
COLUMNS = """events.id, events.at, events.by, events.action, ifnull(own.name, other.name),
    ifnull((SELECT version FROM models INDEXED BY models_record WHERE id = events.version), events.number),
    events.run, events.changes, events.why"""
TABLE = "events LEFT JOIN names AS own ON own.id = events.model LEFT JOIN names AS other ON other.id = own.renamed_to"

#: The numbers of the model that has a name now, and of those whose name it was given.
_NUMBERS = """SELECT id FROM names WHERE name = ?1 UNION ALL
    SELECT id FROM names WHERE name IS NULL AND renamed_to = (SELECT id FROM names WHERE name = ?1)"""


class Events:
    """The events of an open store; `why` is the user's reason for this operation, and `run` the run it is part of."""

    def __init__(self, connection: Connection, why: str | None = None, run: str | None = None) -> None:
        self._connection = connection
        self._why = why
        self._run = run

    def add(
        self,
        action: str,
        name: str | None = None,
        version: int | None = None,
        number: int | None = None,
        by: str | None = None,
        **changes: Any,
    ) -> None:
        """Record what was done to a model, a version (its id and number), or the run; call this in its transaction."""
        self._connection.change(
            "INSERT INTO events (at, by, action, model, version, number, run, changes, why) "
            "VALUES (?, ?, ?, (SELECT id FROM names WHERE name = ?), ?, ?, ?, ?, ?)",
            (
                datetime.now(UTC).isoformat(timespec="microseconds"),
                by or owners.this_user(),
                action,
                name,
                version,
                number,
                self._run,
                json.dumps(changes, ensure_ascii=False, default=repr) if changes else None,
                self._why,
            ),
        )

    def search(
        self,
        name: str | None = None,
        since: str | None = None,
        by: str | None = None,
        limit: int | None = None,
        actions: tuple[str, ...] = (),
    ) -> Iterator[Event]:
        """Yield events, the latest first: of the model with this name, since a time, by users that match a glob."""
        if by is not None and not isinstance(by, str):
            raise QueryError(f"by must be a string, not {by!r:.60}")
        check_limit(limit)
        user = by if by is None or "@" in by else f"{by}@*"
        conditions = ["events.id < ?1"]
        parameters: list[Any] = [MAX_INTEGER]
        if name is not None:
            # Numbers, not a subquery: for a single one, as nearly always, SQLite reads the index backwards, and would
            # otherwise sort all events of the model again for each read. In layout 1, no model has a number.
            numbers = [number for (number,) in self._connection.rows(_NUMBERS, (name,)) if number is not None]
            conditions.append(f"events.model IN ({', '.join(map(str, numbers))})")
        if actions:
            conditions.append(f"events.action IN ({', '.join(map(repr, actions))})")
        for condition, value in (("events.at >= ?", since), ("events.by GLOB ?", user)):
            if value is not None:
                parameters.append(value)
                conditions.append(f"{condition}{len(parameters)}")
        select = f"SELECT {COLUMNS} FROM {TABLE} WHERE {' AND '.join(conditions)} ORDER BY events.id DESC LIMIT "
        left = MAX_INTEGER if limit is None else limit
        while left > 0:
            count = min(left, EVENTS_PER_READ)
            rows = self._connection.rows(f"{select}{count}", tuple(parameters))
            yield from map(Event.from_row, rows)
            if len(rows) < count:
                return
            left -= count
            parameters[0] = rows[-1][0]


def walk(connection: Connection, last: int | None = None) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of the table up to an id, a few at a time."""
    first, last = 0, MAX_INTEGER if last is None else last
    while rows := connection.rows(
        f"SELECT {', '.join(ROW)} FROM events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
        (first, last, EVENTS_PER_READ),
    ):
        yield rows
        if rows[-1][0] <= first:
            raise StoreDamagedError("the table events is damaged and leads in a circle", "Restore it from a backup")
        first = rows[-1][0]


def check_why(why: str) -> None:
    """Check the reason for a change, before anything is done: pickling may take hours."""
    try:
        str.encode(why)
    except (TypeError, UnicodeError) as error:
        raise StorageError(f"the reason for a change must be a string, not {why!r:.60}") from error
    if len(why) > MAX_WHY:
        trouble = f"the reason for a change has {len(why):,} characters, but the limit is {MAX_WHY:,}"
        raise StorageError(trouble, "Shorten it, and put what is longer into the metadata or a file")
