"""A draft without a model: what followed in the text so far where it last read like this.

The longest endings of the text that occurred in it before are looked up, and their continuations counted, by blended orders:
with ``n`` occurrences of an ending, followed by ``t`` different tokens, ``c(w)`` times by ``w``,

    p(w | ending) = (c(w) + t p(w | ending without its first token)) / (n + t),

down to the ending of no token, and behind that to the uniform. (Witten and Bell, "The zero-frequency problem", IEEE Trans. Inf.
Theory 37 (1991), method C; as a draft: Saxena, "Prompt lookup decoding", 2023.) The rows are log p, so its choices, second
choices and confidences are those of any draft model, and cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.packing import concatenated
from speculation.engines.slots import Slot, Slots

LONGEST_ENDING = 8
"""Tokens of an ending that are looked at; longer ones that occur again are almost always followed by the same token."""


class LookupEngine:
    """An ``Engine`` and ``Forkable`` that knows the text in its cache and nothing else."""

    def __init__(self, vocabulary_size: int, context_length: int, num_slots: int = 8) -> None:
        self._description = EngineDescription(
            name="lookup",
            vocabulary_size=vocabulary_size,
            context_length=context_length,
            num_slots=num_slots,
            num_parameters=0,
            weight_bytes=0,
            kv_bytes_per_token=0,
        )
        self._slots = Slots(self._description)
        self._texts = np.zeros((num_slots, context_length), np.int64)

    @property
    def description(self) -> EngineDescription:
        return self._description

    def open(self) -> CacheId:
        return self._slots.open()

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        slots = self._slots.of(chunks)
        if chunks:
            token_ids = concatenated(chunks)
            self._slots.check_token_ids(token_ids.min(), token_ids.max())
        rows = [row for slot, chunk in zip(slots, chunks, strict=True) for row in self._append(slot, chunk)]
        return np.array(rows, np.float32).reshape(len(rows), self._description.vocabulary_size)

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._slots.close(cache)

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        self._texts[slot.number, : slot.length] = self._texts[parent.number, : slot.length]
        return child

    def _append(self, slot: Slot, chunk: Chunk) -> Iterator[NDArray[np.float32]]:
        end = slot.length + len(chunk.token_ids)
        text = self._texts[slot.number]
        text[slot.length : end] = chunk.token_ids
        slot.length = end
        for length in range(end - chunk.num_logits + 1, end + 1):
            yield log_chances(text[:length], self._description.vocabulary_size)


def log_chances(text: NDArray[np.int64], vocabulary_size: int) -> NDArray[np.float32]:
    """Of every token behind ``text`` (int64 [T], T at least 1): float32 [vocabulary_size]."""
    seen, places = np.unique(text, return_inverse=True)
    chances, unseen = np.full(len(seen), 1 / vocabulary_size), 1 / vocabulary_size
    for followers in _followers(text):
        counts = np.bincount(places[followers], minlength=len(seen))
        kinds, total = np.count_nonzero(counts), len(followers)
        chances = (counts + kinds * chances) / (total + kinds)
        unseen *= kinds / (total + kinds)
    row = np.full(vocabulary_size, math.log(unseen), np.float32)
    row[seen] = np.log(chances)
    return row


def longest_ending(text: NDArray[np.int64]) -> int:
    """Tokens of the longest ending that occurred before, at most ``LONGEST_ENDING``."""
    return sum(1 for _ in _followers(text)) - 1


def _followers(text: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Positions that follow an occurrence of the text's ending: of none of its tokens, of its last, of its last two ..."""
    at = np.arange(len(text))
    yield at
    last = len(text) - 1
    for length in range(1, min(LONGEST_ENDING, last) + 1):
        # An occurrence ends right before the position, and begins inside the text.
        at = at[at >= length]
        at = at[text[at - length] == text[last - length + 1]]
        if not len(at):
            return
        yield at
