"""Over real HTTP: a client that follows a stream, one that sends nonsense, one that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import httpx
import jsonschema
import pytest
from httpx_sse import aconnect_sse

from device_agent import api, schema
from device_agent.request import StreamRequest
from device_agent.server import serve
from speculation.engines.runner import EngineRunner
from speculation.errors import LinkError
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Cancel
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent_of,
    config,
    decode,
    feed,
    plain_decoding,
    verifier,
    wait_until,
)
from tests.device_agent.replay import Replay

BODY = {"prompt": "the prompt", "max_tokens": 30, "seed": 3}


@contextlib.asynccontextmanager
async def serving(connector=None, draft=None, **changes):
    """A client of an agent that serves on a free port."""
    agent = agent_of(connector, draft, **changes)
    async with asyncio.timeout(60), serve(config(**changes), agent=agent) as running, _client(running.url) as client:
        yield client, agent


def _client(url):
    return httpx.AsyncClient(base_url=url, timeout=30)


@pytest.fixture
async def client():
    async with verifier() as made, serving(MemoryConnector(made)) as (client, _):
        yield client


async def follow(client, **changes):
    replay, ids = Replay(), []
    async with aconnect_sse(client, "POST", "/v1/stream", json=BODY | changes) as source:
        source.response.raise_for_status()
        async for message in source.aiter_sse():
            event = json.loads(message.data)
            assert message.event == event["event"]
            ids.append(int(message.id))
            feed(replay, event)
    assert ids == list(range(len(ids)))
    return replay


async def test_a_stream_is_followed_to_the_full_models_text(client):
    replay = await follow(client)
    assert replay.names[0] == "session"
    assert replay.last["text"] == replay.text == decode(plain_decoding(FullEngine(), 30))


async def test_a_seed_that_was_drawn_is_told_and_gives_the_same_text_again(client):
    first = [e async for e in _events(client, {"prompt": "x", "temperature": 1.0})]
    seed = first[0]["seed"]
    again = [e async for e in _events(client, {"prompt": "x", "temperature": 1.0, "seed": seed})]
    assert first[-1]["text"] == again[-1]["text"]
    assert 0 <= seed < 2**53


async def _events(client, body):
    async with aconnect_sse(client, "POST", "/v1/stream", json=body) as source:
        async for message in source.aiter_sse():
            yield json.loads(message.data)


async def test_several_streams_run_at_once(client):
    texts = await asyncio.gather(*(follow(client, mode=mode) for mode in ("collaborate", "cloud", "collaborate")))
    assert len({replay.text for replay in texts}) == 1


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b'{"prompt": ""}', "prompt"),
        (b'{"prompt": "a", "max_tokens": 0}', "max_tokens"),
        (b'{"prompt": "a", "max_tokens": -3}', "max_tokens"),
        (b'{"prompt": "a", "max_tokens": 256}', "max_tokens"),
        (json.dumps({"prompt": "a" * 300}).encode(), "prompt"),
        (json.dumps({"prompt": "a" * 70_000}).encode(), "prompt"),
        (b'{"prompt": "a", "mode": "both"}', "mode"),
        (b'{"prompt": "a", "colour": "red"}', "colour"),
        (b'{"prompt": "a", "logit_bias": {"1": 2}}', "logit_bias"),
        (b'{"prompt": "a", "temperature": NaN}', None),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "\xff"}', None),
        (b'{"prompt": "a"', None),
        (b"", None),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b'{"seed": ' + b"9" * 10_000 + b"}", None),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_bad_input_is_refused_as_an_openai_error(client, body, parameter):
    response = await client.post("/v1/stream", content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == parameter
    assert error["message"]


async def test_a_body_over_the_limit_is_not_read(client):
    response = await client.post("/v1/stream", content=b" " * 1_000_000)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["code"] == "body_too_large"


async def test_a_client_that_goes_away_before_its_body_is_no_fault_of_the_agent(caplog):
    scope = {"type": "http", "method": "POST", "path": "/v1/stream", "query_string": b"", "headers": [(b"host", b"localhost")]}
    parts = [{"type": "http.request", "body": b'{"pro', "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return parts.pop(0)

    async def send(_message):
        return

    async with agent_of(None) as agent:
        await api.build_app(agent)(scope, receive, send)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "words"),
    [
        ("GET", "/nothing", 404, "not_found_error", "there is no route /nothing; http://"),
        ("GET", "/v1/stream/a%2Fb", 404, "not_found_error", "there is no route /v1/stream/a/b; http://"),
        ("GET", "/" + 500 * "x", 404, "not_found_error", f"there is no route /{199 * 'x'}; http://"),
        ("GET", "/v1/stream", 405, "invalid_request_error", "/v1/stream does not take GET; http://"),
    ],
)
async def test_what_does_not_exist_is_an_error_object_too(client, method, path, status, kind, words):
    response = await client.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind
    assert error["message"].startswith(words)
    assert "/docs tells " in error["message"]


async def test_health_tells_what_works(client):
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["draft"] == "draft"
    assert response.json()["defaults"]["temperature"] == 0
    assert response.json()["defaults"]["max_tokens"] == 128


async def test_health_can_be_asked_without_its_body(client):
    response = await client.head("/health")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"host": "phone.home"}, 200),
    ],
)
async def test_only_this_machine_and_allowed_names_may_talk_to_loopback(headers, status):
    async with serving(allowed_hosts=("phone.home",)) as (client, _):
        response = await client.get("/health", headers=headers)
        assert response.status_code == status
        refused = await client.post("/v1/stream", json={}, headers=headers)
        assert refused.status_code == (400 if status == 200 else 403)


async def test_beyond_max_streams_a_request_is_told_when_to_come_again():
    draft = DraftEngine(step_s=0.05)
    async with serving(None, draft, max_streams=1, retry_after_s=1.5, resume_grace_s=0) as (client, agent):
        async with aconnect_sse(client, "POST", "/v1/stream", json=BODY | {"mode": "device"}) as source:
            assert source.response.status_code == 200
            response = await client.post("/v1/stream", json=BODY)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "2"
            assert response.headers["retry-after-ms"] == "1500"
            assert response.json()["error"]["type"] == "rate_limit_error"
        await wait_until(lambda: agent.num_streams == 0)
        assert (await follow(client, mode="device", max_tokens=2)).last["event"] == "done"


async def test_without_a_grace_a_client_that_disconnects_cancels_the_session_and_frees_the_cache():
    draft = DraftEngine(step_s=0.02)
    async with verifier(SlowEngine(0.02)) as made:
        connector = WatchedConnector(MemoryConnector(made))
        async with serving(connector, draft, resume_grace_s=0) as (client, agent):
            body = BODY | {"max_tokens": 200}
            async with aconnect_sse(client, "POST", "/v1/stream", json=body) as source:
                async for message in source.aiter_sse():
                    if message.event in ("correct", "commit"):
                        break
            await wait_until(lambda: agent.num_streams == 0)
            assert not draft.open_caches
            assert made.num_sessions == 0
        assert isinstance(connector.links[0].sent[-1][1], Cancel)


async def test_without_a_verifier_mode_cloud_ends_with_an_error_event():
    async with serving(WatchedConnector(failure=LinkError("nobody answers"))) as (client, _):
        replay = await follow(client, mode="cloud")
        assert replay.last["error"]["code"] == "link"
        assert (await follow(client)).last["verified_count"] == 0


async def test_an_agent_that_has_no_verifier_refuses_mode_cloud():
    async with serving() as (client, _):
        response = await client.post("/v1/stream", json=BODY | {"mode": "cloud"})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "mode")


async def test_a_stream_that_runs_when_the_agent_stops_ends_with_an_error_event():
    draft = DraftEngine(step_s=0.05)
    agent = agent_of(None, draft)
    events = []

    async def read(client, started):
        async with aconnect_sse(client, "POST", "/v1/stream", json=BODY | {"mode": "device"}) as source:
            async for message in source.aiter_sse():
                events.append(json.loads(message.data))
                started.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with serve(config(), agent=agent) as running:
            started = asyncio.Event()
            client = _client(running.url)
            reading = tasks.create_task(read(client, started))
            await started.wait()
        await reading
        await client.aclose()
    assert events[-1]["error"]["code"] == "link"
    assert not draft.open_caches


async def test_an_answer_may_finish_while_the_agent_stops():
    agent = agent_of(None, DraftEngine(step_s=0.01))
    async with asyncio.timeout(30), agent:
        stream = await agent.start(StreamRequest(**BODY, mode="device"))
        await agent.drain(30.0)
        assert (await stream.take())[-1].name == "done"
        with pytest.raises(LinkError, match="shutting down"):
            await agent.start(StreamRequest(**BODY))


async def test_silence_is_filled_with_comments(monkeypatch):
    monkeypatch.setattr(api, "KEEP_ALIVE_S", 0.01)
    async with serving(None, DraftEngine(token_s=0.05)) as (client, _):
        response = await client.post("/v1/stream", json=BODY | {"mode": "device", "max_tokens": 2})
        assert ": keep-alive\n\n" in response.text
        assert response.text.rstrip().splitlines()[-2] == "event: done"


async def test_silence_between_lines_is_filled_with_empty_ones(monkeypatch):
    monkeypatch.setattr(api, "KEEP_ALIVE_S", 0.01)
    async with serving(None, DraftEngine(token_s=0.05)) as (client, _):
        body = BODY | {"mode": "device", "max_tokens": 2}
        response = await client.post("/v1/stream", json=body, headers={"accept": "application/x-ndjson"})
        lines = response.text.splitlines()
        assert "" in lines
        assert json.loads([line for line in lines if json.loads(line or "{}")][-1])["event"] == "done"


async def test_the_openapi_document_describes_the_route(client):
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/stream"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(schema.request_schema()["properties"])
    events = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
    jsonschema.Draft202012Validator.check_schema(events)
    assert operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"] == events
    resumption = document["paths"]["/v1/stream/{session_id}"]["get"]
    assert {parameter["name"] for parameter in resumption["parameters"]} == {"session_id", "starting_after", "Last-Event-ID"}
    assert set(resumption["responses"]) == {"200", "204", "400", "401", "403", "404"}


async def test_models_are_computed_off_the_loop():
    """While the draft's thread is held, the loop still answers."""
    gate = threading.Event()

    class Held(DraftEngine):
        def extend(self, chunks):
            assert gate.wait(30)
            return super().extend(chunks)

    agent = agent_of(None)
    agent._runner = EngineRunner.on_own_thread(Held(), "held")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(30))
        running = await stack.enter_async_context(serve(config(), agent=agent))
        client = await stack.enter_async_context(_client(running.url))
        sent = aconnect_sse(client, "POST", "/v1/stream", json=BODY | {"mode": "device"})
        messages = (await stack.enter_async_context(sent)).aiter_sse()
        assert (await anext(messages)).event == "session"
        assert (await client.get("/health")).status_code == 200
        gate.set()
        assert [message.event async for message in messages][-1] == "done"
