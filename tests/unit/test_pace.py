"""How much a transaction does is adapted to how long the one before took."""

import pytest

from views_runs.database import uploads


def test_the_part_sizes_of_a_step_adapt() -> None:
    """Transactions that are short get larger, those that are long smaller, never less than one."""
    pace = uploads.Pace(first=4, most=10)
    for _ in range(3):
        with pace.step():
            pass
    assert pace.count == 10
    pace._started = -1e9
    for took, expected in ((1.2, 5), (0.6, 2), (0.3, 1), (0.12, 2), (0.24, 2), (0.5, 1)):
        transaction(pace, took)
        assert pace.count == expected
    assert pace.slow_down() and not pace.slow_down()


def transaction(pace: uploads.Pace, took: float) -> None:
    """Let the pace see a transaction that took so many seconds."""
    pace.__enter__()
    pace._started -= took
    pace.__exit__(None, None, None)


@pytest.mark.parametrize(("fixed", "fewest"), [(0.09, 1), (0.2, 1), (0.4, 16)])
def test_a_disk_that_is_slow_to_write_anything(fixed: float, fewest: int) -> None:
    """Where a transaction takes long however little it does, each does much: smaller ones would help nobody."""
    pace = uploads.Pace(first=fewest, most=100 * fewest, fewest=fewest)
    for _ in range(20):
        transaction(pace, fixed + 0.001 * pace.count / fewest)
    assert pace.count > 50 * fewest


def test_a_wait_for_the_lock_is_not_work() -> None:
    """Transactions do not get smaller because others kept the lock."""
    pace = uploads.Pace(first=4, most=10)
    with pace.step():
        pace._started -= 5
        pace.begin()
    assert pace.count == 8
