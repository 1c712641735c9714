"""Engines that show what is done to them, and one stream's caches with a draft step around them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Caches, Feed
from device_agent.drafting.step import DraftSteps, Step
from speculation.choice import choose_ranked
from speculation.engines.base import CacheId, Chunk
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters

GREEDY = SamplingParameters()
VOCABULARY, CONTEXT, SEED = 3, 200, 5
NUM_CHOICES = 4


class Watched(RandomEngine):
    """Knows the tokens in every cache, and the most caches that were ever open at once; fails when told to."""

    def __init__(self, num_slots: int = 16, vocabulary_size: int = VOCABULARY, context_length: int = CONTEXT) -> None:
        super().__init__(vocabulary_size, context_length, SEED, num_slots)
        self.contents: dict[CacheId, list[int]] = {}
        self.forwards: list[list[Chunk]] = []
        self.num_forks = 0
        self.most_open = 0
        self.failure: Exception | None = None

    @property
    def num_fed(self) -> int:
        return sum(len(chunk.token_ids) for chunks in self.forwards for chunk in chunks)

    def open(self):
        cache = super().open()
        self.contents[cache] = []
        self.most_open = max(self.most_open, len(self.contents))
        return cache

    def fork(self, cache, length=None):
        copy = super().fork(cache, length)
        self.num_forks += 1
        self.contents[copy] = self.contents[cache][:length]
        return copy

    def truncate(self, cache, length):
        super().truncate(cache, length)
        del self.contents[cache][length:]

    def close(self, cache):
        super().close(cache)
        del self.contents[cache]

    def extend(self, chunks):
        if self.failure is not None:
            raise self.failure
        rows = super().extend(chunks)
        self.forwards.append(list(chunks))
        for chunk in chunks:
            self.contents[chunk.cache] += chunk.token_ids
        return rows


class Emulated(Watched):
    """A forward takes ``step_s`` emulated seconds, whatever is in it; so a job never holds several steps."""

    def __init__(self, step_s: float = 1.0, **changes) -> None:
        super().__init__(**changes)
        self._step_s = step_s
        self._charge_s = 0.0

    def extend(self, chunks):
        rows = super().extend(chunks)
        self._charge_s += self._step_s
        return rows

    def take_charge_s(self):
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s


class Plain:
    """An engine that cannot fork."""

    def __init__(self, inner: Watched) -> None:
        self.inner = inner
        self.description = inner.description
        self.open, self.length, self.extend = inner.open, inner.length, inner.extend
        self.truncate, self.close = inner.truncate, inner.close


@functools.cache
def fresh(
    context: tuple[int, ...],
    vocabulary_size: int = VOCABULARY,
    parameters: SamplingParameters = GREEDY,
    num_choices: int = NUM_CHOICES,
) -> Proposal:
    """What a cache that never held anything else proposes behind ``context``."""
    engine = RandomEngine(vocabulary_size, len(context), SEED)
    rows = engine.extend([Chunk(engine.open(), context, 1)])
    ranked = choose_ranked(rows, [len(context)], [parameters], num_choices)
    told = [token_id for token_id in ranked.token_ids[0].tolist() if token_id >= 0]
    return Proposal(tuple(told), tuple(ranked.confidences[0, : len(told)].tolist()))


def fresh_chain(context: Sequence[int], count: int, vocabulary_size: int = VOCABULARY) -> list[Proposal]:
    """So many in a row, each behind the choice before."""
    chain: list[Proposal] = []
    for _ in range(count):
        behind = [*context, *(proposal.token_id for proposal in chain)]
        chain.append(fresh(tuple(behind), vocabulary_size))
    return chain


class Writer:
    """One stream's caches over its log, without a policy: it extends what it is told to."""

    def __init__(self, steps: DraftSteps, final: Sequence[int], limit: int = 1) -> None:
        self.steps = steps
        self.final = list(final)
        self.caches = Caches(limit)
        self.step: Step | None = None
        self.feeds: Sequence[Feed] = ()

    async def extend(self, *paths: Sequence[int], max_steps: int = 1, end_token_ids: Sequence[int] = ()):
        """One draft step behind these paths: what it proposes behind each."""
        self.feeds = self.caches.feeds(self.final, [list(path) for path in paths])
        self.step = Step(self.feeds, GREEDY, NUM_CHOICES, max_steps, frozenset(end_token_ids))
        proposals = await self.steps.run(self.step)
        for feed, chain in zip(self.feeds, proposals, strict=True):
            self.caches.fed_more(feed.slot, [proposal.token_id for proposal in chain[:-1]], self.final)
        return proposals

    async def write(self, count: int) -> list[int]:
        """So many steps along the first choice."""
        path: list[int] = []
        for _ in range(count):
            ((proposal,),) = await self.extend(path)
            path.append(proposal.token_id)
        return path

    def settle(self, token_ids: Sequence[int]) -> None:
        self.caches.settle(len(self.final), token_ids)
        self.final += token_ids

    async def close(self) -> None:
        await self.steps.close(self.caches.slots)


def steps_on(engine) -> DraftSteps:
    """Draft steps of an engine that computes inline."""
    return DraftSteps(EngineRunner(engine))


def now_s() -> float:
    return asyncio.get_running_loop().time()
