"""The production agents and verifier under the virtual clock, as phones on a network with a cloud machine behind it.

Engines compute inline and are charged what profiles say, links stay in memory behind emulated radios; everything else is what
runs in production. Times are exact, and the same on any machine that gives the same tokens.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent, ErrorEvent, Event
from device_agent.pair import PairFacts
from device_agent.request import Mode, StreamRequest
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import SimulationError
from speculation.links.base import Connector
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import PairIdentity
from speculation.shaping import virtual_time
from speculation.shaping.energy import RadioPower, RadioUse, radio_j
from speculation.shaping.engine import CloudCost, PhoneCost, shape
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import ModelDescription
from speculation.shaping.overrides import at_round_trip
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import UNSHAPED, CloudProfile, NetworkProfile, PhoneProfile

PROVED = SelfTest(True, "f" * 16, 0.0, ())


@dataclass(frozen=True, slots=True)
class Place:
    """Who meets: the machines, the network between them, and the models whose time and bytes they are charged."""

    phone: PhoneProfile
    network: NetworkProfile
    cloud: CloudProfile
    draft: ModelDescription
    full: ModelDescription

    def at_round_trip(self, round_trip_s: float) -> Place:
        """The same network as near or far as that, with the shares of its two ways, and no more jitter than it had."""
        return dataclasses.replace(self, network=at_round_trip(self.network, round_trip_s))

    def at_speed(self, share: float) -> Place:
        """With a phone that reads and computes at that share of its speed, as a hot one does."""
        phone = dataclasses.replace(
            self.phone,
            bandwidth_bytes_per_s=self.phone.bandwidth_bytes_per_s * share,
            operations_per_s=self.phone.operations_per_s * share,
        )
        return dataclasses.replace(self, phone=phone)


class Source(Protocol):
    """Where tokens come from: a pair of engines, real or not."""

    @property
    def identity(self) -> PairIdentity: ...

    def facts(self) -> PairFacts: ...

    def draft_engine(self) -> Engine:
        """A new one for each phone."""

    def full_engine(self, num_devices: int) -> Engine: ...

    def request(self, number: int, num_tokens: int, mode: Mode) -> StreamRequest:
        """What a device asks for; something else for each number."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a user would set: flags of the agents, flags of the verifier, and the mode of their requests."""

    agent: AgentConfig
    verifier: VerifierConfig
    mode: Mode = Mode.COLLABORATE
    heat: Heat = Heat.OFF

    @classmethod
    def of(cls, mode: Mode = Mode.COLLABORATE, num_devices: int = 1, heat: Heat = Heat.OFF, **agent: Any) -> Setup:
        """The defaults of both services, with room for so many devices."""
        verifier = VerifierConfig(num_slots=max(16, num_devices + 1), max_sessions=max(16, num_devices + 1))
        return cls(AgentConfig(**agent), verifier, mode, heat)


@dataclass(frozen=True, slots=True)
class Written:
    """One answer: emulated times in seconds, counts and joules a final token.

    ``work_j_per_token`` is what the phone's drafting costs, ``radio_j_per_token`` its radio, which is active all through the
    answer; the tail behind it is left out. None where the profile of the phone, or of the network, does not say.
    """

    num_tokens: int
    began_s: float
    ended_s: float
    first_visible_s: float
    first_final_s: float | None
    tokens_per_s: float
    passes_per_token: float
    acceptance: float | None
    revoked_share: float | None
    bytes_up_per_token: float
    bytes_down_per_token: float
    draft_steps_per_token: float
    work_j_per_token: float | None
    radio_j_per_token: float | None


def run(place: Place, source: Source, setup: Setup, prompts: Sequence[int], num_tokens: int) -> list[Written]:
    """An answer for each prompt, each on a phone of its own, all at once.

    Raises ``CapacityError`` where a model does not fit its machine, and what a stream ends with.
    """
    return virtual_time.run(_run(place, source, setup, prompts, num_tokens))


def in_turn(place: Place, source: Source, setup: Setup, prompts: Sequence[int], num_tokens: int) -> list[Written]:
    """An answer for each prompt, one after the other on one phone, with what that has learned. Raises as ``run``."""
    return virtual_time.run(_in_turn(place, source, setup, prompts, num_tokens))


@dataclass(frozen=True, slots=True)
class Timed:
    """An event of an answer, and the seconds since it was asked for."""

    at_s: float
    event: Event


def timeline(place: Place, source: Source, setup: Setup, prompt: int, num_tokens: int) -> list[Timed]:
    """All events of one answer, on a warm connection. Raises as ``run`` does."""
    return virtual_time.run(_timeline(place, source, setup, prompt, num_tokens))


