"""Over real HTTP: a connection that is cut at any event, and the rest of the answer over another one."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
from httpx_sse import aconnect_sse

from device_agent.api import build_app
from device_agent.server import serve
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    agent_of,
    config,
    decode,
    feed,
    plain_decoding,
    verifier,
    wait_until,
)
from tests.device_agent.replay import Replay

BODY = {"prompt": "the prompt", "max_tokens": 12, "seed": 3}
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/stream",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
}


@contextlib.asynccontextmanager
async def serving(draft=None, **changes):
    async with verifier(SlowEngine(0.001)) as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), draft or DraftEngine(0.6, step_s=0.0005), **changes)
        async with serve(config(**changes), agent=agent) as running, _client(running.url) as client:
            yield client, agent


def _client(url):
    return httpx.AsyncClient(base_url=url, timeout=30)


async def begin(client, num_events, **changes):
    """The first events of an answer; then the connection is cut."""
    return await take(aconnect_sse(client, "POST", "/v1/stream", json=BODY | changes), num_events)


async def go_on(client, session_id, starting_after=None, num_events=10**9, headers=None):
    query = {} if starting_after is None else {"starting_after": starting_after}
    path = f"/v1/stream/{session_id}"
    return await take(aconnect_sse(client, "GET", path, params=query, headers=headers or {}), num_events)


async def take(connection, num_events):
    events = []
    async with connection as source:
        source.response.raise_for_status()
        if source.response.status_code == 204:
            return events
        async for message in source.aiter_sse():
            events.append(json.loads(message.data))
            assert (message.id, message.event) == (str(events[-1]["seq"]), events[-1]["event"])
            if len(events) == num_events:
                break
    return events


def follow(events):
    replay = Replay()
    for event in events:
        feed(replay, event)
    return replay


async def test_cut_at_any_event_the_rest_is_read_on_without_a_gap():
    expected = decode(plain_decoding(FullEngine(), 12))
    async with serving(max_kept_streams=1000) as (client, _):
        is_over, num_events = False, 0
        while not is_over:
            num_events += 1
            events = await begin(client, num_events)
            session_id, is_over = events[0]["session_id"], events[-1]["event"] == "done"
            events += await go_on(client, session_id, events[-1]["seq"])
            assert follow(events).text == expected
            assert events == await go_on(client, session_id)
        assert num_events > 12


async def test_an_answer_may_be_cut_again_and_again():
    async with serving() as (client, _):
        events = await begin(client, 1)
        while events[-1]["event"] != "done":
            header = {"Last-Event-ID": str(events[-1]["seq"])}
            events += await go_on(client, events[0]["session_id"], headers=header, num_events=2)
        assert follow(events).text == decode(plain_decoding(FullEngine(), 12))


async def test_the_header_goes_before_the_query_that_a_browser_repeats():
    async with serving() as (client, _):
        events = await begin(client, 10**9)
        rest = await go_on(client, events[0]["session_id"], 1, headers={"Last-Event-ID": "7"})
        assert rest == events[8:]


async def test_behind_the_last_event_a_browser_is_told_to_stop():
    async with serving() as (client, _):
        events = await begin(client, 10**9)
        response = await client.get(f"/v1/stream/{events[0]['session_id']}", params={"starting_after": events[-1]["seq"]})
        assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("name", ["starting_after", "Last-Event-ID"])
async def test_a_place_that_is_none_is_refused_with_those_that_are(name):
    given = ["-1", "1000", "9" * 18, "9" * 5000, "x", "", "1.0", "0x1"]
    async with serving() as (client, _):
        events = await begin(client, 10**9)
        for value in given if name == "Last-Event-ID" else [*given, "٣", "1 "]:
            where = {"headers": {name: value}} if name == "Last-Event-ID" else {"params": {name: value}}
            response = await client.get(f"/v1/stream/{events[0]['session_id']}", **where)
            assert response.status_code == 400, value
            error = response.json()["error"]
            assert (error["type"], error["param"]) == ("invalid_request_error", "starting_after")
            assert f"from 0 to {events[-1]['seq']}" in error["message"]


async def test_an_unknown_session_is_not_found():
    async with serving() as (client, _):
        response = await client.get("/v1/stream/0123456789abcdef", params={"starting_after": "-1"})
        assert response.status_code == 404
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("not_found_error", "session_not_found")


async def test_another_host_may_not_read_on():
    async with serving() as (client, _):
        events = await begin(client, 10**9)
        response = await client.get(f"/v1/stream/{events[0]['session_id']}", headers={"host": "evil.example"})
        assert response.status_code == 403


async def test_an_answer_that_ended_is_forgotten_after_the_window():
    async with serving(resume_window_s=0.05) as (client, _):
        events = await begin(client, 10**9)
        path = f"/v1/stream/{events[0]['session_id']}"
        while (response := await client.get(path)).status_code == 200:
            pass
        assert response.status_code == 404


async def test_the_newer_of_two_readers_takes_over_and_the_older_ends_in_order():
    """In order: with the end of the body, not with a broken connection, which would be an error here."""
    async with serving(DraftEngine(step_s=0.01)) as (client, _), asyncio.TaskGroup() as tasks:
        older, body = [], BODY | {"mode": "device", "max_tokens": 60}
        async with aconnect_sse(client, "POST", "/v1/stream", json=body) as source:
            async for message in source.aiter_sse():
                older.append(json.loads(message.data))
                if len(older) == 5:
                    taking_over = tasks.create_task(go_on(client, older[0]["session_id"]))
        newer = await taking_over
        assert follow(newer).last["event"] == "done"
        assert older == newer[: len(older)]
        assert 5 <= len(older) < len(newer)


async def test_a_client_that_does_not_come_back_frees_its_slot_after_the_grace():
    draft = DraftEngine(step_s=0.02)
    async with serving(draft, max_streams=1, resume_grace_s=0.1) as (client, agent):
        events = await begin(client, 3, max_tokens=200)
        response = await client.post("/v1/stream", json=BODY)
        assert response.status_code == 429
        await wait_until(lambda: agent.num_streams == 0)
        assert not draft.open_caches
        rest = await go_on(client, events[0]["session_id"], events[-1]["seq"])
        assert rest[-1]["error"]["code"] == "link"
        assert follow(events + rest).last["event"] == "error"


def test_a_client_that_never_reads_holds_no_more_than_the_bound():
    """Its connection takes nothing behind the first piece; the answer is broken off and its slot is free."""

    async def work():
        async with agent_of(None, DraftEngine(step_s=0.01), max_stream_events=64) as running, asyncio.TaskGroup() as tasks:
            app, never, sent = build_app(running), asyncio.Event(), []
            body = json.dumps(BODY | {"mode": "device", "max_tokens": 200}).encode()
            parts = [{"type": "http.request", "body": body}]

            async def receive():
                return parts.pop() if parts else await never.wait()

            async def send(message):
                sent.append(message)
                if len(sent) > 2:
                    await never.wait()

            calling = tasks.create_task(app(SCOPE, receive, send))
            await asyncio.sleep(30)
            assert (running.num_streams, len(sent)) == (0, 3)
            session_id = json.loads(sent[1]["body"].decode().partition("data: ")[2].partition("\n")[0])["session_id"]
            stream = app.state.kept.find(session_id)
            calling.cancel()
            return stream.after(stream.next_seq - 1)[0]

    last = virtual_time.run(work())
    assert last.error["code"] == "capacity"
    assert 64 <= last.seq < 200
