"""A history of operations on one store by any number of workers, and the check of the store against it.

A worker writes a line of JSON before each operation and one after it, to a pipe and never to the store: what it
acknowledged is known whatever happens to it. A store whose end was not written, or that failed, may be there, whole.

    python history.py STORE WORKER SEED OPERATIONS [STOP]    # fewer operations, when there is a file STOP
    python history.py check STORE LINES ...                  # hold the store against files of workers' lines

Nothing but the package is imported, so that this file can be taken to another computer as it is.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from views_runs import ModelNotFoundError, Storage, StorageError

#: Sizes of models in bytes: of one part, and of several.
SMALL = (10, 40_000)
LARGE = (1_500_000, 4_500_000)

#: How often each operation is chosen.
WEIGHTS = {"store": 4, "overwrite": 4, "share": 2, "annotate": 4, "delete": 3, "fetch": 3, "find": 2}

#: The name that all workers store under.
SHARED = "shared"


def make(token: str, size: int) -> dict[str, Any]:
    """Return the model that belongs to a token: the same every time, and no two alike."""
    return {"token": token, "data": random.Random(token).randbytes(size)}


class Worker:
    """Does one random operation after the other, and says so.

    Args:
        store: the store.
        name: of the worker; no two workers have the same.
        seed: of its choices.
        say: called with each line.
        large: how many of 10 models have several parts.
    """

    def __init__(self, store: Storage, name: str, seed: int, say: Callable[[str], object], large: int = 4) -> None:
        self.store = store
        self.name = name
        self.large = large
        self._random = random.Random(f"{name} {seed}")
        self._say = say
        self._number = 0
        #: What this worker alone has stored: name to (token, size, counter of annotations).
        self.own: dict[str, tuple[str, int, int]] = {}

    def work(self, operations: int, weights: dict[str, int] = WEIGHTS) -> None:
        """Do so many operations."""
        for _ in range(operations):
            self.step(weights)

    def step(self, weights: dict[str, int] = WEIGHTS) -> None:
        """Do one operation; an error of the store is said, and any other is raised."""
        [kind] = self._random.choices([*weights], [*weights.values()])
        if not self.own and kind not in ("share", "find"):
            kind = "store"
        self._number += 1
        getattr(self, f"_{kind}")()

    def _do(self, operation: dict[str, Any], action: Callable[[], dict[str, Any]]) -> bool:
        """Say that an operation begins, do it, and say how it ended; return whether it was acknowledged."""
        operation = {"worker": self.name, "number": self._number, **operation}
        self._tell({**operation, "is": "begun"})
        try:
            answer = action()
        except StorageError as error:
            self._tell({**operation, "is": "failed", "error": f"{type(error).__name__}: {error}"})
            return False
        self._tell({**operation, **answer, "is": "done"})
        return True

    def _tell(self, line: dict[str, Any]) -> None:
        self._say(json.dumps(line) + "\n")

    def _wrong(self, trouble: str) -> None:
        self._tell({"worker": self.name, "number": self._number, "is": "wrong", "trouble": trouble})

    def _store(self) -> None:
        self._put(f"{self.name}-{self._number}", overwrite=False)

    def _overwrite(self) -> None:
        self._put(self._one(), overwrite=True)

    def _share(self) -> None:
        self._put(SHARED, overwrite=True)

    def _put(self, name: str, overwrite: bool) -> None:
        token = f"{self.name}-{self._number}"
        size = self._random.randint(*(LARGE if self._random.randrange(10) < self.large else SMALL))
        model = make(token, size)

        def action() -> dict[str, Any]:
            record = self.store.store(name, model, {"token": token, "count": 0}, overwrite=overwrite)
            return {"version": record.version, "sha256": record.sha256}

        if self._do({"kind": "store", "name": name, "token": token, "size": size}, action):
            if name != SHARED:
                self.own[name] = (token, size, 0)
        else:
            # Whether it is there is not known.
            self.own.pop(name, None)

    def _annotate(self) -> None:
        name = self._one()
        token, size, count = self.own[name]
        operation = {"kind": "annotate", "name": name, "token": token, "count": count + 1}
        if self._do(operation, lambda: {"version": self.store.annotate(name, count=count + 1).version}):
            self.own[name] = (token, size, count + 1)
        else:
            del self.own[name]

    def _delete(self) -> None:
        name = self._one()
        del self.own[name]

        def action() -> dict[str, Any]:
            self.store.delete(name)
            return {}

        self._do({"kind": "delete", "name": name}, action)

    def _fetch(self) -> None:
        name = self._one()
        token, size, count = self.own[name]

        def action() -> dict[str, Any]:
            if self.store.fetch(name) != make(token, size):
                self._wrong(f"{name} is not {token}")
            if self.store.fetch_metadata(name) != {"token": token, "count": count}:
                self._wrong(f"{name} has other metadata than {token} and {count}")
            return {}

        self._do({"kind": "fetch", "name": name}, action)

    def _find(self) -> None:
        def action() -> dict[str, Any]:
            found = {record.name for record in self.store.find(name=f"{self.name}-*")}
            if not set(self.own) <= found:
                self._wrong(f"{set(self.own) - found} was not found")
            return {}

        self._do({"kind": "find"}, action)

    def _one(self) -> str:
        return self._random.choice(sorted(self.own))


class Expected:
    """What must be in a store, and what may be, after the operations that these lines tell of."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        #: The versions that must be there: (name, version) to (token, size, digest).
        self.there: dict[tuple[str, int], tuple[str, int, str]] = {}
        #: Stores whose end is not known: token to (name, size).
        self.maybe_there: dict[str, tuple[str, int]] = {}
        #: Names whose deletion was begun, and its end is not known.
        self.maybe_gone: set[str] = set()
        #: Of each token, the counts that its metadata may have.
        self.counts: dict[str, set[int]] = {}
        #: What a worker itself saw go wrong, and what failed.
        self.wrong: list[str] = []
        self.failed: list[str] = []
        self.acknowledged = 0
        self._tokens: dict[tuple[str, int], str] = {}
        self.add(lines)

    def add(self, lines: Iterable[str]) -> None:
        """Take in more lines, each worker's in their order; the last one may be cut off."""
        for line in lines:
            if not line.endswith("\n"):
                continue
            event = json.loads(line)
            if event["is"] == "wrong":
                self.wrong.append(f"{event['worker']}: {event['trouble']}")
                continue
            if event["is"] == "failed":
                self.failed.append(event["error"])
            if event["is"] == "done":
                self.acknowledged += 1
            take = getattr(self, f"_{event['kind']}", None)
            if take:
                take(event, event["is"])

    def _store(self, event: dict[str, Any], state: str) -> None:
        token = event["token"]
        if state == "begun":
            self.maybe_there[token] = (event["name"], event["size"])
            self.counts[token] = {0}
        elif state == "done":
            del self.maybe_there[token]
            place = (event["name"], event["version"])
            if place in self._tokens:
                self.wrong.append(f"{place} was given to {self._tokens[place]} and to {token}")
            self._tokens[place] = token
            self.there[place] = (token, event["size"], event["sha256"])

    def _annotate(self, event: dict[str, Any], state: str) -> None:
        counts = self.counts[event["token"]]
        if state == "done":
            counts.clear()
        counts.add(event["count"])

    def _delete(self, event: dict[str, Any], state: str) -> None:
        if state == "begun":
            self.maybe_gone.add(event["name"])
        elif state == "done":
            self.maybe_gone.discard(event["name"])
            for place in [place for place in self.there if place[0] == event["name"]]:
                del self.there[place]
            for token in [token for token, (name, _) in self.maybe_there.items() if name == event["name"]]:
                del self.maybe_there[token]

    def troubles(self, store: Storage, fetch: bool = True) -> list[str]:
        """Return how the store differs from what it must be; nothing, if all is well.

        Args:
            store: the store, with nobody writing.
            fetch: load each model too, and compare it.
        """
        troubles = list(self.wrong)
        records = {(record.name, record.version): record for record in store.find(all_versions=True)}
        for place in self.there.keys() - records.keys():
            if place[0] not in self.maybe_gone:
                troubles.append(f"{place} was acknowledged and is not there")
        for place, record in records.items():
            token = (record.metadata or {}).get("token", "?")
            if place in self.there:
                expected, size, digest = self.there[place]
                if (token, record.sha256) != (expected, digest):
                    troubles.append(f"{place} is {token} with {record.sha256}, not {expected} with {digest}")
            elif self.maybe_there.get(token, ("",))[0] == place[0]:
                size = self.maybe_there[token][1]
            else:
                troubles.append(f"{place} is there: {token}, which was not stored or was deleted")
                continue
            if (record.metadata or {}).get("count") not in self.counts[token]:
                troubles.append(f"{place} has {record.metadata}, not one of {self.counts[token]}")
            if fetch and not self._loads(store, place, token, size):
                troubles.append(f"{place} is not {token} when it is fetched")
        return troubles

    def _loads(self, store: Storage, place: tuple[str, int], token: str, size: int) -> bool:
        try:
            return bool(store.fetch(*place) == make(token, size))
        except ModelNotFoundError:
            return False


