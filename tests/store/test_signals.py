"""What a signal handler raises interrupts the operation and comes out as itself; the store stays usable."""

import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.machine import need
from tests.support.stores import NOTHING, leftovers
from views_runs import ModelLoadError, Storage, filesystems
from views_runs.database import locks
from views_runs.database.connection import Connection
from views_runs.pickles import packages

ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"


class Alarm(TimeoutError):
    """Raised by the handlers."""


def ring(number: int, frame: FrameType | None) -> None:
    raise Alarm("time is up")


class Bell:
    """An object that can be a handler, and has a method that can."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise Alarm("time is up")

    def ring(self, number: int, frame: FrameType | None) -> None:
        raise Alarm("time is up")


@pytest.fixture(params=[ring, Bell(), Bell().ring, partial(ring)], ids=["function", "object", "method", "partial"])
def handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A handler of SIGALRM, for the test."""
    need(hasattr(signal, "SIGALRM"), "this system has no SIGALRM")
    before = signal.signal(signal.SIGALRM, request.param)
    try:
        yield request.param
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Slow:
    """The signal comes while it is pickled or unpickled."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __getstate__(self) -> dict[str, str]:
        send(self.when == "pickled")
        return {"when": self.when}

    def __setstate__(self, state: dict[str, str]) -> None:
        send(state["when"] == "unpickled")


def send(due: bool) -> None:
    """Send the signal, if it is due."""
    if due:
        os.kill(os.getpid(), signal.SIGALRM)


@pytest.mark.usefixtures("handler")
def test_a_long_statement(store: Storage) -> None:
    """A statement that never ends is interrupted, and the connection goes on."""
    store.store("m", 1)
    with Connection(store.path, 1) as connection:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm, match="time is up") as caught:
            connection.rows(ENDLESS)
        assert caught.value.__cause__ is None
        assert connection.value("SELECT name FROM models") == "m"


@pytest.mark.usefixtures("handler")
def test_a_long_statement_in_a_transaction(store: Storage) -> None:
    """The transaction is rolled back."""
    store.store("m", 1)
    with Connection(store.path, 1) as connection:
        with pytest.raises(Alarm), connection.transaction():
            connection.change("DELETE FROM models")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            connection.rows(ENDLESS)
    assert store.fetch("m") == 1


@pytest.mark.usefixtures("handler")
def test_while_it_is_pickled(store: Storage) -> None:
    """It is not taken for an object that cannot be pickled, and nothing is stored."""
    with pytest.raises(Alarm, match="time is up"):
        store.store("m", [os.urandom(9_000_000), Slow("pickled")])
    assert store.list() == [] and leftovers(store) == NOTHING


@pytest.mark.usefixtures("handler")
def test_while_it_is_unpickled(store: Storage) -> None:
    """It is not taken for a model that cannot be loaded."""
    store.store("m", Slow("unpickled"))
    with pytest.raises(Alarm, match="time is up"):
        store.fetch("m")


@pytest.mark.usefixtures("handler")
def test_while_the_culprit_is_looked_for(store: Storage) -> None:
    """The part that was looked at is not taken for the culprit."""

    class Second(list[int]):
        """The signal comes when it is pickled for the second time, by itself."""

        def __reduce__(self) -> Any:
            self.append(1)
            send(len(self) == 2)
            return list, ()

    with pytest.raises(Alarm):
        store.store("m", [Second(), lambda: 0])


@pytest.mark.usefixtures("handler")
def test_while_metadata_is_converted(store: Storage) -> None:
    """A signal in the method that makes a dict of metadata is not an error of the metadata."""

    class Model:
        def model_dump(self) -> dict[str, Any]:
            send(True)
            return {}

    with pytest.raises(Alarm):
        store.store("m", 1, Model())


@pytest.mark.usefixtures("handler")
def test_while_distributions_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered as unknown because of a signal."""
    from importlib import metadata

    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: send(True) or version(name))
    packages.forget()
    with pytest.raises(Alarm):
        packages.version("rich")
    monkeypatch.undo()
    assert packages.version("rich") == version("rich")


class Color(Enum):
    """An Enum is called while its members are looked up, as a handler is called."""

    RED = 1
    BLUE = 2


@pytest.mark.usefixtures("handler")
def test_a_failure_inside_of_an_enum(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers of signals that nobody handles are members of an Enum: its code is not a handler's."""
    store.store("m", Color.BLUE)
    monkeypatch.delitem(Color._value2member_map_, 2)
    monkeypatch.delitem(Color._member_map_, "BLUE")
    with pytest.raises(ModelLoadError, match="2 is not a valid Color"):
        store.fetch("m")


@pytest.mark.usefixtures("handler")
def test_while_times_are_compared(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in a function that SQL calls is neither lost nor taken for damage."""
    from views_runs.database import models

    store.store("m", 1, {"when": datetime(2026, 11, 23)})

    def compare_time(*arguments: Any) -> Any:
        send(True)
        return 1

    monkeypatch.setattr(models, "compare_time", compare_time)
    with pytest.raises(Alarm):
        store.find("when > 2026-01-01")


@pytest.mark.usefixtures("handler")
def test_while_permissions_are_checked(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError is an OSError, and is not taken for a file that cannot be looked at."""
    store.store("m", 1)
    stat, sent = os.stat, []

    def interrupted(path: Any, **options: Any) -> os.stat_result:
        if path == str(store.path.parent) and not sent:
            sent.append(path)
            send(True)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", interrupted)
    with pytest.raises(Alarm):
        store.fetch("m")


@pytest.mark.usefixtures("handler")
def test_while_mounts_are_looked_up(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a system without a table of mounts, where nothing would be refused."""
    need(os.path.exists(filesystems.MOUNTS), "this system has no such table")
    parse = filesystems.Mount.parse

    def interrupted(line: str) -> filesystems.Mount:
        send(True)
        return parse(line)

    monkeypatch.setattr(filesystems, "SMB_LINE", re.compile(b""))
    monkeypatch.setattr(filesystems.Mount, "parse", interrupted)
    with pytest.raises(Alarm):
        store.store("m", 1)
    assert not store.path.exists()


@pytest.mark.usefixtures("handler")
def test_while_locks_are_tried(store: Storage, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends a wait for a lock."""
    store.store("m", 1)
    sql.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(locks, "find_trouble", lambda folder, processes: send(True))
    with pytest.raises(Alarm):
        Storage(store.path, timeout=0.2).fetch("m")
