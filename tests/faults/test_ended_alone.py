"""What an answer says that ended while its device was alone, and held something back."""

from __future__ import annotations

from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Reveal, StreamRequest
from speculation.engines.runner import EngineRunner
from speculation.errors import LinkError
from speculation.shaping import virtual_time
from tests.faults import tables
from tests.faults.tables import DraftTable, Tracked


class Nobody:
    """A connector that reaches no verifier."""

    async def connect(self):
        raise LinkError("nobody answers")

    async def aclose(self) -> None:
        pass


def test_an_end_that_is_not_shown_is_not_the_answers():
    """Nothing is shown and nothing is verified: the answer ended because the device was alone, not by its length."""

    async def work():
        draft = Tracked(DraftTable(0, 4), 0.1)
        async with DeviceAgent(tables.facts(()), EngineRunner(draft), Nobody(), AgentConfig()) as agent:
            request = StreamRequest(tables.decode([1]), max_tokens=1, reveal=Reveal.STABLE, min_stability=1.0)
            return [event async for event in agent.stream(request)][-1]

    done = virtual_time.run(work())
    assert (done.token_ids, done.verified_count) == ((), 0)
    assert done.finish_reason == "offline"
