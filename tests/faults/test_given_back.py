"""What an answer holds is given back, however it ends."""

from __future__ import annotations

import asyncio

from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import StreamRequest
from speculation.engines.runner import EngineRunner
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from tests.faults import tables
from tests.faults.fleet import EXACT
from tests.faults.tables import DraftTable, FullTable, Tracked


async def _ask(agent: DeviceAgent, after_s: float, **asked) -> None:
    await asyncio.sleep(after_s)
    async for _ in agent.stream(StreamRequest(tables.decode([1]), **asked)):
        pass


def test_an_answer_whose_deadline_passes_while_it_gives_its_caches_back_holds_none():
    """The first answer ends at 3 s, with the only pass it needs, during a draft step of the other's from 2 s to 4 s."""

    async def work():
        draft = Tracked(DraftTable(0, 8), 2.0)
        verifier = Verifier(EngineRunner(Tracked(FullTable(0, 8), 3.0)), tables.IDENTITY, EXACT, VerifierConfig())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(verifier.run())
            async with DeviceAgent(tables.facts(()), EngineRunner(draft), MemoryConnector(verifier), AgentConfig()) as agent:
                await asyncio.gather(_ask(agent, 0.0, max_tokens=1, deadline_ms=3500), _ask(agent, 0.1, max_tokens=8))
            verifier.stop()
        return draft.open_caches

    assert not virtual_time.run(work())
