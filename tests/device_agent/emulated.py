"""An agent whose phone, network and cloud machine are emulated and may be changed, under the virtual clock and over HTTP."""

from __future__ import annotations

import contextlib

from cloud_verifier.emulation import LiveMachine
from device_agent.agent import DeviceAgent
from device_agent.emulation.live import LiveEmulation
from speculation.engines.runner import EngineRunner
from speculation.links.memory import MemoryConnector
from speculation.shaping.engine import CloudCost, PhoneCost, ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL
from tests.device_agent.doubles import DraftEngine, FullEngine, config, facts, verifier

DRAFT, FULL = parse_model(DEFAULT_DRAFT_MODEL), parse_model(DEFAULT_FULL_MODEL)


@contextlib.asynccontextmanager
async def emulating(accuracy: float = 0.8, is_together: bool = True, verifier_changes=None, **changes):
    """The agent, and the verifier behind it, which is at hand where both are together."""
    settings = config(**changes)
    catalogue = settings.catalogue
    full = ShapedEngine(FullEngine(), CloudCost(catalogue.cloud(settings.cloud), FULL))
    async with verifier(full, **verifier_changes or {}) as made:
        draft = ShapedEngine(DraftEngine(accuracy), PhoneCost(catalogue.phone(settings.phone), DRAFT), settings.heat)
        radio = ShapedConnector(MemoryConnector(made), catalogue.network(settings.network))
        live = LiveEmulation(settings, draft, radio, LiveMachine(made, full) if is_together else None)
        async with DeviceAgent(facts(), EngineRunner(draft), radio, settings, emulation=live) as agent:
            yield agent


def change(agent: DeviceAgent, **body) -> None:
    """At once, on the virtual clock, which waits for no thread."""
    agent.emulation.make(agent.emulation.planned(body))
