"""No policy reads what the full model will choose.

In two worlds that differ in one choice of the full model, the device drafts and sends the same at the same times until the
verdict that tells the worlds apart has arrived in one of them.
"""

from __future__ import annotations

import asyncio
import math

import pytest

from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import SECOND, Acceptance, DraftEngine, FullEngine
from speculation.engines.base import Chunk
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector
from tests.device_agent.doubles import WatchedConnector

NAMES = ["adaptive", "ahead", "confidence-gate", "fixed-length", "second-branch"]
KNOB, CONTEXT, NUM_TOKENS = Acceptance(0.8), 200, 80
STEP_S, PASS_S = 0.009, 0.041
PROMPT = synthetic.decode([1])


class Watching(DraftEngine):
    """Notes every draft step: when, and behind which paths."""

    def __init__(self):
        super().__init__(KNOB, 0, CONTEXT, STEP_S)
        self.steps = []

    def extend(self, chunks):
        rows = super().extend(chunks)
        self.steps.append((asyncio.get_running_loop().time(), [self.address(chunk.cache) for chunk in chunks]))
        return rows


def world(name):
    """All that the device did, with its times; when it learned each final token; and the text."""

    async def work():
        draft, learned = Watching(), {}
        full = EngineRunner(FullEngine(KNOB, 0, CONTEXT, PASS_S))
        verifier = Verifier(full, synthetic.IDENTITY, SelfTest(True, "f" * 16, 0.0, ()), VerifierConfig(port=0))
        radio = ShapedConnector(MemoryConnector(verifier), profiles.network("lte"), seed=1)
        watched = WatchedConnector(radio)
        config = AgentConfig(port=0, drafting=name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(verifier.run())
            async with radio, DeviceAgent(synthetic.facts(CONTEXT), EngineRunner(draft), watched, config) as agent:
                async for event in agent.stream(StreamRequest(PROMPT, max_tokens=NUM_TOKENS)):
                    if offset := getattr(event, "commit_offset", None):
                        learned.setdefault(offset.tokens, asyncio.get_running_loop().time())
                last = event
            verifier.stop()
        sent = [(at_s, message) for at_s, message in watched.links[0].sent if hasattr(message, "nodes")]
        return draft.steps, sent, learned, last.token_ids

    return virtual_time.run(work())


def before(done, time_s):
    return [what for what in done if what[0] < time_s]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_device_drafts_and_sends_does_not_depend_on_truth_that_it_was_not_told(monkeypatch, name):
    steps, sent, learned, text = world(name)
    drawn = synthetic.truth_draw
    for index in (5, 40):
        engine = DraftEngine(KNOB, 0, CONTEXT, 0.0)
        cache = engine.open()
        engine.extend([Chunk(cache, [*synthetic.encode(PROMPT), *text[:index]], 1)])
        address = engine.address(cache)
        said = synthetic.guess(address, KNOB)
        other = 0.0 if synthetic.rank(said, drawn(address)) == SECOND else said.first
        monkeypatch.setattr(synthetic, "truth_draw", lambda at, here=address, other=other: other if at == here else drawn(at))
        other_steps, other_sent, other_learned, other_text = world(name)
        assert text[:index] == other_text[:index]
        assert text[index] != other_text[index]
        told_s = min(at_s for count, at_s in [*learned.items(), *other_learned.items()] if count > index)
        assert before(other_steps, told_s) == before(steps, told_s) != []
        assert before(other_sent, told_s) == before(sent, told_s) != []
        assert before(other_steps, math.inf) != before(steps, math.inf)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_alone_never_draws_the_truth(monkeypatch, name):
    def refuse(address):
        raise AssertionError("the truth was read")

    monkeypatch.setattr(synthetic, "truth_draw", refuse)

    async def work():
        config = AgentConfig(port=0, drafting=name)
        async with DeviceAgent(synthetic.facts(CONTEXT), EngineRunner(Watching()), None, config) as agent:
            return [event async for event in agent.stream(StreamRequest(PROMPT, max_tokens=NUM_TOKENS, mode=Mode.DEVICE))]

    assert len(virtual_time.run(work())[-1].token_ids) == NUM_TOKENS
