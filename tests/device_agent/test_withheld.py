"""A device whose drafts are not worth their messages goes on drafting for its reader, and sends again when they are."""

from __future__ import annotations

import pytest

from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Draft
from speculation.shaping import virtual_time
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent_of,
    answer,
    plain_decoding,
    verifier,
)

PASS_S = 0.03


def drafts_at(connector):
    """When drafts with nodes left the device."""
    return [at_s for at_s, message in connector.links[0].sent if isinstance(message, Draft) and message.nodes]


async def answered(turned_off_after=None):
    """An answer by a verifier that lets devices withhold, for ever or for so many passes: what it was, and what was sent."""
    async with verifier(SlowEngine(PASS_S), patience=0) as made:
        made.rounds._holding.is_on = True
        connector = WatchedConnector(MemoryConnector(made))
        told = made.rounds._holding.passed

        def passed(*of_a_pass):
            told(*of_a_pass)
            made.rounds._holding.is_on = turned_off_after is None or made.statistics.passes < turned_off_after

        made.rounds._holding.passed = passed
        async with agent_of(connector, DraftEngine(0.9, step_s=0.009)) as running:
            replay = await answer(running)
        return replay, drafts_at(connector), made.statistics.passes


def test_nothing_is_sent_behind_the_first_verdict_and_the_reader_sees_drafts_all_the_same():
    replay, sent_s, num_passes = virtual_time.run(answered())
    assert list(replay.last["token_ids"]) == plain_decoding(FullEngine(), parameters=SamplingParameters(seed=3))
    assert num_passes >= 36
    assert max(sent_s, default=0.0) <= 2 * PASS_S
    assert replay.names.count("speculative") > 20


@pytest.mark.parametrize("passes", [5, 12])
def test_drafts_are_sent_again_with_the_first_verdict_that_wants_them(passes):
    replay, sent_s, num_passes = virtual_time.run(answered(passes))
    assert list(replay.last["token_ids"]) == plain_decoding(FullEngine(), parameters=SamplingParameters(seed=3))
    assert next(at_s for at_s in sent_s if at_s > 2 * PASS_S) == pytest.approx(passes * PASS_S, abs=PASS_S)
    assert num_passes < passes + 25
