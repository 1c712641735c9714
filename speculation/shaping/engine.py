"""An engine that is as slow, and as small, as the machine it stands for: a decorator that charges emulated time.

The tokens and logits are the inner engine's own; only time and memory are emulated. ``speculation.engines.runner.EngineRunner``
collects the charge and lets it pass on the loop's clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription, Forkable, ForkableEngine
from speculation.shaping import costs
from speculation.shaping.costs import Machine, Work
from speculation.shaping.models import ModelDescription
from speculation.shaping.profiles import UNSHAPED, CloudProfile, PhoneProfile


class _Cost(ABC):
    """A model on a machine."""

    __slots__ = ()
    model: ModelDescription

    @property
    @abstractmethod
    def machine(self) -> Machine: ...

    def step_s(self, works: Sequence[Work]) -> float:
        """Emulated seconds of one step over these sessions."""
        return costs.step_time_s(self.machine, self.model, works)

    def check_capacity(self, num_tokens: int) -> None:
        """Raises ``CapacityError``, with the sum shown, where the model and a cache of ``num_tokens`` do not fit."""
        costs.check_capacity(self.machine, self.model, num_tokens)


@dataclass(frozen=True, slots=True)
class PhoneCost(_Cost):
    """What a model costs on a phone."""

    phone: PhoneProfile
    model: ModelDescription

    @property
    def machine(self) -> Machine:
        return self.phone.machine


@dataclass(frozen=True, slots=True)
class CloudCost(_Cost):
    """What a model costs on a cloud machine."""

    cloud: CloudProfile
    model: ModelDescription

    @property
    def machine(self) -> Machine:
        return self.cloud.machine


class ShapedEngine:
    """Decorates an engine with the time and the memory of another machine. It is ``Forkable`` exactly when the inner one is.

    Raises ``CapacityError`` where the model with one full context does not fit the machine, and in ``extend`` and ``fork``
    where the tokens of all open caches together no longer would (then nothing is changed). A fork copies no bytes: caches on
    such machines are paged and share what is common, so a fork takes no time, but its tokens count in full.
    """

    def __new__(cls, engine: Engine, cost: PhoneCost | CloudCost) -> ShapedEngine:
        return super().__new__(_ForkableShapedEngine if isinstance(engine, Forkable) else cls)

    def __init__(self, engine: Engine, cost: PhoneCost | CloudCost) -> None:
        cost.check_capacity(engine.description.context_length)
        self.cost = cost
        self._engine = engine
        self._caches: set[CacheId] = set()
        self._charge_s = 0.0

    @property
    def description(self) -> EngineDescription:
        """The inner engine's: the emulated model is ``cost.model``."""
        return self._engine.description

    def open(self) -> CacheId:
        cache = self._engine.open()
        self._caches.add(cache)
        return cache

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        works = [Work(self._engine.length(chunk.cache), len(chunk.token_ids)) for chunk in chunks]
        self._check_growth(sum(work.new_tokens for work in works))
        logits = self._engine.extend(chunks)
        self._charge_s += self.cost.step_s(works)
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)
        self._caches.discard(cache)

    def take_charge_s(self) -> float:
        """Emulated seconds of every ``extend`` since the last call."""
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s

    def _check_growth(self, num_new: int) -> None:
        self.cost.check_capacity(num_new + sum(self._engine.length(cache) for cache in self._caches))


class _ForkableShapedEngine(ShapedEngine):
    """Adds the one ability that not every engine has; ``ShapedEngine`` picks this class by itself."""

    _engine: ForkableEngine

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        self._check_growth(self._engine.length(cache) if length is None else length)
        copy = self._engine.fork(cache, length)
        self._caches.add(copy)
        return copy


def shape(engine: Engine, cost: PhoneCost | CloudCost) -> Engine:
    """The engine as slow as the profile says, or the engine itself where the profile is ``none``."""
    profile = cost.phone if isinstance(cost, PhoneCost) else cost.cloud
    return engine if profile.name == UNSHAPED else ShapedEngine(engine, cost)
