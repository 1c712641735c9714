"""Keys at the agent, over real HTTP: every route is closed, limits hold, and an answer is read on by its own tenant alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import httpx
import pytest
from httpx_sse import aconnect_sse

from device_agent import beginning, page
from device_agent.api import build_app
from device_agent.door import OPEN_PATHS, READING
from device_agent.events import CommitEvent, CommitOffset, CorrectEvent, DoneEvent, ErrorEvent
from device_agent.server import serve
from device_agent.use import Use
from speculation.errors import AuthenticationError, CapacityError, ConfigurationError
from speculation.links.memory import MemoryConnector
from speculation.tenants import Account, Limits, Tenant, bearer
from tests.device_agent.doubles import DraftEngine, WatchedConnector, agent_of, answer, config, verifier, wait_until
from tests.support.keys import ALICE, BOB, WRONG, key_file

BODY = {"prompt": "the prompt", "max_tokens": 12, "seed": 3}


@contextlib.asynccontextmanager
async def serving(folder, connector=None, draft=None, changes=None, **limits):
    """An agent with keys, and a function that makes a client with one."""
    given = {"keys": key_file(folder, **limits)} | (changes or {})
    agent = agent_of(connector, draft, **given)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(60))
        running = await stack.enter_async_context(serve(config(**given), agent=agent))

        async def client(key):
            headers = {} if key is None else {"authorization": bearer(key)}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=running.url, headers=headers, timeout=30))

        yield client, agent


async def events_of(client, method="POST", path="/v1/stream", limit=10**9, **changes):
    events = []
    body = {"json": BODY | changes} if method == "POST" else {}
    async with aconnect_sse(client, method, path, **body) as source:
        source.response.raise_for_status()
        async for message in source.aiter_sse():
            events.append(json.loads(message.data))
            if len(events) == limit:
                break
    return events


async def test_with_a_key_an_answer_is_written(tmp_path):
    async with verifier() as made, serving(tmp_path, MemoryConnector(made)) as (client, _):
        assert (await events_of(await client(ALICE)))[-1]["event"] == "done"


@pytest.mark.parametrize(("key", "said"), [(None, "wants a key"), (WRONG, "does not know the key"), (ALICE[:-1], "not know")])
async def test_none_or_a_wrong_key_is_401_with_an_error_object(key, said, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        async with serving(tmp_path) as (client, agent):
            response = await (await client(key)).post("/v1/stream", json=BODY)
            assert agent.num_streams == 0
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["type"], error["code"], set(error)) == (
        "authentication_error",
        "authentication",
        {"message", "type", "param", "code"},
    )
    assert said in error["message"]
    for secret in (ALICE, BOB, WRONG):
        assert secret not in response.text + caplog.text


async def status_without_a_key(app, method, path):
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")]
    await app({"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}, receive, send)
    return sent[0]["status"]


async def test_every_route_but_health_and_the_pages_files_is_closed_those_that_are_added_later_too(tmp_path):
    async with agent_of(None, keys=key_file(tmp_path)) as agent:
        app = build_app(agent)
        app.add_api_route("/added/later", lambda: "secret", methods=["GET"])
        app.mount("/static", lambda *_: None)
        walked = {(route.path, method) for route in app.routes for method in getattr(route, "methods", None) or {"GET"}}
        assert {path for path, _ in walked} >= {"/health", "/v1/stream", "/openapi.json", "/added/later", "/static"}
        walked |= {
            (path, method) for path in ("/", "/nowhere", "/health/", "//health", "/v1/health") for method in ("GET", "PUT")
        }
        for path, method in sorted(walked):
            if path not in OPEN_PATHS and (path not in page.PATHS or method not in READING):
                assert await status_without_a_key(app, method, path.replace("{session_id}", "x")) == 401, (method, path)
        assert frozenset({"/health"}) == OPEN_PATHS
        assert await status_without_a_key(app, "GET", "/health") == 200


async def test_a_socket_is_closed_too(tmp_path):
    sent = []

    async def send(message):
        sent.append(message)

    async with agent_of(None, keys=key_file(tmp_path)) as agent:
        app = build_app(agent)
        await app({"type": "websocket", "path": "/v1/stream", "headers": [(b"host", b"localhost")]}, None, send)
    assert sent[0]["status"] == 401


async def test_an_answer_is_read_on_by_its_own_tenant_alone(tmp_path):
    async with verifier() as made, serving(tmp_path, MemoryConnector(made)) as (client, _):
        alice, bob = await client(ALICE), await client(BOB)
        begun = await events_of(alice, limit=1)
        path = f"/v1/stream/{begun[0]['session_id']}"
        refused, unknown = await bob.get(path), await bob.get("/v1/stream/" + "0" * 32)
        assert refused.status_code == unknown.status_code == 404
        words = [one.json()["error"]["message"].replace(begun[0]["session_id"], "0" * 32) for one in (refused, unknown)]
        assert words[0] == words[1]
        assert (await events_of(alice, "GET", path))[-1]["event"] == "done"


async def test_over_max_sessions_a_tenant_is_told_when_to_come_again_and_others_are_served(tmp_path):
    draft = DraftEngine(step_s=0.05)
    changes = {"retry_after_s": 1.5, "resume_grace_s": 0}
    async with serving(tmp_path, None, draft, changes, max_sessions=1) as (client, agent):
        alice, bob = await client(ALICE), await client(BOB)
        async with aconnect_sse(alice, "POST", "/v1/stream", json=BODY | {"mode": "device"}) as source:
            assert source.response.status_code == 200
            response = await alice.post("/v1/stream", json=BODY)
            assert (response.status_code, response.headers["retry-after"]) == (429, "2")
            assert response.json()["error"]["type"] == "rate_limit_error"
            assert "sessions of this tenant" in response.json()["error"]["message"]
            assert (await events_of(bob, mode="device", max_tokens=1))[-1]["event"] == "done"
        await wait_until(lambda: agent.num_streams == 0)
        for _ in range(10):  # who has read the last event may start the next at once
            assert (await events_of(alice, mode="device", max_tokens=1))[-1]["event"] == "done"


async def test_refused_requests_hold_no_place(tmp_path):
    async with serving(tmp_path, max_sessions=1) as (client, _):
        alice = await client(ALICE)
        for content in (b"{", b" " * 1_000_000, b'{"prompt": ""}'):
            assert (await alice.post("/v1/stream", content=content)).status_code in (400, 413)
        assert (await events_of(alice, mode="device", max_tokens=1))[-1]["event"] == "done"


@pytest.mark.parametrize("limit", ["tokens_per_s", "bytes_per_s"])
async def test_over_a_rate_the_next_answer_is_refused_with_the_time_to_wait(limit, tmp_path):
    async with serving(tmp_path, **{limit: 0.1, "burst_s": 1}) as (client, _):
        alice, bob = await client(ALICE), await client(BOB)
        assert (await events_of(alice, mode="device"))[-1]["event"] == "done"
        response = await alice.post("/v1/stream", json=BODY)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 100
        assert limit.removesuffix("_per_s") in response.json()["error"]["message"]
        assert (await events_of(bob, mode="device"))[-1]["event"] == "done"


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/completions", "/tokenize", "/v1/tasks"])
async def test_a_body_that_never_becomes_whole_is_refused_and_holds_no_session_for_ever(path, tmp_path, monkeypatch):
    monkeypatch.setattr(beginning, "BODY_S", 0.2)
    async with serving(tmp_path, max_sessions=1) as (client, _):
        alice = await client(ALICE)
        reader, writer = await asyncio.open_connection("127.0.0.1", alice.base_url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer(ALICE)}\r\nContent-Length: 99\r\n\r\n"
        writer.write(head.encode() + b'{"prompt": ')
        answered = (await reader.readuntil(b"}}")).decode()
        writer.close()
        assert answered.startswith("HTTP/1.1 400 ")
        assert "the body was not whole within 0.2 s: 11 bytes of it came" in answered
        assert (await alice.post("/v1/stream", json=BODY | {"mode": "device"})).status_code == 200


def test_tokens_are_paid_for_once_as_they_become_final():
    account = Account(Tenant("a", Limits(tokens_per_s=1, burst_s=1)))
    use = Use(account, lambda: 100.0, 1.0)

    def owed():
        return account.tokens.ready_s - 99  # the burst is a token

    use.wrote([CommitEvent(1, 3, 1, CommitOffset(1, 1)), CorrectEvent(2, 4, (7, 8), "x", CommitOffset(3, 3))])
    assert owed() == 3
    use.wrote([CommitEvent(3, 6, 1, CommitOffset(4, 4))])
    assert (owed(), account.num_sessions) == (4, 1)
    use.wrote([DoneEvent(4, "length", (1,), (5, 7, 8, 9, 2, 2), "text", 4, {}, {})])
    assert (owed(), account.num_sessions) == (6, 0)
    use.end()
    use.wrote([ErrorEvent(5, {})])
    assert account.num_sessions == 0


def test_a_use_that_was_refused_holds_no_place():
    account = Account(Tenant("a", Limits(max_sessions=1)))
    Use(account, lambda: 0.0, 1.0)
    with pytest.raises(CapacityError):
        Use(account, lambda: 0.0, 1.0)
    assert account.num_sessions == 1


async def test_a_verifier_that_does_not_know_the_agent_ends_the_answer_by_name():
    async with agent_of(WatchedConnector(failure=AuthenticationError("this verifier wants a key"))) as agent:
        for mode in ("collaborate", "cloud"):
            replay = await answer(agent, mode=mode)
            assert replay.last["error"]["code"] == "authentication"
            assert "this verifier wants a key" in replay.last["error"]["message"]


def test_an_agents_own_key_comes_from_a_setting_or_a_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(ALICE + "\n")
    assert config().own_key() is None
    assert config(verifier_key=ALICE).own_key() == ALICE
    assert config(verifier_key_file=path).own_key() == ALICE
    assert ALICE not in repr(config(verifier_key=ALICE))
    with pytest.raises(ConfigurationError, match="verifier_key and verifier_key_file"):
        config(verifier_key=ALICE, verifier_key_file=path)
    with pytest.raises(ConfigurationError, match=r"nowhere cannot be read"):
        config(verifier_key_file=tmp_path / "nowhere")
    for wrong in ("two sesames", 5, "ß"):
        with pytest.raises(ConfigurationError, match=r"^verifier_key: a key is one word of plain characters$"):
            config(verifier_key=wrong)
