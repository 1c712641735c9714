"""The rest of the phone: interrupts of its operating system and other apps that take memory bandwidth and cores from the draft.

Handlers of the timer's ticks, frames of what is on the screen, apps that wake up. When an interrupt comes is addressed by
(seed, kind, number) and not consumed, so the moment at which some work is done follows from when it began alone, however it
was cut into steps. The figures are assumptions, and so is what follows from them: emulated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription, Forkable, ForkableEngine
from speculation.errors import UnknownNameError
from speculation.shaping.engine import ShapedEngine

QUIET = "none"
"""The name under which nothing interrupts."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """One comes in every ``period_s``, lasts ``length_s`` and leaves the draft ``1 - share`` of its speed. ``is_regular``: at
    the beginning of each period; else at a moment of it that is drawn."""

    period_s: float
    length_s: float
    share: float
    is_regular: bool = False

    @property
    def mean_share(self) -> float:
        """What it takes in the long run."""
        return self.share * self.length_s / self.period_s


@dataclass(frozen=True, slots=True)
class OsLoad:
    """What interrupts a phone's draft. Ticks, each of ``tick_s``, are too short to be told one by one."""

    name: str
    title: str
    interrupts: tuple[Interrupt, ...] = ()
    ticks_per_s: float = 0.0
    tick_s: float = 0.0

    @property
    def tick_share(self) -> float:
        return self.ticks_per_s * self.tick_s

    @property
    def mean_speed(self) -> float:
        """What is left for the draft in the long run, as a share; interrupts that meet each take from what the other leaves."""
        return (1 - self.tick_share) * math.prod(1 - each.mean_share for each in self.interrupts)


TICKS_PER_S, TICK_S = 1000.0, 4e-6
"""A timer interrupt every millisecond, as the talk has it; some microseconds for its handler are assumed."""

_FRAMES = Interrupt(period_s=1 / 60, length_s=3e-3, share=0.3, is_regular=True)
_NOTIFICATIONS = Interrupt(period_s=0.5, length_s=20e-3, share=0.5)
_GAME_FRAMES = Interrupt(period_s=1 / 60, length_s=9e-3, share=0.5, is_regular=True)
_DOWNLOADS = Interrupt(period_s=0.25, length_s=40e-3, share=0.6)

LOADS: Mapping[str, OsLoad] = MappingProxyType(
    {
        load.name: load
        for load in (
            OsLoad(QUIET, "nothing else runs"),
            OsLoad("light", "a still screen: ticks and notifications", (_NOTIFICATIONS,), TICKS_PER_S, TICK_S),
            OsLoad("busy", "scrolling at 60 Hz, and notifications", (_FRAMES, _NOTIFICATIONS), TICKS_PER_S, TICK_S),
            OsLoad("game", "a game at 60 Hz, and downloads", (_GAME_FRAMES, _DOWNLOADS), TICKS_PER_S, TICK_S),
        )
    }
)


def os_load(name: str) -> OsLoad:
    """A load by name. Raises ``UnknownNameError``, which lists the names."""
    if name not in LOADS:
        raise UnknownNameError("os_load", name, LOADS)
    return LOADS[name]


def done_s(load: OsLoad, seed: int, began_s: float, work_s: float) -> float:
    """When work is done that began at ``began_s`` and takes ``work_s`` where nothing interrupts it."""
    spans = [_Spans(each, seed, kind, began_s) for kind, each in enumerate(load.interrupts)]
    now_s, left_s = began_s, work_s / (1 - load.tick_share)
    while left_s > 0:
        speed = math.prod(1 - each.share_at(now_s) for each in spans)
        until_s = min((each.changes_s for each in spans), default=math.inf)
        if left_s <= (until_s - now_s) * speed:
            return now_s + left_s / speed
        left_s -= (until_s - now_s) * speed
        now_s = until_s
        for each in spans:
            each.move_to(now_s)
    return now_s


class _Spans:
    """One kind of interrupt, walked in time: the span of the period at hand."""

    def __init__(self, interrupt: Interrupt, seed: int, kind: int, now_s: float) -> None:
        self._interrupt = interrupt
        self._address = (seed, kind)
        self._number = max(0, math.floor(now_s / interrupt.period_s) - 1)
        self._begin_s, self._end_s = self._span()
        self.changes_s = 0.0
        self.move_to(now_s)

    def share_at(self, now_s: float) -> float:
        return self._interrupt.share if self._begin_s <= now_s < self._end_s else 0.0

    def move_to(self, now_s: float) -> None:
        """Where the next change is, which lies behind ``now_s``."""
        while self._end_s <= now_s:
            self._number += 1
            self._begin_s, self._end_s = self._span()
        self.changes_s = self._begin_s if now_s < self._begin_s else self._end_s

    def _span(self) -> tuple[float, float]:
        interrupt = self._interrupt
        room_s = 0.0 if interrupt.is_regular else interrupt.period_s - interrupt.length_s
        begin_s = self._number * interrupt.period_s + room_s * _drawn(*self._address, self._number)
        return begin_s, begin_s + interrupt.length_s


def _drawn(seed: int, kind: int, number: int) -> float:
    """A number in [0, 1) that belongs to this address."""
    digest = hashlib.blake2b(f"{seed} {kind} {number}".encode(), digest_size=8, person=b"os load").digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


class LoadedEngine:
    """Decorates the engine of an emulated phone with what interrupts it. ``Forkable`` exactly when that is.

    Only time changes: a charge ends later. What the interrupting work itself costs in joules and heat is left out.
    """

    def __new__(cls, engine: ShapedEngine, *_: object, **__: object) -> LoadedEngine:
        return super().__new__(_ForkableLoadedEngine if isinstance(engine, Forkable) else cls)

    def __init__(self, engine: ShapedEngine, load: OsLoad, seed: int = 0) -> None:
        self.inner = engine
        self.load = load
        self._engine: Engine = engine
        self._seed = seed
        self._began_s = 0.0

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def open(self) -> CacheId:
        return self._engine.open()

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        return self._engine.extend(chunks)

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)

    def work_begins(self, now_s: float) -> None:
        self._began_s = now_s
        self.inner.work_begins(now_s)

    def take_charge_s(self) -> float | None:
        """Emulated seconds of the work since the last call, with what interrupted it."""
        charge_s = self.inner.take_charge_s()
        return None if charge_s is None else done_s(self.load, self._seed, self._began_s, charge_s) - self._began_s


class _ForkableLoadedEngine(LoadedEngine):
    """Adds the one ability that not every engine has; ``LoadedEngine`` picks this class by itself."""

    _engine: ForkableEngine

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        return self._engine.fork(cache, length)


def loaded(engine: ShapedEngine, load: OsLoad, seed: int = 0) -> Engine:
    """The engine with that load; the engine itself where nothing interrupts."""
    return engine if load.name == QUIET else LoadedEngine(engine, load, seed)
