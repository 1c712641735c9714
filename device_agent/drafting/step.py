"""Draft steps: streams that want to grow share one batched forward of the draft model, as ``turns.py`` says.

Who comes while a step runs joins the next; or, where its first word is awaited and its priority is higher than anybody's in the
step that runs, that step is taken back and begun again behind it. Where a step is shorter than its hand-over between threads, a
stream that follows a single branch takes several steps at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from statistics import median_low

from device_agent.drafting.batch import LONGEST_BURST, Batch, close_caches
from device_agent.drafting.batch import Step as Step
from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Slot
from device_agent.drafting.phone import Phone
from device_agent.drafting.turns import SHORT_WAIT, Grant, Order, fair, first_come
from speculation.engines.base import Engine, Forkable
from speculation.engines.runner import EngineRunner
from speculation.shaping.costs import Work

BURST_S = 3e-3
"""A job of several steps lasts about so long: what it drafts is shown and sent when it ends. A verdict that contradicts it ends
it at the next step."""

WINDOW = 8
"""Jobs whose times count."""


class DraftSteps:
    """The draft model's one queue. ``runner`` owns the engine; nothing else may use it."""

    def __init__(self, runner: EngineRunner[Engine], order: Order = Order.FAIR) -> None:
        engine = runner.engine
        self.can_fork = isinstance(engine, Forkable)
        self.phone = Phone(engine)
        self.num_preempted = 0
        self._runner = runner
        self._order = order
        self._over: asyncio.Event | None = None
        self._num_shared = 0
        self._waiting: list[Step] = []
        self._running: Batch | None = None
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

    def cost_s(self, works: Sequence[Work]) -> float:
        """Seconds of a step over these caches, by all that is known."""
        return self.phone.step_s(works, self.step_s)

    async def run(self, step: Step) -> list[list[Proposal]]:
        """The step's proposals. Raises what the engine raises; ``CapacityError`` when it has no cache left."""
        loop = asyncio.get_running_loop()
        step.since_s = loop.time()
        self._waiting.append(step)
        self._make_way_for(step)
        try:
            while not step.is_done:
                if step.share.is_held:
                    await step.share.released()
                    step.since_s = loop.time()
                await self._take_turn(step)
        finally:
            step.is_left = True  # also where a job of it still runs
            if step in self._waiting:
                self._waiting.remove(step)
        if step.error is not None:
            raise step.error
        return step.proposals

    async def _take_turn(self, step: Step) -> None:
        """Let the next step run, whoever shares it; or wait for the one that runs, which may be this one's.

        All are woken when it ends: whose step is done must not wait behind somebody's that is not.
        """
        if self._over is not None:
            await self._over.wait()
            return
        over = self._over = asyncio.Event()
        try:
            if step.batch is not None:
                await self._outlive_leader(step)
            if self._num_shared > 1 or len(self._waiting) > 1:
                await asyncio.sleep(0)  # who was in the step that ended sees it, and comes back, before the next begins
            if not step.is_done:
                await self._run_waiting()
        finally:
            self._over = None
            over.set()

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
            close_caches(engine, [self._closing.popleft()])

    def _job(self, batch: Batch, engine: Engine) -> int:
        self._give_back(engine)
        return batch.run(engine)

    async def _run_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        batch = self._next_batch(loop.time())
        if batch is None:
            return
        self._running, self._num_shared = batch, len(batch.steps)
        try:
            num_turns = await self._runner.run(partial(self._job, batch), batch.is_useless)
        finally:
            self._running = None
        self._end(batch, loop.time())
        if num_turns and not batch.is_prefill and not batch.is_preempted:
            # Emulated time passes once a job is computed; measured time is the job's own.
            took_s = loop.time() - batch.began_s if self._is_emulated else batch.took_s
            self._steps_s.append(took_s / num_turns)

    def _next_batch(self, now_s: float) -> Batch | None:
        """Who shares the next step; None where all that wait are held."""
        ready = [step for step in self._waiting if not step.share.is_held]
        if not ready:
            return None
        parts = [(ready[grant.index], grant.rows) for grant in self._grants(ready, now_s)]
        for step, _ in parts:
            self._waiting.remove(step)
            step.share.waited_s += now_s - step.since_s
        return Batch(parts, asyncio.get_running_loop().time)

    def _grants(self, steps: Sequence[Step], now_s: float) -> list[Grant]:
        claims = [step.claim(now_s) for step in steps]
        if self._order is Order.FIRST_COME or (len(claims) == 1 and not self.phone.is_known):
            return first_come(claims)
        return fair(claims, now_s, self.cost_s)

    def _end(self, batch: Batch, now_s: float) -> None:
        """Who has more to read waits again, and so do all of a step that was taken back."""
        if batch.is_preempted:
            self.num_preempted += 1
            batch.take_back()
        left = [step for step in batch.steps if not (step.is_done or step.is_left)]
        for step in left:
            step.batch, step.since_s = None, now_s
        self._waiting[:0] = left

    def _make_way_for(self, step: Step) -> None:
        """For a first word that matters more than all in a running step: it takes no further step in a row, and an emulated one
        is taken back where the wait would be long for that first word."""
        running = self._running
        if running is None or self._order is Order.FIRST_COME or not step.share.is_new:
            return
        if step.share.priority <= max(each.share.priority for each in running.steps):
            return
        running.gives_way = True
        if self._is_emulated and running.may_be_preempted and self._left_s(running) > SHORT_WAIT * self._alone_s(step):
            running.preempt()

    def _left_s(self, batch: Batch) -> float:
        """What is left of a step that runs, as far as can be told."""
        now_s = asyncio.get_running_loop().time()
        return batch.began_s + max(self.cost_s(batch.works), self.step_s or 0.0) - now_s

    def _alone_s(self, step: Step) -> float:
        return self.cost_s([Work(feed.length, len(feed.token_ids)) for feed in step.feeds])


def _nothing(_: Engine) -> None:
    """A job that only waits for its turn."""
