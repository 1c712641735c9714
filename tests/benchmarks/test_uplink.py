"""What a drafted token costs on the uplink, under the virtual clock: an upper bound that is the same on every machine."""

from __future__ import annotations

import pytest

from benchmarks import trace_file
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull, StepCost, stack
from benchmarks.uplink import MOST_BITS
from benchmarks.virtual import last_event
from speculation.shaping import virtual_time

DRAFT_S, PASS_S = 0.009, 0.041
MESSAGE_BYTES = 9 + 5 + 2 * 13
"""A DATA frame's header, gRPC's prefix, and two window updates: these ride along only where a verdict came before."""


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay(trace_file.load())


async def bits_a_token(replay: Replay, temperature: float, round_trip_ms: float) -> float:
    """Over two answers of the bundled pair's traces, with the demo's phone and cloud, drafted as by default."""
    num_bytes = drafted = 0
    for index in replay.indices(temperature)[:2]:
        draft, full = ReplayDraft(replay, StepCost(DRAFT_S), num_slots=16), ReplayFull(replay, StepCost(PASS_S))
        async with stack(replay, draft, full, round_trip_ms) as agent:
            done = await last_event(agent, replay.request(index))
        num_bytes += done.figures["bytes_up"]["value"] + MESSAGE_BYTES * done.figures["messages_up"]["value"]
        drafted += done.usage["proposed"]
    return 8 * num_bytes / drafted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("round_trip_ms", [4.0, 60.0])
def test_a_drafted_token_costs_less_than_was_promised(replay: Replay, temperature: float, round_trip_ms: float) -> None:
    assert virtual_time.run(bits_a_token(replay, temperature, round_trip_ms)) < MOST_BITS
