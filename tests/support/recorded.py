"""Workers that change a store with every verb that is recorded, and the check of the store against what they said.

A worker says a line of JSON before each verb and one after it. It gives each verb a reason of its own, by which its
events are found. Some models are its own: nobody else changes them, so it knows beforehand which events there must be.
Others belong to all, and whatever the others do to them, the events must agree with what is there.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.support.replay import Event, Tables, troubles
from views_runs import ModelNotFoundError, ModelRecord, Storage, StorageError

#: The verbs, and what their events are called.
VERBS = {
    "store": "stored",
    "annotate": "annotated",
    "store_metadata": "annotated",
    "restore": "restored",
    "alias": "aliased",
    "unalias": "unaliased",
    "rename": "renamed",
    "delete": "deleted",
    "delete_all": "deleted",
    "delete_many": "deleted",
    "prune": "pruned",
    "require": "required",
    "enter": "entered",
    "leave": "ended",
    "expect": "expected",
    "add": "used",
    "store_in_run": "stored",
}

#: The verbs that are done more often than others, so that models have several versions, and an earlier one is current.
OFTEN = ("store", "restore", "rename")

#: The verbs that change one version after the other, each in a transaction of its own.
ONE_BY_ONE = ("delete_all", "delete_many", "prune")

#: What follows from an event of the same verb.
FOLLOWING = {"replaced"}

#: The verbs that are done within a run.
IN_RUN = ("expect", "add", "store_in_run")

#: The errors of verbs on models that others change at the same time.
OVERTAKEN = ("ModelNotFoundError", "AliasNotFoundError", "ModelExistsError", "ModelInUseError")

RUNS = ("r", "s")
SHARED = ("x", "y", "z")
ALIASES = ("production", "draft")

#: Sizes of models in bytes: of one part, and of several.
SMALL, LARGE = 10, 1_200_000

Events = list[tuple[str, Any]]


class Change(NamedTuple):
    """A verb on one model, and the events that there must be once it is acknowledged."""

    do: Callable[[str], Any]
    #: None if they depend on what others do.
    events: Callable[[Any], Events] | None


def once(verb: str) -> Callable[[ModelRecord], Events]:
    """Return what tells that there must be one event, of the version that is returned."""
    return lambda record: [(VERBS[verb], record.version)]


class Worker:
    """Does one verb after the other, and says so.

    Args:
        store: the store.
        name: of the worker, from which its choices follow; no two workers have the same.
        say: called with each line.
        place: whose models are its own: of the workers at the same time, no two have the same.
        shares: whether it also changes the models that belong to all.
    """

    def __init__(
        self, store: Storage, name: str, say: Callable[[str], object], place: str = "a", shares: bool = True
    ) -> None:
        self.store, self.name, self._say, self._shares = store, name, say, shares
        #: What it is doing.
        self.verb = ""
        #: What it chooses from.
        self.sizes: tuple[int, ...] = (SMALL, SMALL, SMALL, LARGE)
        self._choose = random.Random(name)
        self._own = [f"{place}{number}" for number in range(4)]
        self._number = 0

    def step(self, verb: str) -> None:
        """Do a verb; an error of the store is said, and any other is raised."""
        self.plan(verb)()

    def plan(self, verb: str) -> Callable[[], object]:
        """Return what does a verb, to a model that is there to do it to; if there is none, it stores one."""
        if verb in ("enter", "leave", *IN_RUN):
            known = [*self._own, *(SHARED if self._shares else ())]
            names = [name for name in self._choose.sample(known, len(known)) if self._versions(name)]
            return partial(self._work_in_run, verb, names[:2] or known[:2])
        is_own = not self._shares or self._choose.random() < 0.6
        found = {name: self._versions(name) for name in self._choose.sample(self._own if is_own else SHARED, 3)}
        names = [*found]
        if not self._shares or self._choose.random() < 0.5:
            # There is most to lose where the highest version is not current.
            names.sort(key=lambda name: not found[name] or found[name][0].current)
        changes = (change for name in names if (change := getattr(self, f"_{verb}")(name, found[name])))
        change = next(changes, None)
        if change is None:
            name = next((name for name in names if found[name]), names[0])
            verb, change = "store", self._store(name, [])
        return partial(self._do, verb, change, is_own)

    def _versions(self, name: str) -> list[ModelRecord]:
        try:
            return self.store.versions(name)
        except ModelNotFoundError:
            return []

    def _do(self, verb: str, change: Change, is_own: bool = True) -> bool:
        """Say that a verb begins, do it, and say how it ended; return whether it was acknowledged."""
        self._number += 1
        self.verb, why = verb, f"{self.name}-{self._number}"
        line = {"verb": verb, "why": why, "own": is_own}
        self._tell({**line, "is": "begun"})
        try:
            answer = change.do(why)
        except StorageError as error:
            self._tell({**line, "is": "failed", "error": f"{type(error).__name__}: {error}"})
            return False
        events = change.events and change.events(answer)
        place = [answer.name, answer.version] if VERBS[verb] == "stored" else None
        self._tell({**line, "is": "done", "events": events, "place": place})
        return True

    def _tell(self, line: dict[str, Any]) -> None:
        self._say(json.dumps(line) + "\n")

    # The verbs: each is given a name and the versions that it has, and returns None if there is nothing to do

    def _model(self) -> bytes:
        return self._choose.randbytes(self._choose.choice(self.sizes))

    def _store(self, name: str, versions: list[ModelRecord]) -> Change:
        return Change(
            lambda why: self.store.store(name, self._model(), {"token": why}, overwrite=True, why=why), once("store")
        )

    def _annotate(self, name: str, versions: list[ModelRecord]) -> Change | None:
        return Change(lambda why: self.store.annotate(name, note=why, why=why), once("annotate")) if versions else None

    def _store_metadata(self, name: str, versions: list[ModelRecord]) -> Change | None:
        if not versions or name in SHARED:
            return None
        record = self._choose.choice(versions)
        token = (record.metadata or {})["token"]

        def replace(why: str) -> ModelRecord:
            metadata = {"token": token, "set": why}
            return self.store.store_metadata(name, metadata, overwrite=True, version=record.version, why=why)

        return Change(replace, once("store_metadata"))

    def _restore(self, name: str, versions: list[ModelRecord]) -> Change | None:
        earlier = [record.version for record in versions if not record.current]
        if not earlier:
            return None
        version = self._choose.choice(earlier)
        return Change(lambda why: self.store.restore(name, version, why=why), self._known(name, "restore"))

    def _known(self, name: str, verb: str) -> Callable[[ModelRecord], Events] | None:
        """Return that there must be one event, unless others may have seen to it that there is nothing left to do."""
        return None if name in SHARED else once(verb)

    def _alias(self, name: str, versions: list[ModelRecord]) -> Change | None:
        alias = self._choose.choice(ALIASES)
        others = [record.version for record in versions if alias not in record.aliases]
        if not others:
            return None
        version = self._choose.choice(others)
        return Change(lambda why: self.store.alias(name, alias, version, why=why), self._known(name, "alias"))

    def _unalias(self, name: str, versions: list[ModelRecord]) -> Change | None:
        aliases = [alias for record in versions for alias in record.aliases]
        if not aliases:
            return None
        alias = self._choose.choice(aliases)
        return Change(lambda why: self.store.unalias(name, alias, why=why), once("unalias"))

    def _rename(self, name: str, versions: list[ModelRecord]) -> Change | None:
        others = SHARED if name in SHARED else self._own
        free = [other for other in others if other != name and not self._versions(other)]
        if not versions or not free:
            return None
        return Change(lambda why: self.store.rename(name, free[0], why=why), lambda _: [("renamed", None)])

    def _delete(self, name: str, versions: list[ModelRecord]) -> Change | None:
        if len(versions) < 2:
            return None
        version = self._choose.choice(versions).version
        events = None if name in SHARED else lambda _: [("deleted", version)]
        return Change(lambda why: self.store.delete(name, version, force=True, why=why), events)

    def _delete_all(self, name: str, versions: list[ModelRecord]) -> Change | None:
        if not versions:
            return None
        events = None if name in SHARED else lambda _: [("deleted", record.version) for record in versions]
        return Change(lambda why: self.store.delete(name, force=True, why=why), events)

    def _delete_many(self, name: str, versions: list[ModelRecord]) -> Change | None:
        options: dict[str, Any] = {"where": "not current", "all_versions": True, "force": True}
        if len(versions) < 2:
            return None
        return Change(lambda why: self.store.delete_many(f"{name}*", why=why, **options), None)

    def _prune(self, name: str, versions: list[ModelRecord]) -> Change | None:
        if all(record.current or record.aliases for record in versions[1:]):
            return None
        return Change(lambda why: self.store.prune(name, keep_last=1, why=why), None)

    def _require(self, name: str, versions: list[ModelRecord]) -> Change:
        # What all models have.
        fields = self._choose.choice([(), ("token",)])
        return Change(lambda why: self.store.require(*fields, why=why), lambda _: [("required", None)])

    def _work_in_run(self, verb: str, names: list[str]) -> None:
        """Enter a run, do a verb in it, or some, and leave it again."""
        id = self._choose.choice(RUNS)

        def enter(why: str) -> None:
            self.run = self.store.run(id, why=why)
            self.run.__enter__()

        def add(why: str) -> ModelRecord:
            return self.run.add(self._choose.choice(names), why=why)

        def store(why: str) -> ModelRecord:
            return self.run.store(names[0], self._model(), {"token": why}, overwrite=True, why=why)

        inside = {
            "add": Change(add, None),
            "expect": Change(lambda why: self.run.expect(names, why=why), None),
            "store_in_run": Change(store, None),
        }
        if not self._do("enter", Change(enter, lambda _: [("entered", None)])):
            return
        for other in [verb] if verb in IN_RUN else self._choose.choices(IN_RUN, k=self._choose.randrange(3)):
            self._do(other, inside[other], is_own=False)
        # An end that cannot be recorded is logged.
        with patch("views_runs.runs.log.warning", _raise):
            self._do("leave", Change(lambda why: self.run.__exit__(None, None, None), None))


def _raise(_: str, error: StorageError) -> None:
    raise error


class Told:
    """What workers said that they did."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        #: By the reason: the last line about a verb.
        self.lines: dict[str, dict[str, Any]] = {}
        self.add(lines)

    def add(self, lines: Iterable[str]) -> None:
        """Take in more lines, each worker's in their order; the last one may be cut off."""
        for text in lines:
            if text.endswith("\n"):
                line = json.loads(text)
                self.lines[line["why"]] = line

    def having(self, state: str) -> list[dict[str, Any]]:
        """Return the lines about verbs that are done, failed, or only begun."""
        return [line for line in self.lines.values() if line["is"] == state]

    def troubles(self, store: Storage) -> list[str]:
        """Return how the store differs from its events, and these from what was said; nothing, if all is well."""
        tables = Tables(store.path)
        recorded: defaultdict[str | None, list[Event]] = defaultdict(list)
        for event in tables.events:
            recorded[event.why].append(event)
        return [
            *troubles(store),
            *(text for line in self.lines.values() for text in _differ(line, recorded[line["why"]])),
            *self._left(recorded[None]),
            *(f"{why} was never said: {recorded[why]}" for why in recorded.keys() - self.lines.keys() - {None}),
            *self._given_twice(),
            *_exchanged(tables),
            *(f"{one.name}: {one.trouble}" for one in store.verify().damaged),
        ]

    def _left(self, events: list[Event]) -> list[str]:
        """Return what is wrong with the events that have no reason: only leaving a run takes none."""
        leaves, begun = (sum(line["verb"] == "leave" for line in self.having(state)) for state in ("done", "begun"))
        failed = sum(line["verb"] == "leave" for line in self.having("failed"))
        if {event.action for event in events} <= {"ended"} and leaves <= len(events) <= leaves + begun + failed:
            return []
        return [f"{leaves} to {leaves + begun + failed} runs were left, not {events}"]

    def _given_twice(self) -> list[str]:
        """Return the numbers that a name was given twice."""
        places = Counter(tuple(line["place"]) for line in self.having("done") if line["place"])
        return [f"{place} was given {count} times" for place, count in places.items() if count > 1]


def _differ(line: dict[str, Any], recorded: list[Event]) -> list[str]:
    """Return how the events of a verb differ from what was said about it."""
    found = sorted((event.action, event.number) for event in recorded if event.action not in FOLLOWING)
    if line["is"] == "done" and line["events"] is not None:
        is_right = found == sorted(map(tuple, line["events"]))
    else:
        # Nothing, or what belongs to the verb.
        is_right = {action for action, _ in found} <= {VERBS[line["verb"]]}
        is_right &= len(found) <= 1 or line["verb"] in ONE_BY_ONE
    if line["is"] == "done" and line["place"]:
        is_right &= found == [("stored", line["place"][1])]
    if line["is"] == "failed" and line["error"].startswith(OVERTAKEN):
        is_right &= not found
    return [] if is_right else [f"{line} has the events {recorded}"]


def _exchanged(tables: Tables) -> list[str]:
    """Return the versions that are not what was stored: their metadata repeats the reason."""
    reasons = {event.version: event.why for event in tables.events if event.action == "stored"}
    tokens = {id: json.loads(metadata)["token"] for id, (_, _, metadata) in tables.versions.items()}
    return [f"{id} is {token}, not {reasons.get(id)}" for id, token in tokens.items() if token != reasons.get(id)]
