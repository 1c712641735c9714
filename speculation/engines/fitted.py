"""A draft whose output layer has another number of rows than the full model's: models pad it, each to its own measure.

The tokenizer's tokens are the same; what differs is padding, which no tokenizer spells. Logits beyond the full model's
vocabulary are cut, so that nothing is drafted that the verifier would refuse. Where the draft has fewer, it never proposes the
rest; should the full model choose one of those all the same, the draft reads a token of its own in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription, Forkable, ForkableEngine
from speculation.errors import EngineError, InvalidRequestError

STAND_IN = 0


class FittedEngine:
    """An ``Engine`` and ``Forkable`` around another one that forks. It reads token ids below ``vocabulary_size``, and gives
    logits of the tokens that both know: float32 [rows, the smaller of the two sizes]."""

    def __init__(self, engine: ForkableEngine, vocabulary_size: int) -> None:
        self._engine = engine
        self._read_size, self._own_size = vocabulary_size, engine.description.vocabulary_size
        self._given_size = min(vocabulary_size, self._own_size)
        self._description = replace(engine.description, vocabulary_size=self._given_size)

    @property
    def description(self) -> EngineDescription:
        return self._description

    def open(self) -> CacheId:
        return self._engine.open()

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        logits = self._engine.extend([self._readable(chunk) for chunk in chunks])
        return np.ascontiguousarray(logits[:, : self._given_size])

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        return self._engine.fork(cache, length)

    def _readable(self, chunk: Chunk) -> Chunk:
        if not all(0 <= token < self._read_size for token in chunk.token_ids):
            raise InvalidRequestError(f"token ids must be from 0 to {self._read_size - 1}", "token_ids")
        token_ids = [token if token < self._own_size else STAND_IN for token in chunk.token_ids]
        return Chunk(chunk.cache, token_ids, chunk.num_logits)


def fitted(engine: Engine, vocabulary_size: int) -> Engine:
    """The draft's engine for a full model of so many rows; the engine itself where it has as many."""
    if engine.description.vocabulary_size == vocabulary_size:
        return engine
    if not isinstance(engine, Forkable):
        raise EngineError(f"{engine.description.name} has another vocabulary than the full model, and cannot fork")
    return FittedEngine(engine, vocabulary_size)
