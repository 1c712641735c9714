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
from dataclasses import dataclass

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
            self._slots.check_tokens(token_ids)
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
            size = self._description.vocabulary_size
            yield _row(guess(text[:length], repeats_of(text[:length]), size), size)


@dataclass(frozen=True, slots=True)
class Guess:
    """What may follow a text. ``chances`` float64 [S] are those of ``token_ids`` int64 [S], the tokens that are in the text,
    ascending; every other token has the chance ``unseen``."""

    token_ids: NDArray[np.int64]
    chances: NDArray[np.float64]
    unseen: float


def guess(text: NDArray[np.int64], repeats: Sequence[NDArray[np.intp]], vocabulary_size: int) -> Guess:
    """What may follow ``text`` (int64 [T], T at least 1), whose ``repeats`` are at hand."""
    seen, places = np.unique(text, return_inverse=True)
    chances, unseen = np.full(len(seen), 1 / vocabulary_size), 1 / vocabulary_size
    for followers in repeats:
        counts = np.bincount(places[followers], minlength=len(seen))
        kinds, total = np.count_nonzero(counts), len(followers)
        chances = (counts + kinds * chances) / (total + kinds)
        unseen *= kinds / (total + kinds)
    return Guess(seen, chances, unseen)


def _row(found: Guess, vocabulary_size: int) -> NDArray[np.float32]:
    row = np.full(vocabulary_size, math.log(found.unseen), np.float32)
    row[found.token_ids] = np.log(found.chances)
    return row


def repeats_of(text: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Positions that follow an occurrence of the text's last ``n`` tokens, for ``n`` from 0 on while there are any."""
    found = [np.arange(len(text))]
    last = len(text) - 1
    for length in range(1, min(LONGEST_ENDING, last) + 1):
        # An occurrence ends right before the position, and begins inside the text.
        at = found[-1][found[-1] >= length]
        at = at[text[at - length] == text[last - length + 1]]
        if not len(at):
            break
        found.append(at)
    return found
