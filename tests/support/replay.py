"""What must be in a file according to its events, and how the file differs from that.

`Replay` reads the events, the first one first, and says in plain Python what each of them means. It shares nothing with
the code that writes them, and is the specification of "the events agree with what is there".

An event names a model by its number (``names.id``) and a version by its id (``models.id``), which never change; the
number of a version, as in ``forest:2``, can: a rename onto the name of a deleted model shifts the numbers.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from views_runs import Storage


class Event(NamedTuple):
    """A row of the table ``events``."""

    id: int
    action: str
    model: int | None
    version: int | None
    number: int | None
    run: str | None
    changes: dict[str, Any]
    why: str | None


class Unrecorded(NamedTuple):
    """A version that a package without events stored, and the event after which it did."""

    after: int
    id: int
    model: int
    number: int


@dataclass
class Version:
    """A version that exists or was deleted."""

    id: int
    number: int
    #: The run in which it was stored, and the reason that was given then.
    run: str | None = None
    why: str | None = None
    #: Of the metadata, the fields that were changed since.
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class Model:
    """A model, with the versions that exist."""

    #: None until an event tells.
    name: str | None = None
    versions: dict[int, Version] = field(default_factory=dict)
    current: int | None = None
    aliases: dict[str, int] = field(default_factory=dict)
    #: The highest number that one of its versions ever had.
    highest: int = 0

    def add(self, version: Version) -> None:
        """Add a version that is current from now on."""
        self.versions[version.id] = version
        self.current, self.highest = version.id, version.number

    def remove(self, id: int) -> None:
        """Remove a version with its aliases; if it was current, the highest that is left is current instead."""
        del self.versions[id]
        self.aliases = {alias: version for alias, version in self.aliases.items() if version != id}
        if self.current == id:
            self.current = max(self.versions, key=lambda one: self.versions[one].number, default=None)

    def number(self, id: int | None) -> int | None:
        """Return the number of a version, or None if there is no such version."""
        return self.versions[id].number if id in self.versions else None


@dataclass
class Run:
    """A run; a version was trained in it if it was stored in it, whatever the metadata say."""

    #: By model: the version, its number at that time, and whether it was trained in this run.
    used: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    #: The names that its models have now, whether there are such models or not.
    expected: set[str] = field(default_factory=set)
    #: The most processes that can be in it, some of which may have been killed; how the last one left.
    inside: int = 0
    succeeded: bool | None = None


class Replay:
    """The state that the events lead to; `troubles` says which of them cannot have happened.

    Args:
        events: the events, the first one first.
        unrecorded: the versions that there are no events for.
        required: the fields that were required before there were events.
    """

    def __init__(
        self, events: Iterable[Event], unrecorded: Iterable[Unrecorded] = (), required: Iterable[str] = ()
    ) -> None:
        self.models: defaultdict[int, Model] = defaultdict(Model)
        self.runs: defaultdict[str, Run] = defaultdict(Run)
        self.required = {*required}
        #: All versions that there ever were.
        self.versions: dict[int, Version] = {}
        self.events = list(events)
        self.troubles: list[str] = []
        waiting = sorted(unrecorded)
        for event in self.events:
            while waiting and waiting[0].after < event.id:
                self._add(waiting.pop(0))
            self._take(event)
        for one in waiting:
            self._add(one)

    def _add(self, one: Unrecorded) -> None:
        self.versions[one.id] = Version(one.id, one.number)
        self.models[one.model].add(self.versions[one.id])

    def _take(self, event: Event) -> None:
        self._event = event
        take = getattr(self, f"_{event.action}", None)
        if self._holds(take is not None, "nobody knows what this means") and self._concerns_what_is_there(event):
            assert take is not None
            take(event, self.models[event.model or 0])

    def _holds(self, condition: bool, otherwise: str) -> bool:
        if not condition:
            self.troubles.append(f"{self._event}: {otherwise}")
        return condition

    def _concerns_what_is_there(self, event: Event) -> bool:
        if event.version is None or event.action == "stored":
            return True
        number = self.models[event.model or 0].number(event.version)
        return self._holds(number is not None, "there is no such version") and self._holds(
            number == event.number, f"the version has the number {number}"
        )

    # What each action means

    def _stored(self, event: Event, model: Model) -> None:
        assert event.version is not None and event.number is not None
        self._holds(event.version not in self.versions, "it was stored before")
        self._holds(event.number > model.highest, f"the number {model.highest} was given already")
        version = self.versions[event.version] = Version(event.version, event.number, event.run, event.why)
        model.add(version)
        # Otherwise it replaces a version in the run, and there is an event for that too.
        if event.run is not None and event.model not in self.runs[event.run].used:
            self._use(event)

    def _annotated(self, event: Event, model: Model) -> None:
        fields = self.versions[event.version or 0].fields
        for name, old, new in event.changes["fields"]:
            self._holds(fields.get(name, old) == old, f"{name} was {fields.get(name)!r}")
            fields[name] = new

    def _restored(self, event: Event, model: Model) -> None:
        self._holds(model.current != event.version, "it was current already")
        now = model.number(model.current)
        self._holds(event.changes["instead_of"] == now, f"version {now} was current")
        model.current = event.version

    def _aliased(self, event: Event, model: Model) -> None:
        before = model.aliases.get(event.changes["alias"])
        self._holds(before != event.version, "it had this alias already")
        now = model.number(before)
        self._holds(event.changes["before"] == now, f"version {now} had this alias")
        model.aliases[event.changes["alias"]] = event.version or 0

    def _unaliased(self, event: Event, model: Model) -> None:
        removed = model.aliases.pop(event.changes["alias"], None)
        self._holds(removed == event.version, f"{removed} had this alias")

    def _renamed(self, event: Event, model: Model) -> None:
        old, new, shift = (event.changes[key] for key in ("old", "new", "shift"))
        self._holds(model.name in (None, old), f"its name was {model.name}")
        self._holds(bool(model.versions), "there was no such model")
        taken = any(other.name == new and other.versions for other in self.models.values())
        self._holds(not taken, "another model had this name")
        model.name = new
        model.highest += shift
        for version in model.versions.values():
            version.number += shift
        for run in self.runs.values():
            run.expected = {new if name == old else name for name in run.expected}

    def _deleted(self, event: Event, model: Model) -> None:
        model.remove(event.version or 0)

    def _pruned(self, event: Event, model: Model) -> None:
        self._holds(model.current != event.version, "it was current")
        self._holds(event.version not in model.aliases.values(), "it had an alias")
        model.remove(event.version or 0)

    def _required(self, event: Event, _: Model) -> None:
        self._holds({*event.changes["before"]} == self.required, f"{self.required} were required")
        self.required = {*event.changes["after"]}

    def _entered(self, event: Event, _: Model) -> None:
        self.runs[event.run or ""].inside += 1

    def _ended(self, event: Event, _: Model, succeeded: bool = True) -> None:
        run = self.runs[event.run or ""]
        self._holds(run.inside > 0, "nobody was in the run")
        run.inside, run.succeeded = run.inside - 1, succeeded

    def _failed(self, event: Event, model: Model) -> None:
        self._ended(event, model, succeeded=False)

    def _expected(self, event: Event, _: Model) -> None:
        self.runs[event.run or ""].expected = {*event.changes["models"]}

    def _used(self, event: Event, _: Model) -> None:
        used = self.runs[event.run or ""].used
        self._holds(event.model not in used, "the run used a version of it already")
        self._use(event)

    def _replaced(self, event: Event, _: Model) -> None:
        before = self.runs[event.run or ""].used.get(event.model or 0, (0, 0, False))
        self._holds(before[0] != event.version, "the run used this version already")
        self._holds(event.changes["instead_of"] == before[1], f"the run used {before[1]}")
        self._use(event)

    def _use(self, event: Event) -> None:
        assert event.run is not None and event.version is not None and event.model and event.number
        version = self.versions[event.version]
        # As in the package, by the metadata, which another change may have replaced since.
        was_trained = version.fields.get("run_id", version.run) == event.run
        self.runs[event.run].used[event.model] = (event.version, event.number, was_trained)


class Tables:
    """What is in the tables of a file, at one moment."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as self._sql:
            self._sql.execute("BEGIN")
            events = self._rows("SELECT id, action, model, version, number, run, changes, why FROM events ORDER BY id")
            self.events = [Event(*row[:6], json.loads(row[6] or "{}"), row[7]) for row in events]
            self.names = {id: other for id, *other in self._rows("SELECT id, name, versions, renamed_to FROM names")}
            self.versions = {id: other for id, *other in self._rows("SELECT id, name, version, metadata FROM models")}
            self.restored = {name: other for name, *other in self._rows("SELECT name, version, highest FROM restored")}
            self.aliases = {*self._rows("SELECT model, alias, version FROM aliases")}
            self.required = {field for (field,) in self._rows("SELECT field FROM required_fields")}
            self.runs = dict(self._rows("SELECT id, succeeded FROM runs"))
            self.run_models = self._rows("SELECT run, model, version, number, trained, expected FROM run_models")
            self.run_processes = [run for (run,) in self._rows("SELECT run FROM run_processes")]
            self.integrity = self._rows("PRAGMA integrity_check")

    def _rows(self, query: str) -> list[Any]:
        return self._sql.execute(query).fetchall()

    def name(self, model: int) -> str:
        """Return the name of a model; one whose name was given to another goes by the name of that."""
        name, _, renamed_to = self.names[model]
        return self.name(renamed_to) if name is None else str(name)

    def current(self, name: str) -> int:
        """Return the id of the current version: the one that was restored last, unless a higher one came since."""
        numbers = {id: number for id, (other, number, _) in self.versions.items() if other == name}
        pointed, highest = self.restored.get(name, (None, 0))
        is_valid = pointed in numbers and highest >= max(numbers.values())
        return pointed if is_valid else max(numbers, key=numbers.__getitem__)