def main(path: str, worker: str, seed: str, operations: str, stop: str = "", output: TextIO = sys.stdout) -> None:
    """Do a worker's operations, and write its lines."""

    def say(line: str) -> None:
        output.write(line)
        output.flush()

    worked = Worker(Storage(path), worker, int(seed), say)
    for _ in range(int(operations)):
        if stop and os.path.exists(stop):
            break
        worked.step()
        if not os.path.exists(worked.store.path.parent):
            # The share is away: no need to fail a thousand times.
            time.sleep(0.2)


def check(path: str, *files: str) -> int:
    """Print how a store differs from what these files of lines tell, and what they tell; return 1 if it differs."""
    expected = Expected()
    for file in files:
        with open(file, encoding="utf-8") as lines:
            expected.add(lines)
    try:
        troubles = expected.troubles(Storage(path))
    except StorageError as error:
        troubles = [str(error)]
    for trouble in troubles:
        print("WRONG", trouble)
    print(
        f"{expected.acknowledged} operations were acknowledged and {len(expected.failed)} failed; "
        f"{len(expected.there)} versions must be there, {len(expected.maybe_there)} may be; {len(troubles)} are wrong"
    )
    return int(bool(troubles))


if __name__ == "__main__":
    if sys.argv[1] == "check":
        sys.exit(check(*sys.argv[2:]))
    main(*sys.argv[1:])
