"""Memory of a pool of caches, which can go back to the system page by page. Linux; elsewhere nothing can be given back."""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.large_pages import reserved

CacheType = type[np.float32] | type[np.float16]
CAN_RETURN = sys.platform == "linux"
LARGE_PAGES_LIMIT_BYTES = 1 << 30
"""Of a pool in large pages nearly all is soon there, however short its texts, and that may be many times what the model takes.
Attention is no faster by them (``docs/log.md``)."""


def cache_memory(num_bytes: int, pool_bytes: int) -> mmap.mmap:
    """Memory for the caches of a pool, or for a part of them. Raises ``CapacityError`` where the system does not grant it."""
    memory = reserved(num_bytes, "caches")
    if CAN_RETURN and pool_bytes > LARGE_PAGES_LIMIT_BYTES:
        with suppress(OSError):  # a system without large pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


class CachePages:
    """An ``array`` of zeros [parts, slots, heads, capacity, head size] of ``kind``; what is never written takes no memory.

    How much is taken at once is the system's choice, and large pages are asked for, which serve many slots: the first token
    of one cache takes the memory of several. In a pool of over ``LARGE_PAGES_LIMIT_BYTES``, and after ``in_small_pages``, a
    cache takes what it held at most, to the page. Raises ``CapacityError`` where the system does not grant so much.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], kind: CacheType = np.float32) -> None:
        self._shape, self._item_bytes = shape, np.dtype(kind).itemsize
        self._slot_bytes = math.prod(shape[2:]) * self._item_bytes
        num_bytes = math.prod(shape) * self._item_bytes
        self._memory = cache_memory(num_bytes, num_bytes)
        self.array: NDArray[Any] = np.frombuffer(self._memory, kind).reshape(shape)

    def in_small_pages(self) -> None:
        """Take memory in the smallest pages from now on; what is there already goes back, and its content is lost."""
        with suppress(OSError):  # a system without large pages
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._memory.madvise(mmap.MADV_DONTNEED)

    def give_back(self, slot: int) -> None:
        """Give back the memory of one slot, whose content is lost; pages that it shares with its neighbours stay."""
        parts, slots = self._shape[:2]
        for part in range(parts):
            start = (part * slots + slot) * self._slot_bytes
            first, end = -(-start // mmap.PAGESIZE), (start + self._slot_bytes) // mmap.PAGESIZE
            if first < end:
                self._memory.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)

    def bytes_of(self, num_positions: int) -> int:
        """The most memory that a slot takes of which so many positions were written, in small pages.

        Each part keeps each head's positions in one piece, that may begin and end within a page.
        """
        parts, _, heads, _, head_size = self._shape
        pages = 1 + math.ceil(num_positions * head_size * self._item_bytes / mmap.PAGESIZE)
        return parts * heads * pages * mmap.PAGESIZE
