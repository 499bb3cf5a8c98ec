"""How much a transaction does is adapted to how long the one before took."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from views_runs.database import uploads


def test_the_size_adapts() -> None:
    """After short transactions the next are larger, after long ones smaller, within the bounds."""
    pace = uploads.Pace(count=4, most=10)
    for took, expected in ((0.035, 8), (0.01, 10), (0.14, 5), (1.0, 1), (0.01, 7), (0.05, 9), (0.07, 9)):
        pace.adapt(took)
        assert pace.count == expected


@pytest.mark.parametrize(("fixed", "fewest"), [(0.09, 1), (0.2, 1), (0.4, 16)])
def test_a_disk_that_is_slow_to_write_anything(fixed: float, fewest: int) -> None:
    """Where a transaction takes long however little it does, each does much: smaller ones would help nobody."""
    pace = uploads.Pace(count=fewest, most=100 * fewest, fewest=fewest)
    for _ in range(20):
        pace.adapt(fixed + 0.001 * pace.count / fewest)
    assert pace.count > 50 * fewest


@pytest.mark.parametrize("each", [0.05, 0.1, 0.5])
def test_a_disk_that_writes_slowly(each: float) -> None:
    """Where each part takes long, a transaction has few."""
    pace = uploads.Pace(count=4, most=12)
    for _ in range(20):
        pace.adapt(each * pace.count)
    assert pace.count <= 2


def test_a_wait_for_the_lock_is_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions do not get smaller because others kept the lock, and there is a pause after each of these."""
    clock = SimpleNamespace(now=100.0, slept=0.0)

    def sleep(seconds: float) -> None:
        clock.slept += seconds

    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))

    @contextmanager
    def transaction(bulk: bool) -> Iterator[None]:
        assert bulk
        clock.now += 5
        connection.waits += 1
        yield

    connection: Any = SimpleNamespace(transaction=transaction, waits=0)
    pace = uploads.Pace(count=4, most=10)
    for _ in range(2):
        with pace.transaction(connection):
            clock.now += 0.02
    assert pace.count == 10
    assert clock.slept == pytest.approx(uploads.PAUSE)


def test_no_pause_while_nobody_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has met no lock pauses after a while only, and what has met one before the next transaction."""
    clock = SimpleNamespace(now=100.0, pauses=0)

    def sleep(seconds: float) -> None:
        clock.pauses += seconds > 0

    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    connection: Any = SimpleNamespace(waits=0)

    @contextmanager
    def transaction(bulk: bool) -> Iterator[None]:
        yield
        clock.now += 0.04

    connection.transaction = transaction
    pace = uploads.Pace(count=4, most=10)
    for _ in range(8):
        with pace.transaction(connection):
            pass
    # Each after three, which take 0.12 s: a fourth would take longer than `UNDISTURBED`.
    assert clock.pauses == 2
    for _ in range(3):
        with pace.transaction(connection):
            connection.waits += 1
    assert clock.pauses == 4
