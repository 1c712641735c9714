"""Which caches of an engine are open, in which place, how long they are, and whether a pass over them means something."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.errors import CacheClosedError, CapacityError, InvalidRequestError


@dataclass(slots=True)
class Slot:
    """One session's place in the pool, and the tokens in its cache."""

    number: int
    length: int = 0


class Slots:
    """The book-keeping of an engine whose sessions each take one of ``num_slots`` places. Raises as ``Engine`` says."""

    def __init__(self, description: EngineDescription) -> None:
        self._context_length, self._vocabulary_size = description.context_length, description.vocabulary_size
        self._open: dict[CacheId, Slot] = {}
        self._free = list(range(description.num_slots))
        self._opened = 0

    def __getitem__(self, cache: CacheId) -> Slot:
        try:
            return self._open[cache]
        except KeyError:
            raise CacheClosedError(f"cache {cache} is closed, or was never opened") from None

    @property
    def num_open(self) -> int:
        return len(self._open)

    def open(self) -> CacheId:
        """A new cache in the lowest free place."""
        if not self._free:
            raise CapacityError(f"all {len(self._open)} cache slots are taken; close one, or load with more")
        self._opened += 1
        cache = CacheId(self._opened)
        self._open[cache] = Slot(heapq.heappop(self._free))
        return cache

    def close(self, cache: CacheId) -> Slot:
        """Give the place back; it comes back, for whoever keeps something under its number."""
        slot = self[cache]
        heapq.heappush(self._free, slot.number)
        return self._open.pop(cache)

    def truncate(self, cache: CacheId, length: int) -> None:
        """Keep the first ``length`` tokens."""
        slot = self[cache]
        if not 0 <= length <= slot.length:
            raise InvalidRequestError(f"a cache of {slot.length} tokens can be cut to 0 ... {slot.length}, not to {length}")
        slot.length = length

    def fork(self, cache: CacheId, length: int | None) -> tuple[CacheId, Slot, Slot]:
        """A new cache of ``length`` tokens (all, by default), its place, and its parent's: whoever calls copies the content."""
        parent = self[cache]
        length = parent.length if length is None else length
        if not 0 <= length <= parent.length:
            raise InvalidRequestError(f"a fork of a cache of {parent.length} tokens holds 0 ... {parent.length}, not {length}")
        child = self.open()
        slot = self[child]
        slot.length = length
        return child, slot, parent

    def of(self, chunks: Sequence[Chunk]) -> list[Slot]:
        """The chunks' places, once nothing but a token id could speak against running them."""
        slots = []
        for chunk in chunks:
            slot, count = self[chunk.cache], len(chunk.token_ids)
            if not 0 <= chunk.num_logits <= count or not 0 < count <= self._context_length - slot.length:
                self._refuse(chunk, slot)
            slots.append(slot)
        if len(slots) > 1 and len({chunk.cache for chunk in chunks}) < len(slots):
            raise InvalidRequestError("a cache may stand in one chunk of a pass only")
        return slots

    def check_tokens(self, token_ids: NDArray[np.int64]) -> None:
        """As ``check_token_ids``, of an array."""
        self.check_token_ids(int(token_ids.min()), int(token_ids.max()))

    def check_token_ids(self, lowest: int, highest: int) -> None:
        """Raises ``InvalidRequestError`` unless all ids from one to the other are in the vocabulary."""
        if lowest < 0 or highest >= self._vocabulary_size:
            raise InvalidRequestError(f"token ids must be from 0 to {self._vocabulary_size - 1}", "token_ids")

    def _refuse(self, chunk: Chunk, slot: Slot) -> NoReturn:
        count, room = len(chunk.token_ids), self._context_length - slot.length
        if count == 0:
            raise InvalidRequestError(f"the chunk for cache {chunk.cache} is empty; leave it out")
        if not 0 <= chunk.num_logits <= count:
            raise InvalidRequestError(f"a chunk of {count} tokens has logits of 0 ... {count}, not of {chunk.num_logits}")
        raise CapacityError(f"{count} tokens do not fit: {room} of {self._context_length} positions are left")
