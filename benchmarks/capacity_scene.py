"""Many devices at one verifier in steady state: production under the virtual clock, and what its machine was busy with.

Devices begin one after the other over ``START_S``, so that nobody's passes fall together by a common start. What is counted
lies between two beginnings of passes: from when the last device is under way until all together have written enough; then they
leave. What is final of every answer is compared with what the full model writes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_texts import is_plain
from benchmarks.roofline import HeldContext
from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.events import CommitEvent, CorrectEvent, DoneEvent, ErrorEvent, Event, RevokeEvent, SpeculativeEvent
from device_agent.request import Mode
from outrider.planning.scene import PROVED
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import DraftEngine
from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription
from speculation.engines.runner import EngineRunner
from speculation.errors import SimulationError
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.network import NetworkProfile

START_S = 0.25
MOST_LEAD_TOKENS = 16
"""Final tokens with which an answer is under way, or as many as are counted where those are fewer: by then a device has seen
some passes, and knows when the next one is."""

EVENT_S = 0.002
"""A verdict is read by then behind the delay of the downlink; shorter than any pass, so it tells which pass a token is from."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Who meets, whose tokens are written, how many devices there are, and how many tokens of each are counted on average.
    ``cloud_draft`` is a draft model on the full model's machine. With ``costs`` the verifier runs the drafts that pay."""

    phone: PhoneCost
    network: NetworkProfile
    full: HeldContext
    cloud_draft: HeldContext
    source: Synthetic
    num_devices: int
    num_tokens: int
    agent: AgentConfig = field(default_factory=AgentConfig)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    mode: Mode = Mode.COLLABORATE
    costs: PassCosts | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What was reached between the two moments. ``busy_share`` is the machine's; ``passes_per_token`` counts the passes that a
    session was in; rates are a device's, the mean one and the slowest."""

    busy_ms_per_token: float
    busy_share: float
    tokens_per_s: float
    slowest_tokens_per_s: float
    passes_per_token: float
    sessions_a_pass: float
    pass_ms: float
    window_s: float


def most_tokens(num_tokens: int) -> int:
    """What each device asks for where so many tokens are counted: so many that nobody comes to the end."""
    return 3 * num_tokens + 96


def lead_tokens(num_tokens: int) -> int:
    """Final tokens of each device before so many are counted."""
    return min(MOST_LEAD_TOKENS, num_tokens)


def run(scene: Scene) -> Load:
    """Raises ``CapacityError`` where the contexts do not fit, ``SimulationError`` where a text is not the full model's."""
    scene.full.check_capacity(scene.num_devices * (scene.full.held_tokens + scene.source.context_length))
    return virtual_time.run(_run(scene))


class Metered:
    """A shaped engine that keeps when it was busy, and with how many sessions."""

    def __init__(self, engine: Engine, cost: HeldContext) -> None:
        self._engine = ShapedEngine(engine, cost)
        self._num_sessions = 0
        self.spans: list[tuple[float, float, int]] = []
        """Beginning and length in seconds, sessions."""

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def open(self) -> CacheId:
        return self._engine.open()

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self._num_sessions = len(chunks)
        return self._engine.extend(chunks)

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)

    def take_charge_s(self) -> float | None:
        charge_s = self._engine.take_charge_s()
        if charge_s:
            self.spans.append((asyncio.get_running_loop().time(), charge_s, self._num_sessions))
        return charge_s

    def began_s(self, near_s: float) -> float:
        """The beginning of the last pass that began by then."""
        return max(at_s for at_s, _, _ in self.spans if at_s <= near_s)

    def busy_s(self, since_s: float, until_s: float) -> float:
        """Seconds of work between two moments."""
        return sum(max(0.0, min(at_s + took_s, until_s) - max(at_s, since_s)) for at_s, took_s, _ in self.spans)

    def sessions(self, since_s: float, until_s: float) -> list[int]:
        """How many sessions were in each pass that began between two moments."""
        return [count for at_s, _, count in self.spans if since_s <= at_s < until_s]


@dataclass(slots=True)
class _Answer:
    """One device's: what it shows, and how much of that was final by the moment of each event that made some so."""

    number: int
    shown: list[int] = field(default_factory=list)
    final: list[tuple[float, int]] = field(default_factory=list)

    @property
    def num_final(self) -> int:
        return self.final[-1][1] if self.final else 0

    def tokens(self, since_s: float, until_s: float) -> int:
        """Tokens that became final between two moments."""
        before = max((total for at_s, total in self.final if at_s <= since_s), default=0)
        return max((total for at_s, total in self.final if at_s <= until_s), default=0) - before

    def take(self, event: Event, now_s: float) -> None:
        """Raises ``SimulationError`` for an end, in order or not."""
        if isinstance(event, SpeculativeEvent | CorrectEvent):
            self.shown.extend(event.token_ids)
        elif isinstance(event, RevokeEvent):
            del self.shown[-event.count :]
        if isinstance(event, CommitEvent | CorrectEvent):
            self.final.append((now_s, event.commit_offset.tokens))
        elif isinstance(event, DoneEvent | ErrorEvent):
            raise SimulationError(f"device {self.number} ended before it was counted: {event.name}")


