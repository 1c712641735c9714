"""A draft model that also looks up what followed where the text last read like this (``lookup.py``).

A text that repeats itself, quotes its prompt or runs into a loop is told better by the text than by a small model. Where its
last tokens occurred before, the chances are a blend of both, ``(1 - share) p_model + share p_lookup``; elsewhere the model's
logits stay as they are. So the looked-up continuation is the draft's choice where the model is unsure, and a further branch
where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription, Forkable, ForkableEngine
from speculation.engines.lookup import Guess, guess, repeats_of
from speculation.errors import EngineError

SHORTEST_ENDING = 3
"""Tokens that must have occurred before in a row: fewer do so by chance."""


class BlendedEngine:
    """An ``Engine`` and ``Forkable`` around a draft's. ``share`` (0 to 1) is the weight of what was looked up."""

    def __init__(self, engine: ForkableEngine, share: float) -> None:
        self._engine = engine
        self._odds = log_odds(share)
        self._texts: dict[CacheId, NDArray[np.int64]] = {}
        self._description = replace(engine.description, name=f"{engine.description.name}+lookup")

    @property
    def description(self) -> EngineDescription:
        return self._description

    def open(self) -> CacheId:
        cache = self._engine.open()
        self._texts[cache] = np.zeros(self._description.context_length, np.int64)
        return cache

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        logits = self._engine.extend(chunks)
        end_row = 0
        for chunk in chunks:
            end = self._engine.length(chunk.cache)
            text = self._texts[chunk.cache]
            text[end - len(chunk.token_ids) : end] = chunk.token_ids
            for back in range(chunk.num_logits)[::-1]:
                self._blend(logits[end_row], text[: end - back])
                end_row += 1
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)
        del self._texts[cache]

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child = self._engine.fork(cache, length)
        self._texts[child] = self._texts[cache].copy()
        return child

    def _blend(self, row: NDArray[np.float32], text: NDArray[np.int64]) -> None:
        repeats = repeats_of(text)
        if len(repeats) > SHORTEST_ENDING:
            blend(row, guess(text, repeats, self._description.vocabulary_size), self._odds)


def blended(engine: Engine, share: float) -> Engine:
    """The draft's engine with so much looking up; the engine itself where ``share`` is 0.

    Raises ``EngineError`` where it cannot fork.
    """
    if not share:
        return engine
    if not isinstance(engine, Forkable):
        name = engine.description.name
        raise EngineError(f"{name} cannot fork, so nothing is looked up beside it: set the share to 0")
    return BlendedEngine(engine, share)


def log_odds(share: float) -> float:
    """Of a share between 0 and 1, as ``blend`` takes it."""
    return math.log(share) - math.log1p(-share)


def blend(row: NDArray[np.float32], found: Guess, odds: float) -> None:
    """Lift the logits of tokens that are in the text, in place; ``odds``: log(share / (1 - share)).

    Logits are chances but for a summand, so those of other tokens stay: of them the looked-up chance is next to nothing.
    """
    highest = float(row.max())
    whole = highest + math.log(float(np.exp(row - np.float32(highest)).sum()))
    looked_up = np.log(found.chances) + (odds + whole)
    row[found.token_ids] = np.logaddexp(row[found.token_ids], looked_up)
