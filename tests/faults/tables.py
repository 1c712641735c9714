"""A pair without weights: which row of logits stands behind a prefix is a hash of (seed, prefix), and nothing else decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.pair import PairFacts
from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription
from speculation.engines.random import MAX_LOGIT, RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.protocol.messages import PairIdentity
from tests.acceptance.plain_loop import plain_choice

VOCABULARY, CONTEXT, NUM_ROWS = 32, 128, 1024
END_TOKEN = 0
FIRST_LETTER = 0x4E00
IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)

# Raw bits of Philox are fixed by its algorithm: the same table under every version of numpy.
_BITS = np.random.Philox(key=1).random_raw(NUM_ROWS * VOCABULARY).reshape(NUM_ROWS, VOCABULARY)
_ROWS = ((_BITS >> np.uint64(40)) * (MAX_LOGIT / 2**24)).astype(np.float32)


class FullTable(RandomEngine):
    """The full model."""

    def __init__(self, seed: int, num_slots: int) -> None:
        super().__init__(VOCABULARY, CONTEXT, seed, num_slots)

    def _row(self, digest: bytes) -> NDArray[np.float32]:
        return _ROWS[_number(digest, 0) % NUM_ROWS]


class DraftTable(FullTable):
    """Has the full model's row behind a share of all prefixes; behind the rest that row with its best two tokens exchanged,
    so that the second choice is often right, or another row.

    The share is the session's own: a hash of its first token. One session in seven is always right, one in seven never.
    """

    def _append(self, chunk: Chunk) -> list[NDArray[np.float32]]:
        rows = super()._append(chunk)
        digests = self._prefix(chunk.cache)
        share = 1.4 * _number(digests[0], 8) / 2**32 - 0.2
        behind = digests[len(digests) - len(rows) :]
        return [self._seen(row, digest, share) for row, digest in zip(rows, behind, strict=True)]

    def _seen(self, row: NDArray[np.float32], digest: bytes, share: float) -> NDArray[np.float32]:
        drawn = _number(digest, 4) / 2**32
        if drawn < share:
            return row
        return _exchanged(row) if drawn < (1 + share) / 2 else self._row(digest[::-1])


class Tracked:
    """An engine that takes time, and whose open caches are known; ``drop`` frees them as a machine does that dies.

    The time is charged, as shaping does it. Without ``is_charged`` it is nobody's but the engine's, which is how an engine
    looks that no profile shapes: ``runner_of`` spends it.
    """

    def __init__(self, engine: Engine, step_s: float, is_charged: bool = True) -> None:
        self.open_caches: set[CacheId] = set()
        self.num_forks = 0
        self._engine = engine
        self._step_s = step_s
        self._took_s = 0.0
        self.take_charge_s = self.take_time_s if is_charged else None

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def open(self) -> CacheId:
        cache = self._engine.open()
        self.open_caches.add(cache)
        return cache

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child = self._engine.fork(cache, length)  # type: ignore[attr-defined]
        self.open_caches.add(child)
        self.num_forks += 1
        return child

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self._took_s += self._step_s
        return self._engine.extend(chunks)

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)
        self.open_caches.remove(cache)

    def drop(self) -> None:
        for cache in list(self.open_caches):
            self.close(cache)

    def take_time_s(self) -> float:
        took_s, self._took_s = self._took_s, 0.0
        return took_s


class _Paced(EngineRunner[Tracked]):
    """Runs jobs inline that take their time and charge none."""

    async def run(self, job: Callable[[Tracked], Any], abandon: asyncio.Event | None = None) -> Any:
        result = await super().run(job, abandon)
        await asyncio.sleep(self.engine.take_time_s())
        return result


def runner_of(engine: Tracked) -> EngineRunner[Tracked]:
    return EngineRunner(engine) if engine.take_charge_s else _Paced(engine)


def plain_table(model_seed: int, prompt: Sequence[int], max_tokens: int, end_token_ids: Sequence[int], **sampling) -> list[int]:
    """The generated tokens of the full table alone: one token a step, nothing ever taken back, and a choice of its own."""
    engine = FullTable(model_seed, 1)
    cache, new, generated = engine.open(), list(prompt), []
    while len(generated) < max_tokens:
        row = engine.extend([Chunk(cache, new, 1)])[0]
        new = [plain_choice(row, len(prompt) + len(generated), **sampling)]
        generated += new
        if new[0] in end_token_ids:
            break
    return generated


def encode(text: str) -> list[int]:
    return [ord(letter) - FIRST_LETTER for letter in text]


def decode(token_ids: Sequence[int]) -> str:
    return "".join(chr(FIRST_LETTER + token_id) for token_id in token_ids)


def facts(end_token_ids: tuple[int, ...]) -> PairFacts:
    return PairFacts("draft table", "full table", IDENTITY, encode, decode, end_token_ids, CONTEXT, CONTEXT)


def _number(digest: bytes, start: int) -> int:
    """Four bytes of a prefix's address, as a number below 2**32."""
    return int.from_bytes(digest[start : start + 4], "little")


def _exchanged(row: NDArray[np.float32]) -> NDArray[np.float32]:
    second, first = np.argpartition(row, -2)[-2:]
    exchanged = row.copy()
    exchanged[[first, second]] = row[[second, first]]
    return exchanged
