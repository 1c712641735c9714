"""One answer by the production agent and verifier in a world where rows, drafts and bytes cost something, and that may shift.

Emulated: virtual clock, inline engines, a delay line, one session, the synthetic pair of the planner. A pass takes a base
and a price for each row; a draft step takes its time and a little more for each further row. The world may be another from
the middle of the answer on: the pair's acceptance and the round trip are then those of its second half.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.adaptive_distance import FurtherAway
from benchmarks.grid_production import PROMPT, delay_line
from benchmarks.plain_texts import check
from benchmarks.trace_replay import StepCost
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.patience import NEVER
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.pair import PairFacts
from device_agent.request import StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import Acceptance, DraftEngine, FullEngine
from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector

FURTHER_ROW = 0.1
"""What a further row of a draft step costs, as a share of the first: a phone's step is bound by reading its weights."""

PHONE_W = 5.0
"""What a phone takes while it drafts. An assumption: a system on chip under sustained load."""

UPLINK_J_PER_BYTE = 3.5e-6
"""0.44 W for each Mbit/s of LTE uplink (Huang et al. 2012, table 4), without what the radio takes for being awake."""

MESSAGE_BYTES = 88
"""What a message weighs beyond its payload: framing of gRPC, HTTP/2, TLS, TCP and IP, as the network profiles have it."""


@dataclass(frozen=True, slots=True)
class Half:
    """What holds over one half of an answer."""

    round_trip_ms: float
    alpha: float


@dataclass(frozen=True, slots=True)
class World:
    """``pass_row_ms`` is what each row adds to a pass of ``pass_ms``. Both halves may be the same."""

    draft_ms: float
    pass_ms: float
    pass_row_ms: float
    first: Half
    second: Half

    @property
    def is_shifting(self) -> bool:
        return self.first != self.second

    @property
    def draft_cost(self) -> StepCost:
        return StepCost((1 - FURTHER_ROW) * self.draft_ms / 1000, FURTHER_ROW * self.draft_ms / 1000)

    @property
    def pass_cost(self) -> StepCost:
        return StepCost(self.pass_ms / 1000, self.pass_row_ms / 1000)


@dataclass(frozen=True, slots=True)
class Spent:
    """What an answer took; all but the revoked share are a final token's."""

    seconds: float
    passes: float
    steps: float
    nodes: float
    joules: float
    sent_bytes: float
    revoked_share: float


class Metered:
    """An engine that is charged by step and row, and counts; it takes no time of its own."""

    def __init__(self, engine: RandomEngine, cost: StepCost) -> None:
        self.steps = 0
        self.busy_s = 0.0
        self._engine = engine
        self._cost = cost
        self._charge_s = 0.0

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def open(self) -> CacheId:
        return self._engine.open()

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        cost_s = self._cost.of(sum(len(chunk.token_ids) for chunk in chunks))
        self.steps += 1
        self.busy_s += cost_s
        self._charge_s += cost_s
        return self._engine.extend(chunks)

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        return self._engine.fork(cache, length)

    def take_charge_s(self) -> float:
        """Emulated seconds since the last call."""
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s

    def forget(self) -> None:
        """Count anew."""
        self.steps, self.busy_s = 0, 0.0


class _Shifting(RandomEngine):
    """Rows behind ``middle`` tokens and more are the second half's."""

    middle: int
    halves: tuple[Acceptance, Acceptance]
    _acceptance: Acceptance

    def _append(self, chunk: Chunk) -> list[NDArray[np.float32]]:
        rows = []
        first_row = len(chunk.token_ids) - chunk.num_logits
        for index, token_id in enumerate(chunk.token_ids):
            self._acceptance = self.halves[self.length(chunk.cache) + 1 >= self.middle]
            rows += super()._append(Chunk(chunk.cache, [token_id], int(index >= first_row)))
        return rows


class _ShiftingDraft(_Shifting, DraftEngine):
    """The draft of a pair that shifts."""