async def _timeline(place: Place, source: Source, setup: Setup, prompt: int, num_tokens: int) -> list[Timed]:
    loop, events = asyncio.get_running_loop(), list[Timed]()
    async with _verifier(place, source, setup, 1) as verifier, _phone(place, source, setup, verifier, prompt) as agent:
        await _answer(agent, source, setup, prompt, 1)
        began_s = loop.time()

        async def watched() -> AsyncIterator[Event]:
            async for event in agent.stream(source.request(prompt, num_tokens, setup.mode)):
                events.append(Timed(loop.time() - began_s, event))
                yield event

        await last_event(watched())
    return events


async def _run(place: Place, source: Source, setup: Setup, prompts: Sequence[int], num_tokens: int) -> list[Written]:
    async with _verifier(place, source, setup, len(prompts)) as verifier, AsyncExitStack() as phones:
        agents = [await phones.enter_async_context(_phone(place, source, setup, verifier, number)) for number in prompts]
        # A first short answer each, so that connections are warm and nobody's first token pays for a handshake.
        await asyncio.gather(*(_answer(agent, source, setup, number, 1) for agent, number in zip(agents, prompts, strict=True)))
        power, asked = place.network.power, zip(agents, prompts, strict=True)
        return list(await asyncio.gather(*(_answer(a, source, setup, n, num_tokens, power) for a, n in asked)))


async def _in_turn(place: Place, source: Source, setup: Setup, prompts: Sequence[int], num_tokens: int) -> list[Written]:
    async with _verifier(place, source, setup, 1) as verifier, _phone(place, source, setup, verifier, 0) as agent:
        await _answer(agent, source, setup, prompts[0], 1)
        return [await _answer(agent, source, setup, number, num_tokens, place.network.power) for number in prompts]


@asynccontextmanager
async def _verifier(place: Place, source: Source, setup: Setup, num_devices: int) -> AsyncIterator[Verifier]:
    engine = shape(source.full_engine(num_devices), CloudCost(place.cloud, place.full))
    verifier = Verifier(EngineRunner(engine), source.identity, PROVED, setup.verifier)
    tasks = await asyncio.TaskGroup().__aenter__()
    tasks.create_task(verifier.run())
    try:
        yield verifier
    finally:
        verifier.stop()
        await tasks.__aexit__(None, None, None)  # not told of the body's error, which it would wrap in a group


@asynccontextmanager
async def _phone(place: Place, source: Source, setup: Setup, verifier: Verifier, number: int) -> AsyncIterator[DeviceAgent]:
    engine = shape(source.draft_engine(), PhoneCost(place.phone, place.draft), setup.heat)
    connector: Connector = MemoryConnector(verifier)
    if place.network.name != UNSHAPED:
        connector = ShapedConnector(connector, place.network, number)
    async with DeviceAgent(source.facts(), EngineRunner(engine), connector, setup.agent) as agent:
        yield agent


async def _answer(
    agent: DeviceAgent, source: Source, setup: Setup, number: int, num_tokens: int, power: RadioPower | None = None
) -> Written:
    began_s = asyncio.get_running_loop().time()
    done = await last_event(agent.stream(source.request(number, num_tokens, setup.mode)))
    return written(done, began_s, asyncio.get_running_loop().time(), power)


def written(done: DoneEvent, began_s: float, ended_s: float, power: RadioPower | None = None) -> Written:
    """The figures of an answer that ended well, by a radio that draws ``power``."""
    figures = {name: figure["value"] for name, figure in done.figures.items()}
    count = len(done.token_ids)
    spent_j = _radio_j(power, ended_s - began_s, figures["bytes_up"], figures["bytes_down"])
    return Written(
        num_tokens=count,
        began_s=began_s,
        ended_s=ended_s,
        first_visible_s=figures["first_visible_ms"] / 1000,
        first_final_s=None if figures["first_final_ms"] is None else figures["first_final_ms"] / 1000,
        tokens_per_s=figures["tokens_per_s"],
        passes_per_token=figures["passes_per_token"] or 0.0,
        acceptance=figures["acceptance"],
        revoked_share=figures["revoked_share"],
        bytes_up_per_token=figures["bytes_up"] / count,
        bytes_down_per_token=figures["bytes_down"] / count,
        draft_steps_per_token=figures["draft_steps"] / count,
        work_j_per_token=figures.get("joules_per_token"),
        radio_j_per_token=None if spent_j is None else spent_j / count,
    )


def _radio_j(power: RadioPower | None, active_s: float, bytes_up: float, bytes_down: float) -> float | None:
    """Nothing, for an answer that sent nothing."""
    if power is None or not bytes_up:
        return None if power is None else 0.0
    return radio_j(power, RadioUse(active_s=active_s, bytes_up=bytes_up, bytes_down=bytes_down))


async def last_event(events: AsyncIterator[Event]) -> DoneEvent:
    """Read a stream to its end. Raises ``SimulationError`` where that is an error."""
    event: Event | None = None
    async for newest in events:
        event = newest
    if isinstance(event, ErrorEvent):
        raise SimulationError(f"the stream ended with an error: {event.error}")
    if not isinstance(event, DoneEvent):
        raise SimulationError("the stream ended without a last event")
    return event
