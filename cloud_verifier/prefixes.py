"""Caches of texts that ended, kept for prompts that begin alike. Pure; the owner opens and closes the caches.

Each tenant has its own: no prompt finds what another tenant's left behind, so neither what it is answered nor how soon tells
of it. Where the room is needed, the cache that was used longest ago goes first; that costs its next user a prefill, no more.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from speculation.engines.base import CacheId

LEAST_SHARED = 16
"""Tokens that a prompt must have in common with a kept text; a shorter beginning is as quickly run again."""


@dataclass(frozen=True, slots=True)
class _Kept:
    tenant: Hashable
    token_ids: tuple[int, ...]
    cache: CacheId


class Prefixes:
    """At most ``capacity`` caches, in the order in which they were put."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, tenant: Hashable, token_ids: Sequence[int], cache: CacheId) -> list[CacheId]:
        """Keep a cache that holds these tokens. Returns those that are to be closed for it, perhaps itself."""
        if len(token_ids) < LEAST_SHARED:
            return [cache]
        self._kept.append(_Kept(tenant, tuple(token_ids), cache))
        return self.shrink(self._capacity)

    def take(self, tenant: Hashable, token_ids: Sequence[int]) -> tuple[CacheId, int] | None:
        """The tenant's cache that shares the longest beginning with a text, and its length; the taker owns it from now on.

        At least the last token of the text is never shared: it has to be run for the choice behind it.
        """
        wanted = tuple(token_ids[:-1])
        found = [(_shared(kept.token_ids, wanted), kept) for kept in self._kept if kept.tenant == tenant]
        length, kept = max(found, key=lambda pair: pair[0], default=(0, None))
        if kept is None or length < LEAST_SHARED:
            return None
        self._kept.remove(kept)
        return kept.cache, length

    def shrink(self, most: int) -> list[CacheId]:
        """Keep at most so many. Returns those that are to be closed, the oldest."""
        count = max(0, len(self._kept) - most)
        dropped, self._kept = self._kept[:count], self._kept[count:]
        return [kept.cache for kept in dropped]


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Length of the common beginning, by halving: slices are compared at once."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
