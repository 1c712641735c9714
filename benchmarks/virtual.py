"""The production agent and verifier under the virtual clock: engines and links charge time instead of spending it.

Engines compute inline, links stay in memory; everything else is what runs in production. Times are exact and the same on any
machine that gives the same tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.build import draft_engine, facts_of
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.request import StreamRequest
from device_agent.retrieval.applying import Retrieval
from device_agent.routing.policy import RoutingPolicy
from outrider.planning.scene import last_event as last_of
from speculation.engines.package import Pair, load_pair
from speculation.engines.runner import EngineRunner
from speculation.links.base import Connector
from speculation.links.memory import MemoryConnector
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import PhoneCost, shape
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE, UNSHAPED


@dataclass(frozen=True, slots=True)
class Setting:
    """What is emulated, and which draft runs on the phone; ``agent`` holds further settings of it, ``routing`` decides for it
    in mode ``auto``."""

    variant: str = "q4"
    phone: str = DEFAULT_PHONE
    network: str = DEFAULT_NETWORK
    cloud: str = DEFAULT_CLOUD
    agent: Mapping[str, Any] = field(default_factory=dict)
    routing: RoutingPolicy | None = None

    def config(self) -> AgentConfig:
        machines: dict[str, Any] = {"phone": self.phone, "network": self.network, "cloud": self.cloud}
        return AgentConfig(variant=self.variant, **machines, **self.agent)


class Bench:
    """The pair and the full model, loaded and proved once for many settings. ``documents`` are its agents'; their work is
    inline."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.documents: Retrieval | None = None
        self.pair: Pair = load_pair()
        self._config = VerifierConfig(cloud=setting.cloud)
        self._full: FullModel = build_engine(self._config)

    def prompts(self, count: int) -> list[str]:
        return [str(prompt["text"]) for prompt in self.pair.prompts[:count]]

    def run(self, setting: Setting, requests: Sequence[StreamRequest]) -> list[DoneEvent]:
        """Answers to requests, one after the other, on one warm connection."""
        return virtual_time.run(self._answers(setting, requests))

    async def _answers(self, setting: Setting, requests: Sequence[StreamRequest]) -> list[DoneEvent]:
        async with self._verifier() as verifier, self._agent(setting, verifier) as agent:
            await last_event(agent, StreamRequest(requests[0].prompt, max_tokens=1))
            return [await last_event(agent, request) for request in requests]

    @asynccontextmanager
    async def _verifier(self) -> AsyncIterator[Verifier]:
        verifier = Verifier(EngineRunner(self._full.engine), self._full.identity, self._full.self_test, self._config)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(verifier.run())
            yield verifier
            verifier.stop()

    def _agent(self, setting: Setting, verifier: Verifier) -> DeviceAgent:
        config = setting.config()
        cost = PhoneCost(profiles.phone(config.phone), parse_model(config.emulate))
        engine = shape(draft_engine(self.pair.draft, config), cost, config.heat)
        connector: Connector = MemoryConnector(verifier)
        if setting.network != UNSHAPED:
            connector = ShapedConnector(connector, profiles.network(setting.network), config.network_seed)
        facts, routing = facts_of(self.pair, engine), setting.routing
        return DeviceAgent(facts, EngineRunner(engine), connector, config, routing=routing, documents=self.documents)


async def last_event(agent: DeviceAgent, request: StreamRequest) -> DoneEvent:
    """The last event of an answer. Raises ``SimulationError`` where it ends with an error."""
    return await last_of(agent.stream(request))