def troubles(store: Storage, unrecorded: Iterable[Unrecorded] = (), required: Iterable[str] = ()) -> list[str]:
    """Return how a store differs from what its events say; nothing, if they agree.

    Args:
        store: the store, with nobody writing.
        unrecorded, required: as for `Replay`.
    """
    tables = Tables(store.path)
    replay = Replay(tables.events, unrecorded, required)
    expected, found = must_be(replay, tables), is_there(replay, tables)
    differ = [f"{one}: {must} by the events, but {found[one]}" for one, must in expected.items() if must != found[one]]
    return [*replay.troubles, *differ, *_impossible(replay, tables), *_seen_otherwise(store, tables)]


def must_be(replay: Replay, tables: Tables) -> dict[str, Any]:
    """Return what must be there; the name that a model had first is only in the tables."""
    there = {number: model for number, model in replay.models.items() if model.versions}
    return {
        "versions": {
            id: (model.name or tables.name(number), version.number)
            for number, model in there.items()
            for id, version in model.versions.items()
        },
        "current": {model.name or tables.name(number): model.current for number, model in there.items()},
        "aliases": {(number, *one) for number, model in replay.models.items() for one in model.aliases.items()},
        "metadata": {
            id: {field: value for field, value in version.fields.items() if value is not None}
            for model in there.values()
            for id, version in model.versions.items()
        },
        "required": replay.required,
        "runs": {id: run.succeeded for id, run in replay.runs.items()},
        "used": {(id, model, *used) for id, run in replay.runs.items() for model, used in run.used.items()},
        "expected": {(id, name) for id, run in replay.runs.items() for name in run.expected},
    }


