"""An engine that is as slow, and as small, as the machine it stands for: a decorator that charges emulated time.

The tokens and logits are the inner engine's own; only time and memory are emulated. ``speculation.engines.runner.EngineRunner``
collects the charge and lets it pass on the loop's clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription, Forkable, ForkableEngine
from speculation.errors import CapacityError, ConfigurationError
from speculation.shaping import costs
from speculation.shaping.costs import Machine, Work
from speculation.shaping.models import ModelDescription, listed_models
from speculation.shaping.phone_state import Heat, PhoneHeat, PhoneState
from speculation.shaping.profiles import UNSHAPED, CloudProfile, PhoneProfile

HOT_CONTEXT = 256
"""Tokens of cache behind which a hot phone has drafted."""

SHORTEST_CONTEXT = 2
"""Tokens: something to read, and something to write."""


class WhenFull(StrEnum):
    """What happens where the emulated memory cannot hold a full context in every slot."""

    REFUSE = "refuse"
    SHORTEN = "shorten"


class _Cost(ABC):
    """A model on a machine."""

    __slots__ = ()
    model: ModelDescription

    @property
    @abstractmethod
    def machine(self) -> Machine: ...

    @property
    @abstractmethod
    def is_shaped(self) -> bool:
        """Whether the machine is another than this one."""

    def step_s(self, works: Sequence[Work]) -> float:
        """Emulated seconds of one step over these sessions, at full speed."""
        return costs.step_time_s(self.machine, self.model, works)

    def bytes_read(self, works: Sequence[Work]) -> float:
        """Bytes of weights, keys and values that such a step reads."""
        return costs.bytes_read(self.model, works)

    def check_capacity(self, num_tokens: int) -> None:
        """Raises ``CapacityError``, with the sum shown and a model that would fit, where this one and its cache do not."""
        costs.check_capacity(self.machine, self.model, num_tokens, listed_models())

    def room_tokens(self) -> float:
        """Tokens of cache for which there is room; infinite where the memory is."""
        return costs.room_tokens(self.machine, self.model)


@dataclass(frozen=True, slots=True)
class PhoneCost(_Cost):
    """What a model costs on a phone."""

    phone: PhoneProfile
    model: ModelDescription

    @property
    def machine(self) -> Machine:
        return self.phone.machine

    @property
    def is_shaped(self) -> bool:
        return self.phone.name != UNSHAPED

    def state(self, heat: Heat = Heat.OFF) -> PhoneState:
        """The phone's gauges, before any work. Raises ``ConfigurationError`` for heat of a phone that has no figures of it."""
        energy = self.phone.energy
        if heat is Heat.OFF:
            return PhoneState(energy)
        model = self.phone.heat
        if model is None:
            raise ConfigurationError(f"heat: the profile {self.phone.name} has no figures of it; choose another phone, or off")
        return PhoneState(energy, PhoneHeat(model, model.cold if heat is Heat.ON else model.hot(self._drafting_w)))

    @property
    def _drafting_w(self) -> float:
        """What one branch without an end draws at full speed, beyond what the phone draws anyway."""
        works = [Work(HOT_CONTEXT, 1)]
        step_s, energy = self.step_s(works), self.phone.energy
        return 0.0 if energy is None or not step_s else energy.step_j(self.bytes_read(works), step_s).total_j / step_s


@dataclass(frozen=True, slots=True)
class CloudCost(_Cost):
    """What a model costs on a cloud machine."""

    cloud: CloudProfile
    model: ModelDescription

    @property
    def machine(self) -> Machine:
        return self.cloud.machine

    @property
    def is_shaped(self) -> bool:
        return self.cloud.name != UNSHAPED


Cost = PhoneCost | CloudCost


@dataclass(frozen=True, slots=True)
class _Played:
    """What an engine stands for, as one value: written by one thread, taken over by another."""

    cost: Cost
    phone: PhoneState | None


