"""The device's own writing: a draft cache that is caught up with what stands, and the token chosen behind it.

``context`` is all that stands: final tokens, then drafts. It is changed on the event loop only; a step on the engine's thread
gets what it needs as values, and its choice is thrown away where the context changed under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speculation.choice import choose
from speculation.engines.base import CacheId, Chunk, Engine
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters


@dataclass(frozen=True, slots=True)
class Drafted:
    """A token and the draft's own confidence in it, 0 to 1."""

    token_id: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How drafts compare with the final tokens that came: so many agreed, and the one behind them did not, if there was one."""

    num_agreed: int
    is_contradicted: bool


class Drafter:
    """Drafts for one session. Open before the first ``draft``, close at the end; both through the engine's runner."""

    def __init__(self, runner: EngineRunner[Engine], prompt: Sequence[int], parameters: SamplingParameters) -> None:
        self._runner = runner
        self._parameters = parameters
        self._context = list(prompt)
        self._num_cached = 0
        self._version = 0
        self._cache: CacheId | None = None
        self._was_opened = False

    @property
    def context(self) -> Sequence[int]:
        """Everything that stands; not to be changed."""
        return self._context

    async def open(self) -> None:
        """Take a cache. Raises ``CapacityError`` when there is none."""
        self._was_opened = True
        await self._runner.run(self._take)

    async def close(self) -> None:
        """Give the cache back, once no step of it is running. Safe to call without one."""
        if self._was_opened:
            await self._runner.run(self._give_back)

    def _take(self, engine: Engine) -> None:
        # On the engine's thread, so that a cache taken for a task that is cancelled meanwhile is not lost.
        self._cache = engine.open()

    def _give_back(self, engine: Engine) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            engine.close(cache)

    def settle(self, start: int, token_ids: Sequence[int]) -> Agreement:
        """Tokens became final from position ``start`` on: what contradicts them, and all behind it, no longer stands."""
        context, count = self._context, 0
        room = min(len(token_ids), len(context) - start)
        while count < room and context[start + count] == token_ids[count]:
            count += 1
        agreement = Agreement(count, count < room)
        if count == len(token_ids):
            return agreement
        context[start + count :] = token_ids[count:]
        self._num_cached = min(self._num_cached, start + count)
        self._version += 1
        return agreement

    async def draft(self) -> Drafted | None:
        """The token that the draft chooses behind the context; None where the context changed meanwhile."""
        assert self._cache is not None, "the drafter is not open"
        length, version = len(self._context), self._version
        start = min(self._num_cached, length - 1)
        step = _Step(self._cache, start, self._context[start:], self._parameters)
        # What the step will leave in the cache; a context that changes meanwhile lowers it.
        self._num_cached = length
        drafted = await self._runner.run(step)
        return drafted if version == self._version else None

    def append(self, token_id: int) -> None:
        """Let a drafted token stand."""
        self._context.append(token_id)


@dataclass(frozen=True, slots=True)
class _Step:
    """One job on the engine: cut the cache to ``length``, feed the tokens, choose what follows."""

    cache: CacheId
    length: int
    token_ids: Sequence[int]
    parameters: SamplingParameters

    def __call__(self, engine: Engine) -> Drafted:
        if engine.length(self.cache) > self.length:
            engine.truncate(self.cache, self.length)
        logits = engine.extend([Chunk(self.cache, self.token_ids, 1)])
        position = self.length + len(self.token_ids)
        token_id = int(choose(logits, [position], [self.parameters]).token_ids[0])
        return Drafted(token_id, confidence(logits[0], token_id, self.parameters.temperature))


def confidence(logits: NDArray[np.float32], token_id: int, temperature: float) -> float:
    """The draft's probability of a token, at the request's temperature (at 1 for a greedy choice). Not calibrated."""
    scaled = logits if temperature in (0, 1) else logits / np.float32(max(temperature, 1e-3))
    return float(1.0 / np.exp(scaled - scaled[token_id]).sum())
