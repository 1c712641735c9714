"""One contract, three transports: server-sent events, lines of JSON, a WebSocket, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.formats import NDJSON, SSE, format_of
from device_agent.server import serve
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import DraftEngine, FullEngine, SlowEngine, agent_of, config, decode, plain_decoding, verifier
from tests.support.transports import TRANSPORTS, checked

BODY = {"prompt": "the prompt", "max_tokens": 12, "seed": 3}
REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.just("the prompt"),
        "max_tokens": st.integers(1, 12),
        "seed": st.integers(0, 2**64 - 1),
        "temperature": st.sampled_from([0, 1.0]),
        "mode": st.sampled_from(["collaborate", "cloud", "device", "auto"]),
        "reveal": st.sampled_from(["all", "stable"]),
    }
)


@contextlib.asynccontextmanager
async def serving(**changes):
    async with verifier(SlowEngine(0.001)) as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), DraftEngine(0.6, step_s=0.0005), **changes)
        async with serve(config(**changes), agent=agent) as running:
            yield running.url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url():
    async with serving(max_kept_streams=1000) as url:
        yield url


def told(events):
    """Without what names or times one answer: device alone, everything else is the same each time."""
    return [{key: value for key, value in event.items() if key not in ("session_id", "figures")} for event in events]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_same_answer_has_the_same_events_on_every_transport(url):
    body = BODY | {"mode": "device"}
    answers = [await transport(url).begin(body) for transport in TRANSPORTS]
    assert [checked(events).last["event"] for events in answers] == ["done"] * 3
    assert told(answers[0]) == told(answers[1]) == told(answers[2])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("first", TRANSPORTS, ids=lambda transport: transport.name)
async def test_what_began_on_one_transport_is_read_on_by_another_without_a_gap(url, first):
    for second in TRANSPORTS:
        events = await first(url).begin(BODY, limit=4)
        session_id = events[0]["session_id"]
        events += await second(url).read_on(session_id, 3, limit=2)
        events += await first(url).read_on(session_id, events[-1]["seq"])
        assert checked(events).text == decode(plain_decoding(FullEngine(), 12))
        for transport in TRANSPORTS:
            assert await transport(url).read_on(session_id) == events
            assert await transport(url).read_on(session_id, events[-1]["seq"]) == []


@pytest.mark.asyncio(loop_scope="module")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=REQUESTS, carriers=st.lists(st.sampled_from(TRANSPORTS), min_size=1, max_size=3), piece=st.integers(1, 9))
async def test_every_rule_of_the_stream_holds_however_it_is_carried_and_cut(url, request, carriers, piece):
    """Of ``docs/stream.md``; ``checked`` refuses what breaks one."""
    events = await carriers[0](url).begin(request, limit=piece)
    for carrier in carriers[1:]:
        if not is_over(events):
            events += await carrier(url).read_on(events[0]["session_id"], events[-1]["seq"], limit=piece)
    if not is_over(events):
        events += await carriers[-1](url).read_on(events[0]["session_id"], events[-1]["seq"])
    assert checked(events).last["event"] == "done"


def is_over(events):
    return events[-1]["event"] in ("done", "error")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", SSE),
        ("*/*", SSE),
        ("text/event-stream", SSE),
        ("application/json", SSE),
        ("application/x-ndjson", NDJSON),
        ("Application/X-NDJSON; q=0.9, */*;q=0.1", NDJSON),
        ("application/x-ndjson, text/event-stream", NDJSON),
        ("text/event-stream, application/x-ndjson", SSE),
    ],
)
def test_who_accepts_lines_first_gets_lines(accept, form):
    assert format_of(accept) is form
