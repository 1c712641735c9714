"""The client without a loop: the same events and errors, from a thread that has none."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from device_agent.server import serve
from outrider.client import DoneEvent, SyncClient, asynchronous
from speculation.errors import InvalidRequestError, LinkError, SessionNotFoundError
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import PROMPT, DraftEngine, SlowEngine, agent_of, config, verifier, wait_until
from tests.support.cutting import cutting


@contextlib.asynccontextmanager
async def serving(draft=None, **changes):
    async with verifier(SlowEngine(0.001)) as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), draft or DraftEngine(0.6), **changes)
        async with serve(config(**changes), agent=agent) as running:
            yield running, agent


async def test_an_answer_is_followed_over_a_way_that_breaks_and_read_on(monkeypatch):
    monkeypatch.setattr(asynchronous, "RECONNECT_S", 0.0)

    def work(url):
        with SyncClient(url) as client:
            assert client.health()["status"] == "ok"
            events = list(client.stream(PROMPT, max_tokens=40, seed=3))
            session_id = events[0].session_id
            assert list(client.resume(session_id)) == events
            assert list(client.resume(session_id, 3)) == events[4:]
            return events

    async with serving() as (running, _), cutting(running.port) as (url, proxy):
        proxy.limits = [4000, 1000, *[400, 4000] * 20]
        events = await asyncio.to_thread(work, url)
        assert proxy.num_cut >= 2
    assert isinstance(events[-1], DoneEvent)
    assert [event.seq for event in events] == list(range(len(events)))


async def test_a_whole_answer_is_the_last_event_of_its_stream():
    def work(url):
        with SyncClient(url) as client:
            done = client.generate(PROMPT, max_tokens=9, seed=3)
            assert done.token_ids == list(client.stream(PROMPT, max_tokens=9, seed=3))[-1].token_ids
            return len(done.token_ids)

    async with serving() as (running, _):
        assert await asyncio.to_thread(work, running.url) == 9


async def test_an_answer_is_paused_goes_on_and_is_cancelled():
    def work(url):
        with SyncClient(url) as client, contextlib.closing(client.stream(PROMPT, mode="device", max_tokens=200)) as events:
            session_id = next(events).session_id
            found = [client.pause(session_id), client.unpause(session_id), client.cancel(session_id)]
            with pytest.raises(LinkError, match="stopped the stream"):
                list(events)
            with pytest.raises(SessionNotFoundError):
                client.pause("nobody")
            return found

    async with serving(DraftEngine(step_s=0.02)) as (running, agent):
        assert await asyncio.to_thread(work, running.url) == ["paused", "running", "ended"]
        assert agent.num_streams == 0


async def test_leaving_early_closes_the_connection_though_nothing_else_is_asked():
    is_gone = threading.Event()

    def work(url):
        with SyncClient(url) as client:
            with contextlib.closing(client.stream(PROMPT, mode="device", max_tokens=200)) as events:
                session_id = next(events).session_id
            assert is_gone.wait(30)
            with pytest.raises(LinkError, match="stopped the stream"):
                list(client.resume(session_id))

    async with serving(DraftEngine(step_s=0.02), resume_grace_s=0) as (running, agent), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(asyncio.to_thread(work, running.url))
        await wait_until(lambda: agent.num_streams == 1)
        await wait_until(lambda: agent.num_streams == 0)
        is_gone.set()
        await reading


async def test_a_client_may_be_closed_before_its_answers_and_nothing_is_said_of_it(caplog):
    def work(url):
        with SyncClient(url) as client:
            answers = [client.stream(PROMPT, mode="device", max_tokens=200) for _ in range(2)]
            for events in answers:
                next(events)
        for events in answers:
            events.close()

    async with serving(DraftEngine(step_s=0.02), resume_grace_s=0) as (running, agent):
        await asyncio.to_thread(work, running.url)
        await wait_until(lambda: agent.num_streams == 0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_errors_are_those_of_the_tree():
    def work(url):
        with SyncClient(url) as client:
            with pytest.raises(InvalidRequestError, match="max_tokens"):
                next(client.stream(PROMPT, max_tokens=0))
            with pytest.raises(SessionNotFoundError):
                next(client.resume("nobody"))

    async with serving() as (running, _):
        await asyncio.to_thread(work, running.url)


async def test_where_a_loop_runs_it_says_so():
    client = SyncClient()
    with pytest.raises(RuntimeError, match="running event loop"):
        client.health()
    await asyncio.to_thread(client.close)
