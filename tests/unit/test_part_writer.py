"""A pickle is cut into parts, each with the digest of all up to its end."""

import hashlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.budgets import budget
from views_runs.pickles.parts import FIRST_PART_SIZE, PART_SIZE, Part, PickleWriter


@settings(max_examples=budget(40), deadline=None)
@given(st.lists(st.integers(0, 2 * PART_SIZE + 2), max_size=8), st.randoms(use_true_random=False))
def test_parts_are_the_stream(sizes: list[int], random: Any) -> None:
    """Whatever is written in whatever pieces, the parts are it, each with the digest of all up to its end."""
    pieces = [random.randbytes(min(size, 1000)) * (size // 1000) + random.randbytes(size % 1000) for size in sizes]
    parts: list[Part] = []
    writer = PickleWriter(parts.append)
    for piece in pieces:
        assert writer.write(piece) == len(piece)
    pickled = writer.finish()
    parts.insert(0, pickled.first)
    whole = b"".join(pieces)
    assert b"".join(part.data for part in parts) == whole
    lengths = [len(part.data) for part in parts]
    if len(whole) >= PART_SIZE:
        assert lengths[:2] == [FIRST_PART_SIZE, PART_SIZE - FIRST_PART_SIZE]
        assert set(lengths[2:-1]) <= {PART_SIZE} and lengths[-1] <= PART_SIZE
    else:
        assert len(lengths) == 1
    assert (pickled.size, pickled.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    for number, part in enumerate(parts):
        assert part.digest == hashlib.sha256(whole[: sum(lengths[: number + 1])]).digest()