class _ShiftingFull(_Shifting, FullEngine):
    """The full model of a pair that shifts. ``reached``: tokens that were in any cache."""

    reached = 0

    def _append(self, chunk: Chunk) -> list[NDArray[np.float32]]:
        self.reached = max(self.reached, self.length(chunk.cache))
        return super()._append(chunk)


def answered(world: World, config: AgentConfig, seed: int, num_tokens: int) -> Spent:
    """What the production code spends on an answer of the synthetic pair; depends on nothing but its arguments."""
    return virtual_time.run(_answered(world, config, seed, num_tokens))


async def _answered(world: World, config: AgentConfig, seed: int, num_tokens: int) -> Spent:
    context = num_tokens + 1
    halves = Acceptance(world.first.alpha), Acceptance(world.second.alpha)
    draft, full = _ShiftingDraft(halves[0], seed, context, 0.0), _ShiftingFull(halves[0], seed, context, 0.0)
    alone = _ShiftingFull(halves[0], seed, context, 0.0)
    for engine in (draft, full, alone):
        engine.halves, engine.middle = halves, num_tokens // 2
    further_s = (world.second.round_trip_ms - world.first.round_trip_ms) / 2000

    def delay_s() -> float:
        return further_s if full.reached >= num_tokens // 2 else 0.0

    metered = Metered(draft, world.draft_cost)
    facts = synthetic.facts(context)
    far = delay_s if further_s else None
    async with stack(facts, metered, Metered(full, world.pass_cost), world.first.round_trip_ms, config, far) as agent:
        requests = [StreamRequest(PROMPT, max_tokens=num_tokens)]
        return await spent_on(agent, metered, requests, world.second.round_trip_ms, alone)


async def spent_on(
    agent: DeviceAgent, draft: Metered, requests: Sequence[StreamRequest], round_trip_ms: float, full: Engine
) -> Spent:
    """What these answers take together, up to the end of each one's last pass. The agent is warm. Raises ``SimulationError``
    where one is not what ``full`` writes alone."""
    draft.forget()
    took_s, answers = 0.0, []
    for request in requests:
        began_s = _now_s()
        answers.append(await last_event(agent, request))
        took_s += _now_s() - began_s - round_trip_ms / 2000
    check(full, answers)
    num_tokens = sum(len(answer.token_ids) for answer in answers)
    sent_bytes = _total(answers, "bytes_up") + MESSAGE_BYTES * _total(answers, "messages_up")
    return Spent(
        seconds=took_s / num_tokens,
        passes=sum(answer.usage["passes"] for answer in answers) / num_tokens,
        steps=draft.steps / num_tokens,
        nodes=sum(answer.usage["proposed"] for answer in answers) / num_tokens,
        joules=(PHONE_W * draft.busy_s + UPLINK_J_PER_BYTE * sent_bytes) / num_tokens,
        sent_bytes=sent_bytes / num_tokens,
        revoked_share=_total(answers, "revoked_share") / len(answers),
    )


@asynccontextmanager
async def stack(
    facts: PairFacts,
    draft: Engine,
    full: Engine,
    round_trip_ms: float,
    config: AgentConfig,
    further_s: Callable[[], float] | None = None,
) -> AsyncIterator[DeviceAgent]:
    """The production agent and a verifier that never waits, but for ``fixed-length``. The connection is warm.

    ``further_s`` is added each way to half of the round trip.
    """
    patience = NEVER if config.drafting == "fixed-length" else 0.0
    proved = SelfTest(True, "f" * 16, 0.0, ())
    verifier = Verifier(EngineRunner(full), synthetic.IDENTITY, proved, VerifierConfig(patience=patience))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        endpoint = verifier if further_s is None else FurtherAway(verifier, further_s, tasks)
        connector = ShapedConnector(MemoryConnector(endpoint), delay_line(round_trip_ms))
        async with DeviceAgent(facts, EngineRunner(draft), connector, config) as agent:
            await last_event(agent, StreamRequest(PROMPT, max_tokens=1))
            yield agent
        verifier.stop()


def _total(answers: Sequence[DoneEvent], figure: str) -> float:
    return sum(answer.figures[figure]["value"] or 0.0 for answer in answers)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