class _Crowd:
    """All devices and the moments between which they are counted."""

    def __init__(self, scene: Scene) -> None:
        self.answers = [_Answer(number) for number in range(scene.num_devices)]
        self.since_s = math.inf
        self._lead = lead_tokens(scene.num_tokens)
        self._wanted = scene.num_devices * scene.num_tokens
        self.is_done = asyncio.Event()

    def look(self, now_s: float) -> None:
        """Some of an answer became final."""
        if math.isinf(self.since_s):
            if min(answer.num_final for answer in self.answers) >= self._lead:
                self.since_s, self._wanted = now_s, self._wanted + self._num_final
        elif self._num_final >= self._wanted:
            self.is_done.set()

    @property
    def _num_final(self) -> int:
        return sum(answer.num_final for answer in self.answers)


async def _run(scene: Scene) -> Load:
    full = Metered(scene.source.full_engine(scene.num_devices), scene.full)
    draft = Metered(_cloud_draft_engine(scene), scene.cloud_draft)
    verifier, crowd = _verifier(scene, full, draft), _Crowd(scene)
    async with asyncio.TaskGroup() as passes, AsyncExitStack() as phones:
        passes.create_task(verifier.run())
        agents = [await phones.enter_async_context(_agent(scene, verifier, answer.number)) for answer in crowd.answers]
        async with asyncio.TaskGroup() as devices:
            asking = [devices.create_task(_ask(scene, *met, crowd)) for met in zip(agents, crowd.answers, strict=True)]
            await crowd.is_done.wait()
            until_s = asyncio.get_running_loop().time()
            for task in asking:
                task.cancel()
        verifier.stop()
    _check_texts(scene, crowd.answers)
    return _load(scene, crowd, until_s, full, draft)


def _cloud_draft_engine(scene: Scene) -> Engine:
    source = scene.source
    return DraftEngine(source.acceptance, source.seed, source.context_length, 0.0, scene.num_devices + 1)


def _verifier(scene: Scene, full: Metered, draft: Metered) -> Verifier:
    config, companion = scene.verifier, None
    if config.draft_length:
        companion = Companion(EngineRunner(draft), config.draft_length, config.max_rows)
    return Verifier(EngineRunner(full), scene.source.identity, PROVED, config, companion, scene.costs)


def _agent(scene: Scene, verifier: Verifier, number: int) -> DeviceAgent:
    engine = ShapedEngine(scene.source.draft_engine(), scene.phone)
    connector = ShapedConnector(MemoryConnector(verifier), scene.network, number)
    return DeviceAgent(scene.source.facts(), EngineRunner(engine), connector, scene.agent)


async def _ask(scene: Scene, agent: DeviceAgent, answer: _Answer, crowd: _Crowd) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(START_S * answer.number / scene.num_devices)
    request = scene.source.request(answer.number, most_tokens(scene.num_tokens), scene.mode)
    async with contextlib.aclosing(agent.stream(request)) as events:
        async for event in events:
            num_final = answer.num_final
            answer.take(event, loop.time())
            if answer.num_final > num_final:
                crowd.look(loop.time())


def _check_texts(scene: Scene, answers: Sequence[_Answer]) -> None:
    """Raises ``SimulationError`` where what is final of an answer is not what the full model writes alone."""
    engine, facts = scene.source.full_engine(0), scene.source.facts()
    for answer in answers:
        prompt = facts.encode(scene.source.request(answer.number, 1, scene.mode).prompt)
        if not is_plain(engine, prompt, answer.shown[: answer.num_final]):
            raise SimulationError(f"the answer of device {answer.number} is not what the full model writes alone")


def _load(scene: Scene, crowd: _Crowd, until_s: float, full: Metered, draft: Metered) -> Load:
    later_s = scene.network.downlink_delay_s + EVENT_S
    since_s, until_s = full.began_s(crowd.since_s), full.began_s(until_s - later_s)
    if until_s <= since_s:
        raise SimulationError(f"{scene.num_tokens} tokens of a device are too few to be counted")
    tokens = [answer.tokens(since_s + later_s, until_s + later_s) for answer in crowd.answers]
    sessions = full.sessions(since_s, until_s)
    busy_s = full.busy_s(since_s, until_s) + draft.busy_s(since_s, until_s)
    return Load(
        busy_ms_per_token=1000 * busy_s / sum(tokens),
        busy_share=busy_s / (until_s - since_s),
        tokens_per_s=mean(tokens) / (until_s - since_s),
        slowest_tokens_per_s=min(tokens) / (until_s - since_s),
        passes_per_token=sum(sessions) / sum(tokens),
        sessions_a_pass=mean(sessions),
        pass_ms=1000 * full.busy_s(since_s, until_s) / len(sessions),
        window_s=until_s - since_s,
    )
