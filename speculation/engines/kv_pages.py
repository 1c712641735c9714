"""Which page of a shared pool holds which positions of which cache (Kwon et al., arXiv 2309.06180). Pure.

A cache takes pages as it grows and gives all of them back when it ends, so that many short sessions fit where few long ones
would. Page 0 is nobody's: what has no place is written there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.errors import CapacityError

PAGE = 64
"""Positions of a page."""


def pages_of(num_positions: int) -> int:
    """How many pages hold so many positions."""
    return -(-num_positions // PAGE)


class KvPages:
    """The pages of ``num_slots`` caches of up to ``context_length`` positions, of which there are ``num_pages`` beside page 0.

    ``table``: int32 [slots, pages of a context]; the page of each part of each cache, 0 where it has none.
    """

    def __init__(self, num_slots: int, context_length: int, num_pages: int) -> None:
        self.table: NDArray[np.int32] = np.zeros((num_slots, pages_of(context_length)), np.int32)
        self._num_held = [0] * num_slots
        self._free = list(range(num_pages, 0, -1))
        self._changed: set[int] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def grow(self, lengths: Sequence[tuple[int, int]]) -> None:
        """Have pages for (slot, positions) pairs. Raises ``CapacityError`` where too few are left, and changes nothing."""
        missing = [(slot, pages_of(length) - self._num_held[slot]) for slot, length in lengths]
        num_missing = sum(max(0, count) for _, count in missing)
        if num_missing > self.num_free:
            raise CapacityError(
                f"the pool of caches is full: {num_missing} pages of {PAGE} tokens are needed, and {self.num_free} are left"
            )
        for slot, count in missing:
            for _ in range(count):
                self.table[slot, self._num_held[slot]] = self._free.pop()
                self._num_held[slot] += 1
                self._changed.add(slot)

    def held(self, slot: int) -> NDArray[np.int32]:
        """The pages of a cache, in the order of its positions."""
        return self.table[slot, : self._num_held[slot]]

    def give_back(self, slot: int) -> None:
        """The cache is over: its pages are free. What is left of it in ``table`` is never looked up."""
        self._free += reversed(self.held(slot).tolist())
        self._num_held[slot] = 0

    def take_changed(self) -> set[int]:
        """The slots whose pages became more since the last call."""
        changed, self._changed = self._changed, set()
        return changed