def is_there(replay: Replay, tables: Tables) -> dict[str, Any]:
    """Return the same according to the tables; of the metadata, only the fields that the events tell of."""
    metadata = {id: json.loads(text or "{}") for id, (_, _, text) in tables.versions.items()}
    told = {id: replay.versions[id].fields if id in replay.versions else {} for id in metadata}
    names = {name for name, *_ in tables.versions.values()}
    return {
        "versions": {id: (name, number) for id, (name, number, _) in tables.versions.items()},
        "current": {name: tables.current(name) for name in names},
        "aliases": tables.aliases,
        "metadata": {
            id: {field: fields[field] for field in told[id] if fields.get(field) is not None}
            for id, fields in metadata.items()
        },
        "required": tables.required,
        "runs": {id: None if succeeded is None else bool(succeeded) for id, succeeded in tables.runs.items()},
        "used": {(*row[:4], bool(row[4])) for row in tables.run_models if row[2] is not None},
        "expected": {(row[0], tables.name(row[1])) for row in tables.run_models if row[5]},
    }


def _impossible(replay: Replay, tables: Tables) -> list[str]:
    """Return what cannot be, whatever happened."""
    names = {name: versions for name, versions, _ in tables.names.values() if name is not None}
    given = [f"{one} has more versions than were given" for one in _above(tables, names)]
    there = {name for name, *_ in tables.versions.values()}
    pointing = [f"{name} has a restored version, but no versions" for name in tables.restored.keys() - there]
    unused = [f"{row} is neither used nor expected" for row in tables.run_models if row[2] is None and not row[5]]
    inside = [
        f"more processes are in {run} than entered it"
        for run in tables.run_processes
        if tables.run_processes.count(run) > replay.runs[run].inside
    ]
    return [*given, *pointing, *unused, *inside, *(text for (text,) in tables.integrity if text != "ok")]


def _above(tables: Tables, names: dict[str, int]) -> list[str]:
    return [name for name, number, _ in tables.versions.values() if number > names.get(name, 0)]


def _seen_otherwise(store: Storage, tables: Tables) -> list[str]:
    """Return how the package shows the store otherwise than its tables say."""
    shown = {(one.name, one.version, one.current, one.aliases) for one in store.find(all_versions=True)}
    aliases: dict[int, list[str]] = defaultdict(list)
    for _, alias, version in sorted(tables.aliases):
        aliases[version].append(alias)
    is_so = {
        (name, number, tables.current(name) == id, tuple(aliases[id]))
        for id, (name, number, _) in tables.versions.items()
    }
    named = {event.id: None if event.model is None else tables.name(event.model) for event in tables.events}
    logged = {one.id: one.name for one in store.log()}
    return [f"{one} is not shown, or not so" for one in shown ^ is_so] + [
        f"the event {id} is shown as one of {logged.get(id)!r}, not {named[id]!r}"
        for id in named
        if logged.get(id, "") != named[id]
    ]