class ShapedEngine:
    """Decorates an engine with the time and the memory of another machine. It is ``Forkable`` exactly when the inner one is.

    ``phone`` holds the gauges of a phone, None on a cloud machine: joules, and with ``heat`` its speed and thermal status.
    The machine may be another from any job on (``reshape``). While it is the profile ``none`` the inner engine works as if
    nothing decorated it, and nothing is charged.

    Raises ``CapacityError`` where the model with one full context does not fit the machine, and in ``extend`` and ``fork``
    where the tokens of all open caches together no longer would (then nothing is changed). With ``when_full`` ``shorten`` the
    context is so short that all slots can be full: then neither happens, ``extend`` refuses what is beyond that context, and
    only a model that leaves no room for two tokens a slot is refused. A fork copies no bytes: caches on such machines are
    paged and share what is common, so a fork takes no time, but its tokens count in full.
    """

    def __new__(cls, engine: Engine, *_: object, **__: object) -> ShapedEngine:
        return super().__new__(_ForkableShapedEngine if isinstance(engine, Forkable) else cls)

    def __init__(
        self,
        engine: Engine,
        cost: Cost,
        heat: Heat = Heat.OFF,
        when_full: WhenFull = WhenFull.REFUSE,
    ) -> None:
        self.cost = cost
        self._is_shaped = cost.is_shaped
        self._description = _fitting(engine.description, cost, when_full)
        self._is_shortened = self._description != engine.description
        self.phone = cost.state(heat) if isinstance(cost, PhoneCost) else None
        self._wanted = self._played = _Played(cost, self.phone)
        self._engine = engine
        self._caches: set[CacheId] = set()
        self._charge_s = 0.0

    @property
    def description(self) -> EngineDescription:
        """The inner engine's, with the context that fits: the emulated model is ``cost.model``."""
        return self._description

    def open(self) -> CacheId:
        cache = self._engine.open()
        self._caches.add(cache)
        return cache

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def check(self, cost: Cost) -> None:
        """Raises ``CapacityError`` where the machine has no room for what was promised when this engine was made: one full
        context, or all of them where they were shortened to fit."""
        num_contexts = self._description.num_slots if self._is_shortened else 1
        cost.check_capacity(num_contexts * self._description.context_length)

    def reshape(self, cost: Cost, heat: Heat | None = None) -> None:
        """Another machine of the same kind from the next job on; the one that runs takes the time that it began with. The
        context stays. ``heat`` None leaves a phone as hot as it is. May be called from any thread.

        Raises ``CapacityError`` as ``check`` does, and ``ConfigurationError`` for heat of a phone that has no figures of it;
        nothing is changed then.
        """
        self.check(cost)
        self._wanted = _Played(cost, self._gauges(cost, heat))

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if not (self._is_shaped or self._is_shortened):
            return self._engine.extend(chunks)
        works = [Work(self._engine.length(chunk.cache), len(chunk.token_ids)) for chunk in chunks]
        if self._is_shortened:  # else the inner engine refuses
            _check_context(works, self._description.context_length)
        if not self._is_shaped:
            return self._engine.extend(chunks)
        self._check_growth(sum(work.new_tokens for work in works))
        logits = self._engine.extend(chunks)
        step_s = self.cost.step_s(works)
        self._charge_s += step_s if self.phone is None else self.phone.step(self.cost.bytes_read(works), step_s)
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)
        self._caches.discard(cache)

    def work_begins(self, now_s: float) -> None:
        if (wanted := self._wanted) is not self._played:
            self._take_over(wanted, now_s)
        if self.phone is not None:
            self.phone.begin(now_s)

    def take_charge_s(self) -> float | None:
        """Emulated seconds of every ``extend`` since the last call; None where no machine is emulated now."""
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s if self._is_shaped else None

    def _take_over(self, wanted: _Played, now_s: float) -> None:
        self._played, self.cost, self._is_shaped = wanted, wanted.cost, wanted.cost.is_shaped
        if self.phone is not None and wanted.phone is not None:
            self.phone.become(wanted.phone, now_s)

    def _gauges(self, cost: Cost, heat: Heat | None) -> PhoneState | None:
        """Of the machine from the next job on. Heat that is kept is the same object, whether it was taken over or not."""
        if not isinstance(cost, PhoneCost):
            return None
        if heat is not None or self.phone is None:
            return cost.state(heat or Heat.OFF)
        before = self.phone if self._wanted is self._played else self._wanted.phone
        return PhoneState(cost.phone.energy, None if before is None else before.heat)

    def _check_growth(self, num_new: int) -> None:
        self.cost.check_capacity(num_new + sum(self._engine.length(cache) for cache in self._caches))


class _ForkableShapedEngine(ShapedEngine):
    """Adds the one ability that not every engine has; ``ShapedEngine`` picks this class by itself."""

    _engine: ForkableEngine

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        if self._is_shaped:
            self._check_growth(self._engine.length(cache) if length is None else length)
        copy = self._engine.fork(cache, length)
        self._caches.add(copy)
        return copy


def _check_context(works: Sequence[Work], context_length: int) -> None:
    for work in works:
        if work.past_tokens + work.new_tokens > context_length:
            room = context_length - work.past_tokens
            raise CapacityError(f"{work.new_tokens} tokens do not fit: {room} of {context_length} positions are left")


def _fitting(description: EngineDescription, cost: Cost, when_full: WhenFull) -> EngineDescription:
    """The description, its context shortened where it may be. Raises ``CapacityError``."""
    if when_full is WhenFull.REFUSE:
        cost.check_capacity(description.context_length)
        return description
    cost.check_capacity(SHORTEST_CONTEXT * description.num_slots)
    return replace(description, context_length=int(min(description.context_length, cost.room_tokens() / description.num_slots)))


def shape(engine: Engine, cost: Cost, heat: Heat = Heat.OFF, when_full: WhenFull = WhenFull.REFUSE) -> Engine:
    """The engine as slow as the profile says, for good; or the engine itself where the profile is ``none``.

    Raises ``CapacityError``, and ``ConfigurationError`` for heat of a phone that has no figures of it.
    """
    return ShapedEngine(engine, cost, heat, when_full) if cost.is_shaped else engine
