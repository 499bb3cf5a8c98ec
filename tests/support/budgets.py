"""How much a test tries: the quick tests a part of it, those in tests/slow all of it.

A test that is marked ``abridged`` does less among the quick tests. tests/slow/test_in_full.py runs it again, in a
process where ``$TESTS_IN_FULL`` is set.
"""

import os
import random
import time
from collections.abc import Iterator

#: Whether every test does all that it can.
IN_FULL = bool(os.environ.get("TESTS_IN_FULL"))

#: How many workers tests/slow/test_crash.py and test_recorded.py kill, and up to how many system calls of a kind
#: test_faults.py and test_recorded.py make each fail of an operation.
KILLS = int(os.environ.get("TESTS_KILLS", "300"))
FAULTS = int(os.environ.get("TESTS_FAULTS", "16"))

#: For how many seconds each fuzzer in tests/slow tries what it can, and the seed of its first trial: it counts up with
#: each trial, so that the seed that a failure names is the first that is tried when it is given.
SECONDS = float(os.environ.get("TESTS_SECONDS", "20"))
SEED = int(os.environ.get("TESTS_SEED") or int.from_bytes(os.urandom(4)))


def budget(full: int, quick: int = 0) -> int:
    """Return how often to try something that is tried so often in full; without another number a tenth of that."""
    return full if IN_FULL else quick or max(1, full // 10)


def trials(seconds: float = SECONDS, seed: int = SEED) -> Iterator[tuple[int, random.Random]]:
    """Yield a seed and its random choices for one trial after the other, at least one, until the seconds are over.

    With the seed of a trial that failed as ``$TESTS_SEED``, that trial is the first.
    """
    end = time.monotonic() + seconds
    while True:
        yield seed, random.Random(seed)
        seed += 1
        if time.monotonic() >= end:
            return
