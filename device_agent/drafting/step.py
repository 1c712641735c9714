"""Draft steps: all streams that want to grow share one batched forward of the draft model.

Who comes while a step runs joins the next. Where a step is shorter than its hand-over between threads, a stream that follows a
single branch takes several steps at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from statistics import median_low
from typing import cast

import numpy as np
from numpy.typing import NDArray

from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Feed, Slot
from device_agent.drafting.quotes import Quotes
from speculation.choice import Ranked, choose_ranked
from speculation.engines.base import CacheId, Chunk, Engine, Forkable
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, EngineError, OutriderError
from speculation.parameters import SamplingParameters

BURST_S = 3e-3
"""A job of several steps lasts about so long: what it drafts is shown and sent when it ends. A verdict that contradicts it ends
it at the next step."""

LONGEST_BURST = 8

WINDOW = 8
"""Jobs whose times count."""


@dataclass(slots=True, eq=False)
class Step:
    """One stream's part of a draft step: paths to extend, and afterwards what the draft proposes behind each.

    A proposal has the first ``num_choices`` tokens, fewer where no more are left. A single path may go on behind its first
    choice for up to ``max_steps``; ``end_token_ids`` stop it. With ``quotes``, ``endings`` are the feeds' last
    tokens. Filled in by the step: ``proposals`` (one list a feed, one proposal or several in a row), or ``error``.
    """

    feeds: Sequence[Feed]
    parameters: SamplingParameters
    num_choices: int
    max_steps: int = 1
    end_token_ids: frozenset[int] = frozenset()
    quotes: Quotes | None = None
    endings: Sequence[list[int]] = ()
    proposals: list[list[Proposal]] = field(default_factory=list)
    error: BaseException | None = None
    is_done: bool = False
    is_given_up: bool = False
    batch: _Batch | None = None

    def give_up(self) -> None:
        """Its outcome is useless now: it takes no further step, and where nobody else shares it its emulated time ends here."""
        self.is_given_up = True
        if self.batch is not None:
            self.batch.steps_given_up()


class DraftSteps:
    """The draft model's one queue. ``runner`` owns the engine; nothing else may use it."""

    def __init__(self, runner: EngineRunner[Engine]) -> None:
        engine = runner.engine
        self.can_fork = isinstance(engine, Forkable)
        self._runner = runner
        self._turn = asyncio.Lock()
        self._waiting: list[Step] = []
        self._closing: deque[Slot] = deque()
        self._steps_s: deque[float] = deque(maxlen=WINDOW)

    @property
    def _is_emulated(self) -> bool:
        """Whether steps take emulated time now, which may change while streams run."""
        return self._runner.is_charged

    @property
    def burst(self) -> int:
        """Steps that one job may take for a single branch."""
        step_s = self.step_s
        if self._is_emulated or step_s is None:
            return 1
        return max(1, int(min(LONGEST_BURST, BURST_S / max(step_s, 1e-9))))

    @property
    def step_s(self) -> float | None:
        """What a step takes, prefills and the hand-over between threads left out; None before the first.

        The middle one of the last jobs: one that had to feed what verdicts wrote meanwhile is no usual step.
        """
        return median_low(self._steps_s) if self._steps_s else None

    async def run(self, step: Step) -> list[list[Proposal]]:
        """The step's proposals. Raises what the engine raises; ``CapacityError`` when it has no cache left."""
        self._waiting.append(step)
        try:
            async with self._turn:
                if step.batch is not None and not step.is_done:
                    await self._outlive_leader(step)
                if not step.is_done:
                    await self._run_waiting()
        finally:
            if step in self._waiting:  # nobody waits for it any more
                self._waiting.remove(step)
        if step.error is not None:
            raise step.error
        return step.proposals

    async def _outlive_leader(self, step: Step) -> None:
        """Who led the batch was cancelled. Its job, if it was handed over, runs to its end, and jobs run in order."""
        await self._runner.run(_nothing)
        if not step.is_done:
            step.batch = None
            self._waiting.append(step)

    async def close(self, slots: Sequence[Slot]) -> None:
        """Give a stream's caches back, once no step of it runs. Where this is cancelled, the next job does it."""
        for slot in slots:
            slot.is_given_back = True
        self._closing.extend(slots)
        await self.close_rest()

    async def close_rest(self) -> None:
        """Give back what is still to be given back."""
        await self._runner.run(self._give_back)

    def _give_back(self, engine: Engine) -> None:
        while self._closing:
            _close(engine, [self._closing.popleft()])

    def _job(self, batch: _Batch, engine: Engine) -> int:
        self._give_back(engine)
        return batch.run(engine)

    async def _run_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        batch, self._waiting = _Batch(self._waiting, loop.time), []
        began_s = loop.time()
        num_turns = await self._runner.run(partial(self._job, batch), batch.is_useless)
        if num_turns and not batch.is_prefill:
            # Emulated time passes once a job is computed; measured time is the job's own.
            took_s = loop.time() - began_s if self._is_emulated else batch.took_s
            self._steps_s.append(took_s / num_turns)


