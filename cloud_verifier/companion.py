"""Speculation inside the cloud: the pair's draft model beside the full one, for sessions whose device has no drafts waiting.

What it drafts is a hint like any device's: the pass checks it, so it changes the time and never the text.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from cloud_verifier.batching import allot_among
from speculation.choice import choose
from speculation.engines.base import CacheId, Chunk, Engine
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """A session to draft for, behind its ``final`` log: at most ``max_tokens`` (1 or more), none from an end token on.

    ``tenant`` is whose it is.
    """

    session: Hashable
    final: Sequence[int]
    parameters: SamplingParameters
    max_tokens: int
    end_token_ids: frozenset[int]
    tenant: Hashable = None


@dataclass(slots=True)
class _Seat:
    """A session's cache in the draft model and the tokens in it, of which the first ``num_final`` are known to be final."""

    cache: CacheId | None = None
    fed: list[int] = field(default_factory=list)
    num_final: int = 0
    served: int = 0
    is_broken: bool = False


@dataclass(slots=True)
class _Part:
    """A seat's part of one job: what to feed first, then how much to draft (0: only catch up) and what was drafted."""

    seat: _Seat
    wish: Wish
    uncached: Sequence[int]
    max_tokens: int = 0
    drafted: list[int] = field(default_factory=list)


class Companion:
    """Drafts ``length`` tokens for each of many sessions, one batched step a position. A failure costs drafts, no session.

    ``max_rows`` bounds the tokens of a step over all sessions: a cache that is further behind catches up first, over several
    calls; the tokens are shared among tenants first, as in a pass. Where the draft model's context ends nothing is drafted.
    """

    def __init__(self, runner: EngineRunner[Engine], length: int, max_rows: int) -> None:
        self._runner = runner
        self._length = length
        self._max_rows = max_rows
        self._context_length = runner.engine.description.context_length
        self._seats: dict[Hashable, _Seat] = {}
        self._served: dict[Hashable, int] = {}
        self._closing: list[_Seat] = []
        self._jobs = 0

    @property
    def must_close(self) -> bool:
        """Whether caches of forgotten sessions wait to be given back, which the next ``draft`` does."""
        return bool(self._closing)

    async def draft(self, wishes: Sequence[Wish]) -> list[tuple[int, ...]]:
        """Drafts for each wish, perhaps none."""
        self._jobs += 1
        parts = [self._part(wish) for wish in wishes]
        working = [part for part in parts if part.uncached]
        self._allot(working)
        closing, self._closing = self._closing, []
        await self._runner.run(_Job(closing, [part for part in working if part.uncached]).run)
        return [tuple(part.drafted) for part in parts]

    def forget(self, session: Hashable) -> None:
        """The session ended. Its cache is given back by the next ``draft``."""
        seat = self._seats.pop(session, None)
        if seat is not None:
            self._closing.append(seat)

    def _part(self, wish: Wish) -> _Part:
        seat = self._seats.setdefault(wish.session, _Seat())
        room = self._context_length + 1 - len(wish.final)
        if seat.is_broken or room <= 0:
            return _Part(seat, wish, ())
        _cut_back(seat, wish.final)
        return _Part(seat, wish, wish.final[len(seat.fed) :], min(self._length, wish.max_tokens, room))

    def _allot(self, parts: Sequence[_Part]) -> None:
        """Rows for the first step: who gets fewer than it lacks catches up and drafts nothing yet."""
        tenants = [part.wish.tenant for part in parts]
        served_tenants = [self._served.get(tenant, 0) for tenant in tenants]
        wanted, served = [len(part.uncached) for part in parts], [part.seat.served for part in parts]
        rows = allot_among(tenants, served_tenants, wanted, served, self._max_rows)
        for part, count in zip(parts, rows, strict=True):
            if count < len(part.uncached):
                part.uncached, part.max_tokens = part.uncached[:count], 0
            if count:
                part.seat.served = self._served[part.wish.tenant] = self._jobs


def _cut_back(seat: _Seat, final: Sequence[int]) -> None:
    """Keep what agrees with the final log, less its last token: that has to be fed for the row behind it."""
    fed, count = seat.fed, seat.num_final
    while count < min(len(fed), len(final)) and fed[count] == final[count]:
        count += 1
    seat.num_final = min(count, len(final) - 1)
    del fed[seat.num_final :]


@dataclass(frozen=True, slots=True)
class _Job:
    """Caches to give back, then parts to draft, on the engine's thread."""

    closing: Sequence[_Seat]
    parts: Sequence[_Part]

    def run(self, engine: Engine) -> None:
        """Never raises: a failure takes their drafts from the sessions of this job, for good."""
        try:
            for seat in self.closing:
                if seat.cache is not None:
                    engine.close(seat.cache)
            self._draft(engine)
        except Exception:
            _log.exception("the draft model failed: %d sessions go on without it", len(self.parts))
            for part in self.parts:
                part.seat.is_broken = True
                part.drafted.clear()

    def _draft(self, engine: Engine) -> None:
        for part in self.parts:
            _seat_down(engine, part.seat)
        step = [(part, part.uncached) for part in self.parts]
        while step:
            self._step(engine, step)
            step = [(part, part.drafted[-1:]) for part, _ in step if len(part.drafted) < part.max_tokens]
            step = [(part, tokens) for part, tokens in step if tokens[0] not in part.wish.end_token_ids]
        for part in self.parts:
            if part.drafted and part.drafted[-1] in part.wish.end_token_ids:
                part.drafted.pop()

    def _step(self, engine: Engine, step: Sequence[tuple[_Part, Sequence[int]]]) -> None:
        """Feed each part its tokens, and choose one behind them for each that drafts."""
        chunks = []
        for part, tokens in step:
            assert part.seat.cache is not None
            chunks.append(Chunk(part.seat.cache, tokens, int(part.max_tokens > 0)))
            part.seat.fed.extend(tokens)
        logits = engine.extend(chunks)
        drafting = [part for part, _ in step if part.max_tokens]
        if drafting:
            positions = [len(part.seat.fed) for part in drafting]
            choices = choose(logits, positions, [part.wish.parameters for part in drafting])
            for part, token_id in zip(drafting, choices.token_ids, strict=True):
                part.drafted.append(token_id)


def _seat_down(engine: Engine, seat: _Seat) -> None:
    """Give the seat a cache that holds just the tokens that it may hold."""
    if seat.cache is None:
        seat.cache = engine.open()
    elif engine.length(seat.cache) > len(seat.fed):
        engine.truncate(seat.cache, len(seat.fed))
