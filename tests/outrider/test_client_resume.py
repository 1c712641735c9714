"""The client behind a way that breaks: a real agent, and between the two a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from device_agent.server import serve
from outrider.client import Client, DoneEvent, asynchronous
from speculation.errors import InvalidRequestError, LinkError, SessionNotFoundError
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import (
    PROMPT,
    DraftEngine,
    FullEngine,
    SlowEngine,
    agent_of,
    config,
    decode,
    plain_decoding,
    verifier,
)
from tests.support.cutting import cutting

OPTIONS = {"max_tokens": 12, "seed": 3}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(asynchronous, "RECONNECT_S", 0.0)


@contextlib.asynccontextmanager
async def breaking(**changes):
    """A client, and the proxy that stands between it and an agent."""
    async with verifier(SlowEngine(0.001)) as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), DraftEngine(0.6, step_s=0.0005), **changes)
        async with (
            serve(config(**changes), agent=agent) as running,
            cutting(running.port) as (url, proxy),
            Client(url) as client,
        ):
            yield client, proxy


async def all_of(events):
    return [event async for event in events]


@pytest.mark.parametrize("piece", [150, 400, 401, 402, 403, 1000, 2000])
async def test_an_answer_that_is_cut_all_the_time_arrives_whole_and_once(piece):
    """A piece may hold no whole event, or only headers; the one after it holds the largest event there is."""
    async with breaking() as (client, proxy):
        proxy.limits = [1000, *[piece, 4000] * 40]
        events = await all_of(client.stream(PROMPT, max_tokens=60, seed=3))
        assert proxy.num_cut >= 3
        proxy.limits = []
        assert events == await all_of(client.resume(events[0].session_id))
        assert [event.seq for event in events] == list(range(len(events)))
        assert events[-1].text == decode(plain_decoding(FullEngine(), 60))


async def test_an_answer_is_read_on_from_any_event():
    async with breaking() as (client, _):
        events = await all_of(client.stream(PROMPT, **OPTIONS))
        for event in events:
            assert await all_of(client.resume(events[0].session_id, event.seq)) == events[event.seq + 1 :]


async def test_an_answer_is_paused_goes_on_with_the_same_text_and_once_over_nothing_changes():
    async with breaking() as (client, _):
        states, events = [], []
        async for event in client.stream(PROMPT, max_tokens=40, seed=3):
            events.append(event)
            if len(events) == 3:
                session_id = events[0].session_id
                states = [await client.pause(session_id), await client.pause(session_id), await client.unpause(session_id)]
        assert states == ["paused", "paused", "running"]
        reasons = [event.reason for event in events if event.name == "state"]
        assert [reason for reason in reasons if reason != "link"] == ["paused", "resumed"]
        assert events[-1].text == decode(plain_decoding(FullEngine(), 40))
        assert [await verb(session_id) for verb in (client.pause, client.unpause, client.cancel)] == ["ended"] * 3
        for verb in (client.pause, client.unpause, client.cancel):
            with pytest.raises(SessionNotFoundError):
                await verb("nobody")


async def test_a_client_gives_up_when_no_connection_brings_anything():
    async with breaking() as (client, proxy):
        proxy.limits = [1000, *[1] * 100]
        with pytest.raises(LinkError, match="no answer from an agent"):
            await all_of(client.stream(PROMPT, **OPTIONS))
        assert proxy.num_cut == 1 + asynchronous.MAX_RECONNECTS


async def test_before_the_session_is_known_nothing_is_tried_again():
    """It might begin a second answer."""
    async with breaking() as (client, proxy):
        proxy.limits = [1] * 100
        with pytest.raises(LinkError):
            await all_of(client.stream(PROMPT, **OPTIONS))
        assert proxy.num_cut == 1


async def test_an_answer_that_is_not_kept_any_more_is_told_so():
    async with breaking(max_kept_streams=0) as (client, _):
        events = await all_of(client.stream(PROMPT, **OPTIONS))
        for session_id in (events[0].session_id, "nobody?"):
            with pytest.raises(SessionNotFoundError, match="is kept"):
                await all_of(client.resume(session_id))


async def test_a_place_that_is_none_is_refused():
    async with breaking() as (client, _):
        events = await all_of(client.stream(PROMPT, **OPTIONS))
        with pytest.raises(InvalidRequestError, match="from 0 to") as caught:
            await all_of(client.resume(events[0].session_id, 10_000))
        assert caught.value.parameter == "starting_after"


async def test_a_client_whose_answer_another_one_took_over_does_not_take_it_back():
    async with breaking() as (client, _):
        older = client.stream(PROMPT, mode="device", max_tokens=200)
        first = await anext(older)
        async with asyncio.TaskGroup() as tasks:
            taking_over = tasks.create_task(all_of(client.resume(first.session_id)))
            with pytest.raises(LinkError, match="does another client read it"):
                await all_of(older)
        assert isinstance(taking_over.result()[-1], DoneEvent)
