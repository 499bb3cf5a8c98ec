"""Models whose pickles have several parts, and that do something while they are being pickled."""

import os
from collections.abc import Callable, Iterator
from typing import Any

#: No part of a pickle in a store is larger than this, and a part is nearly as large.
MIB = 1 << 20


class Pieces:
    """A list of random bytes, one MiB each, made while it is pickled.

    Args:
        count: how many.
        on_piece: called with the number of each piece before it is pickled.
    """

    def __init__(self, count: int, on_piece: Callable[[int], object] = lambda number: None) -> None:
        self._count, self._on_piece = count, on_piece

    def __reduce__(self) -> Any:
        return list, (), None, self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        for number in range(self._count):
            self._on_piece(number)
            yield os.urandom(MIB)