class _Batch:
    """Steps that run as one job. ``run`` is for the engine's thread; ``clock`` is read there too."""

    def __init__(self, steps: Sequence[Step], clock: Callable[[], float]) -> None:
        self.steps = steps
        self.took_s = 0.0
        self._clock = clock
        self.is_useless = asyncio.Event()
        self.is_prefill = any(len(feed.token_ids) > LONGEST_BURST for step in steps for feed in step.feeds)
        for step in steps:
            step.batch = self
        self.steps_given_up()

    def steps_given_up(self) -> None:
        if all(step.is_given_up for step in self.steps):
            self.is_useless.set()

    def run(self, engine: Engine) -> int:
        """Returns how many forwards it took. Never raises: a failure stands in the steps."""
        began_s = self._clock()
        try:
            return self._run(engine)
        except Exception as error:  # whatever a runtime throws, every stream of the step is told
            for step in self.steps:
                step.error = step.error or error
            return 0
        finally:
            self.took_s = self._clock() - began_s
            for step in self.steps:
                step.is_done = True

    def _run(self, engine: Engine) -> int:
        lanes = [lane for step in self.steps for lane in _lanes(engine, step)]
        num_turns = 0
        while lanes:
            lanes, logits = _extend(engine, lanes)
            if not lanes:
                break
            for lane, row in zip(lanes, logits, strict=True):
                lane.quote(row)
            ranked = _ranked(logits, lanes)
            num_turns += 1
            pairs = zip(ranked.token_ids.tolist(), ranked.confidences.tolist(), strict=True)
            lanes = [lane for lane, (ids, shares) in zip(lanes, pairs, strict=True) if lane.take(ids, shares)]
        return num_turns


@dataclass(slots=True)
class _Lane:
    """One cache in a job: what is fed next, and where the proposals go."""

    step: Step
    cache: CacheId
    new: Sequence[int]
    position: int
    proposals: list[Proposal]
    ending: list[int]

    def quote(self, row: NDArray[np.float32]) -> None:
        if self.step.quotes is not None:
            self.step.quotes.blend(row, self.ending)

    def take(self, ids: Sequence[int], shares: Sequence[float]) -> bool:
        """Note what the draft proposes; whether the lane goes on behind it."""
        step, first = self.step, ids[0]
        count = min(step.num_choices, len(ids) - ids.count(-1))
        self.proposals.append(Proposal(tuple(ids[:count]), tuple(shares[:count])))
        self.new, self.position, self.ending = [first], self.position + 1, [*self.ending, first]
        return len(self.proposals) < step.max_steps and first not in step.end_token_ids and not step.is_given_up


def _extend(engine: Engine, lanes: Sequence[_Lane]) -> tuple[list[_Lane], NDArray[np.float32]]:
    """The lanes that ran, and their logits.

    Where there is no room for all of them, the step that holds most tokens fails alone, and the others go on without it: an
    ``extend`` that was refused has changed nothing.
    """
    left = list(lanes)
    while True:
        try:
            return left, engine.extend([Chunk(lane.cache, lane.new, 1) for lane in left])
        except CapacityError as error:
            fullest = max((lane.step for lane in left), key=lambda step: _num_tokens(engine, step, left))
            fullest.error = error
            left = [lane for lane in left if lane.step is not fullest]
            if not left:
                return [], np.empty((0, 0), np.float32)


def _num_tokens(engine: Engine, step: Step, lanes: Sequence[_Lane]) -> int:
    """What a step's caches would hold."""
    return sum(engine.length(lane.cache) + len(lane.new) for lane in lanes if lane.step is step)


def _ranked(logits: NDArray[np.float32], lanes: Sequence[_Lane]) -> Ranked:
    """Each lane's first choices, as many as the lane that wants most."""
    positions, parameters = [lane.position for lane in lanes], [lane.step.parameters for lane in lanes]
    return choose_ranked(logits, positions, parameters, max(lane.step.num_choices for lane in lanes))


def _lanes(engine: Engine, step: Step) -> list[_Lane]:
    """The step's caches, brought to where their feeds begin. A step that gets none fails alone."""
    if any(feed.slot.is_given_back for feed in step.feeds):
        return []  # its stream is gone
    lanes = []
    try:
        caches = {feed.turn: _place(engine, feed) for feed in sorted(step.feeds, key=attrgetter("turn"))}
        for feed, ending in zip(step.feeds, step.endings or [[] for _ in step.feeds], strict=True):
            step.proposals.append([])
            position = feed.length + len(feed.token_ids)
            lanes.append(_Lane(step, caches[feed.turn], feed.token_ids, position, step.proposals[-1], ending))
    except OutriderError as error:
        step.error = error
        return []
    return lanes


def _place(engine: Engine, feed: Feed) -> CacheId:
    slot = feed.slot
    if feed.source is not None:
        _close(engine, [slot])
        slot.cache = _copy(engine, feed.source, feed.length)
    elif slot.cache is None:
        slot.cache = engine.open()
    elif engine.length(slot.cache) > feed.length:
        engine.truncate(slot.cache, feed.length)
    return slot.cache


def _copy(engine: Engine, source: Slot, length: int) -> CacheId:
    if source.cache is None:
        raise EngineError("a branch was to grow from a cache that was never opened")
    return cast(Forkable, engine).fork(source.cache, length)  # asked once, when the engine came: the question costs 10 us


def _close(engine: Engine, slots: Sequence[Slot]) -> None:
    for slot in slots:
        cache, slot.cache = slot.cache, None
        if cache is not None:
            engine.close(cache)


def _nothing(_: Engine) -> None:
    """A job that only waits for its turn."""
