"""One job of the draft model for several streams: caches are placed and fed, what is proposed is noted. On the engine's thread.

A stream may take part with a piece of its text alone, and a job whose time was cut short can be taken back: its caches are cut
to where they were, and what it proposed is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Feed, Slot
from device_agent.drafting.quotes import Quotes
from device_agent.drafting.share import Share
from device_agent.drafting.turns import Claim
from speculation.choice import Ranked, choose_ranked
from speculation.engines.base import CacheId, Chunk, Engine, Forkable
from speculation.errors import CapacityError, EngineError, OutriderError
from speculation.parameters import SamplingParameters
from speculation.shaping.costs import Work

LONGEST_BURST = 8


@dataclass(slots=True, eq=False)
class Step:
    """One stream's part of a draft step: paths to extend, and afterwards what the draft proposes behind each.

    A proposal has the first ``num_choices`` tokens, fewer where no more are left. A single path may go on behind its first
    choice for up to ``max_steps``; ``end_token_ids`` stop it. With ``quotes``, ``endings`` are the feeds' last
    tokens. Filled in by the step: ``proposals`` (one list a feed, one proposal or several in a row), or ``error``. ``share``
    is the stream's; ``since_s`` is when it began to wait. ``is_left``: nobody waits for it any more.
    """

    feeds: Sequence[Feed]
    parameters: SamplingParameters
    num_choices: int
    max_steps: int = 1
    end_token_ids: frozenset[int] = frozenset()
    share: Share = field(default_factory=Share)
    quotes: Quotes | None = None
    endings: Sequence[list[int]] = ()
    proposals: list[list[Proposal]] = field(default_factory=list)
    error: BaseException | None = None
    is_done: bool = False
    is_given_up: bool = False
    is_left: bool = False
    was_preempted: bool = False
    since_s: float = 0.0
    batch: Batch | None = None
    lanes: list[Lane] | None = None

    def give_up(self) -> None:
        """Its outcome is useless now: it takes no further step, and where nobody else shares it its emulated time ends here."""
        self.is_given_up = True
        if self.batch is not None:
            self.batch.steps_given_up()

    def claim(self, now_s: float) -> Claim:
        """What it asks of the next turn."""
        share = self.share
        return Claim(share.priority, self.since_s, self.works, share.due_s(now_s), share.is_promised, share.is_new)

    @property
    def works(self) -> tuple[Work, ...]:
        if self.lanes is None:
            return tuple([Work(feed.length, len(feed.token_ids)) for feed in self.feeds])
        return tuple([Work(lane.start + lane.num_fed, len(lane.token_ids) - lane.num_fed) for lane in self.lanes])

    def place(self, engine: Engine) -> list[Lane]:
        """Its caches, brought to where it goes on. One that gets none fails alone."""
        if any(feed.slot.is_given_back for feed in self.feeds):
            return []  # its stream is gone
        if self.lanes is None:
            try:
                caches = {feed.turn: _place(engine, feed) for feed in sorted(self.feeds, key=_turn)}
            except OutriderError as error:
                self.error = error
                return []
            endings = self.endings or [[] for _ in self.feeds]
            lanes = zip(self.feeds, endings, strict=True)
            self.lanes = [Lane(self, caches[feed.turn], feed.length, feed.token_ids, ending) for feed, ending in lanes]
        self.proposals = [lane.begin(engine) for lane in self.lanes]
        return self.lanes


class Batch:
    """Steps that run as one job, with how many tokens each may read in it (None: all). ``clock`` is read on the thread, too."""

    def __init__(self, parts: Sequence[tuple[Step, int | None]], clock: Callable[[], float]) -> None:
        self.steps = [step for step, _ in parts]
        self.took_s = 0.0
        self.began_s = clock()
        self._clock = clock
        self._rows = {id(step): rows for step, rows in parts}
        self.works = [_cut(work, rows) for step, rows in parts for work in step.works]
        self.is_useless = asyncio.Event()
        self.is_preempted = False
        self.gives_way = False
        self.is_prefill = any(len(feed.token_ids) > LONGEST_BURST for step in self.steps for feed in step.feeds)
        for step in self.steps:
            step.batch = self
        self.steps_given_up()

    @property
    def may_be_preempted(self) -> bool:
        """Whether nobody in it lost a step already: each is taken back once at most."""
        return not any(step.was_preempted for step in self.steps)

    def steps_given_up(self) -> None:
        if all(step.is_given_up for step in self.steps):
            self.is_useless.set()

    def preempt(self) -> None:
        """Its emulated time ends here, and ``take_back`` must follow once its job is over."""
        self.is_preempted = True
        self.is_useless.set()

    def take_back(self) -> None:
        """As if it had not run, but for the time that passed. A step that failed stays so."""
        for step in self.steps:
            if step.error is None:
                step.was_preempted, step.is_done = True, False
                step.proposals = []
                for lane in step.lanes or ():
                    lane.take_back()

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
                step.is_done = step.error is not None or not any(lane.is_reading for lane in step.lanes or ())

    def _run(self, engine: Engine) -> int:
        lanes = [lane.grant(self._rows[id(step)]) for step in self.steps for lane in step.place(engine)]
        num_turns = 0
        while lanes:
            lanes, logits = _extend(engine, lanes)
            num_turns += bool(lanes)
            lanes = self._take([lane for lane in lanes if not lane.is_reading], logits)
        return num_turns

    def _take(self, lanes: Sequence[Lane], logits: NDArray[np.float32]) -> list[Lane]:
        """Note what is proposed; the lanes that go on behind it."""
        if not lanes:
            return []
        for lane, row in zip(lanes, logits, strict=True):
            lane.quote(row)
        ranked = _ranked(logits, lanes)
        pairs = zip(ranked.token_ids.tolist(), ranked.confidences.tolist(), strict=True)
        going_on = [lane for lane, (ids, shares) in zip(lanes, pairs, strict=True) if lane.take(ids, shares)]
        return [] if self.gives_way else going_on


@dataclass(slots=True)
class Lane:
    """One cache of a step: what is fed into it behind ``start`` tokens, how far that is, and where the proposals go. ``ending``
    is how the text ends once all is fed."""

    step: Step
    cache: CacheId
    start: int
    token_ids: Sequence[int]
    ending: Sequence[int] = ()
    num_fed: int = 0
    new: Sequence[int] = ()
    proposals: list[Proposal] = field(default_factory=list)
    num_fed_before: int = 0

    def begin(self, engine: Engine) -> list[Proposal]:
        """Before a job: the cache holds what was fed in jobs that counted, and no more."""
        length = self.start + self.num_fed
        if engine.length(self.cache) > length:
            engine.truncate(self.cache, length)
        self.proposals, self.num_fed_before = [], self.num_fed
        return self.proposals

    def grant(self, rows: int | None) -> Lane:
        """So many tokens are fed next; None: all that are left."""
        left = self.token_ids[self.num_fed :]
        self.new = left if rows is None else left[:rows]
        return self

    @property
    def is_reading(self) -> bool:
        """Whether tokens are left to feed before anything can be proposed."""
        return self.num_fed < len(self.token_ids)

    @property
    def num_logits(self) -> int:
        return int(self.num_fed + len(self.new) >= len(self.token_ids))

    @property
    def position(self) -> int:
        """That of the token that is proposed next."""
        return self.start + len(self.token_ids) + len(self.proposals)

    def fed(self) -> None:
        """What was to be fed is in the cache."""
        if self.is_reading:
            self.num_fed += len(self.new)

    def quote(self, row: NDArray[np.float32]) -> None:
        """Lift what followed in the documents, where the step may quote any, before anything is chosen."""
        if self.step.quotes is not None:
            self.step.quotes.blend(row, [*self.ending, *[proposal.token_id for proposal in self.proposals]])

    def take_back(self) -> None:
        """The last job does not count."""
        self.num_fed = self.num_fed_before

    def take(self, ids: Sequence[int], shares: Sequence[float]) -> bool:
        """Note what the draft proposes; whether the lane goes on behind it."""
        step, first = self.step, ids[0]
        count = min(step.num_choices, len(ids) - ids.count(-1))
        self.proposals.append(Proposal(tuple(ids[:count]), tuple(shares[:count])))
        self.new = [first]
        return len(self.proposals) < step.max_steps and first not in step.end_token_ids and not step.is_given_up


def _cut(work: Work, rows: int | None) -> Work:
    return work if rows is None else Work(work.past_tokens, rows)


def _extend(engine: Engine, lanes: Sequence[Lane]) -> tuple[list[Lane], NDArray[np.float32]]:
    """The lanes that ran, and the logits of those that have read all.

    Where there is no room for all of them, the step that holds most tokens fails alone, and the others go on without it: an
    ``extend`` that was refused has changed nothing.
    """
    left = list(lanes)
    while left:
        try:
            logits = engine.extend([Chunk(lane.cache, lane.new, lane.num_logits) for lane in left])
        except CapacityError as error:
            fullest = max((lane.step for lane in left), key=lambda step: _num_tokens(engine, step, left))
            fullest.error = error
            left = [lane for lane in left if lane.step is not fullest]
        else:
            for lane in left:
                lane.fed()
            return left, logits
    return [], np.empty((0, 0), np.float32)


def _num_tokens(engine: Engine, step: Step, lanes: Sequence[Lane]) -> int:
    """What a step's caches would hold."""
    return sum(engine.length(lane.cache) + len(lane.new) for lane in lanes if lane.step is step)


def _ranked(logits: NDArray[np.float32], lanes: Sequence[Lane]) -> Ranked:
    """Each lane's first choices, as many as the lane that wants most."""
    positions, parameters = [lane.position for lane in lanes], [lane.step.parameters for lane in lanes]
    return choose_ranked(logits, positions, parameters, max(lane.step.num_choices for lane in lanes))


def _turn(feed: Feed) -> int:
    return feed.turn


def _place(engine: Engine, feed: Feed) -> CacheId:
    slot = feed.slot
    if feed.source is not None:
        close_caches(engine, [slot])
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


def close_caches(engine: Engine, slots: Sequence[Slot]) -> None:
    """Close those that are open."""
    for slot in slots:
        cache, slot.cache = slot.cache, None
        if cache is not None:
            engine.close(cache)
