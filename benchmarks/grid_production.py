"""One answer by the production agent and verifier on the synthetic pair, set up as one policy or baseline of the grid.

Everything is emulated: virtual clock, inline engines, a link of pure delay, one session, a prompt of one token. Rates count
from the request to the end of the last pass, as the first-order model counts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.first_order import Figures, Times
from benchmarks.plain_texts import check
from benchmarks.virtual import last_event
from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.patience import NEVER
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import Acceptance, DraftEngine, FullEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import NetworkProfile

PROMPT = synthetic.decode([1])
AGENT, NEVER_WAITING = AgentConfig(), VerifierConfig(patience=0.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a user would set: flags of the agent, flags of the verifier, and the request's mode."""

    agent: AgentConfig = AGENT
    verifier: VerifierConfig = NEVER_WAITING
    mode: Mode = Mode.COLLABORATE


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a setup meets: times, and one draw of the acceptance process."""

    times: Times
    acceptance: Acceptance
    seed: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer reached, and how many emulated seconds it took."""

    figures: Figures
    emulated_s: float


def cloud_alone() -> Setup:
    return Setup(mode=Mode.CLOUD)


def inside_the_cloud(length: int) -> Setup:
    """The draft model beside the full one; the device only reads."""
    return Setup(verifier=VerifierConfig(patience=0.0, draft_length=length), mode=Mode.CLOUD)


def stop_and_wait(length: int) -> Setup:
    """``length`` drafts, a ``pass`` flag, and a verifier that does nothing before it comes."""
    return Setup(AgentConfig(drafting="fixed-length", draft_length=length), VerifierConfig(patience=NEVER))


def branches(width: int) -> Setup:
    """Drafting ahead with so many branches."""
    return Setup(AgentConfig(drafting="ahead" if width == 1 else "second-branch", draft_width=width))


def adaptive() -> Setup:
    """What a user gets who sets nothing."""
    return Setup(AgentConfig(drafting="adaptive"))


def delay_line(round_trip_ms: float) -> NetworkProfile:
    """A network that holds every message back for half a round trip, and nothing else."""
    delay_s = round_trip_ms / 2000
    return NetworkProfile(
        name="delay",
        title="a delay and nothing else",
        uplink_rate_bytes_per_s=math.inf,
        uplink_delay_s=delay_s,
        uplink_jitter_s=0.0,
        downlink_rate_bytes_per_s=math.inf,
        downlink_delay_s=delay_s,
        downlink_jitter_s=0.0,
        overhead_bytes=0.0,
    )


def answered(setup: Setup, met: Meeting) -> Answer:
    """What the production code reaches. Raises ``SimulationError`` where it writes another text than the full model."""
    return virtual_time.run(_answered(setup, met))


async def _answered(setup: Setup, met: Meeting) -> Answer:
    async with _stack(setup, met) as agent:
        began_s = _now_s()
        done = await last_event(agent, StreamRequest(PROMPT, max_tokens=met.num_tokens, mode=setup.mode))
        # The end is known half a round trip after the last pass.
        took_s = _now_s() - began_s - met.times.round_trip_ms / 2000
    check(FullEngine(met.acceptance, met.seed, met.num_tokens + 1, 0.0), [done])
    figures = Figures(met.num_tokens / took_s, done.usage["passes"] / met.num_tokens)
    return Answer(figures, _now_s())


@asynccontextmanager
async def _stack(setup: Setup, met: Meeting) -> AsyncIterator[DeviceAgent]:
    """The production agent and verifier with a delay line between them; the connection is warm."""
    times, context = met.times, met.num_tokens + 1
    full = FullEngine(met.acceptance, met.seed, context, times.pass_ms / 1000)
    draft = DraftEngine(met.acceptance, met.seed, context, times.draft_ms / 1000)
    proved = SelfTest(True, "f" * 16, 0.0, ())
    companion = _companion(setup.verifier, met, context)
    verifier = Verifier(EngineRunner(full), synthetic.IDENTITY, proved, setup.verifier, companion)
    connector = ShapedConnector(MemoryConnector(verifier), delay_line(times.round_trip_ms))
    agent = DeviceAgent(synthetic.facts(context), EngineRunner(draft), connector, setup.agent)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        async with agent:
            await last_event(agent, StreamRequest(PROMPT, max_tokens=1))
            yield agent
        verifier.stop()


def _companion(config: VerifierConfig, met: Meeting, context: int) -> Companion | None:
    if not config.draft_length:
        return None
    engine = DraftEngine(met.acceptance, met.seed, context, met.times.cloud_draft_ms / 1000)
    return Companion(EngineRunner(engine), config.draft_length, config.max_rows)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
