"""A WebSocket at the agent's stream: what is refused and with which code, cancelling, going away, and who may open one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from device_agent import sockets
from device_agent.api import build_app
from device_agent.server import serve
from device_agent.subprotocols import SUBPROTOCOL, key_among, key_name
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.tenants import bearer
from tests.device_agent.doubles import DraftEngine, agent_of, config, verifier, wait_until
from tests.support.keys import ALICE, BOB, WRONG, key_file
from tests.support.transports import Socket, Sse, checked, converse, socket_of

BODY = {"prompt": "the prompt", "max_tokens": 12, "seed": 3, "mode": "device"}
LONG = BODY | {"max_tokens": 200}
CANCEL = {"type": "cancel"}
DONE, REFUSED, TOO_LONG, FAILED, RESTARTING, LATER = 1000, 1008, 1009, 1011, 1012, 1013


@contextlib.asynccontextmanager
async def serving(draft=None, connector=None, **changes):
    agent = agent_of(connector, draft, **changes)
    async with asyncio.timeout(60), serve(config(**changes), agent=agent) as running:
        yield running.url, agent


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url():
    async with verifier() as made, serving(connector=MemoryConnector(made)) as (url, _):
        yield url


@pytest.mark.asyncio(loop_scope="module")
async def test_behind_the_last_event_the_socket_is_closed_in_order(url):
    events, closed = await converse(url, [BODY])
    assert checked(events).last["event"] == "done"
    assert closed == (DONE, "")
    assert await converse(url, [{"session_id": events[0]["session_id"]}]) == (events, (DONE, ""))
    seq = {"starting_after": events[-1]["seq"]}
    assert await converse(url, [{"session_id": events[0]["session_id"]} | seq]) == ([], (DONE, ""))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("said", "parameter", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_request"),
        ({"prompt": "a", "colour": "red"}, "colour", "unknown_name"),
        ({"prompt": "a", "max_tokens": 256}, "max_tokens", "invalid_request"),
        ([], None, "invalid_request"),
        ("", None, "invalid_request"),
        (b"\xff", None, "invalid_request"),
        ("[" * 90_000, None, "invalid_request"),
        (CANCEL, "type", "unknown_name"),
        ({"session_id": "0" * 32}, None, "session_not_found"),
        ({"session_id": ["x"]}, "session_id", "invalid_request"),
        ({"session_id": "x", "prompt": "y"}, "prompt", "invalid_request"),
        ('{"session_id": ', None, "invalid_request"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_refusal_is_an_error_event_alone_and_a_code(url, said, parameter, code):
    (event,), closed = await converse(url, [said])
    checked([event])
    assert (event["error"]["param"], event["error"]["code"]) == (parameter, code)
    assert closed == (REFUSED, "")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_place_that_is_none_is_refused_with_those_that_are(url):
    events, _ = await converse(url, [BODY])
    session_id = events[0]["session_id"]
    for seq in (-1, 1000, True, 1.0, [1], "x", "", "٣", "9" * 5000, 10**17):
        (event,), closed = await converse(url, [{"session_id": session_id, "starting_after": seq}])
        assert event["error"]["param"] == "starting_after", seq
        assert f"from 0 to {events[-1]['seq']}" in event["error"]["message"]
        assert closed == (REFUSED, "")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_message_over_the_limit_closes_the_socket_and_no_other(url):
    async with socket_of(url) as other:
        assert await converse(url, [" " * 1_000_000]) == (
            [],
            (TOO_LONG, "frame with 1000000 bytes exceeds limit of 409600 bytes"),
        )
        await other.send(json.dumps(BODY))
        assert json.loads(await other.recv())["event"] == "session"


async def in_process(parts, **changes):
    """What the application itself sends to a socket that says this and then nothing more, whatever server it runs in."""
    async with agent_of(None, **changes) as agent:
        sent, never, parts = [], asyncio.Event(), [{"type": "websocket.connect"}, *parts]

        async def receive():
            return parts.pop(0) if parts else await never.wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "websocket", "path": "/v1/stream", "query_string": b"", "headers": [(b"host", b"localhost")]}
        await build_app(agent)(scope, receive, send)
        assert agent.num_streams == 0
        return sent


async def test_the_limit_holds_in_any_server():
    sent = await in_process([{"type": "websocket.receive", "text": " " * 500_000}])
    assert [(message["type"], message.get("code")) for message in sent[1:]] == [("websocket.close", TOO_LONG)]


def test_a_socket_that_asks_nothing_is_closed_after_a_while():
    sent = virtual_time.run(in_process([]))
    assert "no request came within 10 s" in sent[1]["text"]
    assert sent[2]["code"] == REFUSED


async def test_what_nobody_thought_of_is_told_as_internal_and_logged(monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(sockets, "begin_kept", fail)
    sent = await in_process([{"type": "websocket.receive", "text": "{}"}])
    assert json.loads(sent[1]["text"])["error"]["message"] == "internal error"
    assert sent[2]["code"] == FAILED
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


async def test_a_word_cancels_the_answer_whose_last_event_still_comes():
    draft = DraftEngine(step_s=0.02)
    async with serving(draft) as (url, agent), socket_of(url) as socket:
        await socket.send(json.dumps(LONG))
        events = [json.loads(await socket.recv()) for _ in range(3)]
        await socket.send(json.dumps(CANCEL))
        events += [json.loads(message) async for message in socket]
        assert checked(events).last["error"]["code"] == "link"
        assert (socket.close_code, agent.num_streams, draft.open_caches) == (DONE, 0, set())


async def test_a_second_request_ends_the_socket_and_the_answer_can_be_read_on():
    async with serving(DraftEngine(step_s=0.003)) as (url, _):
        for second in (json.dumps(BODY), "{", '{"type": "cancel", "now": true}'):
            events, closed = await converse(url, [BODY | {"max_tokens": 40}, second])
            assert closed == (REFUSED, 'one request a socket; behind it {"type": "cancel"} alone')
            events += await Socket(url).read_on(events[0]["session_id"], events[-1]["seq"])
            assert checked(events).last["event"] == "done"


async def test_without_a_grace_a_client_that_goes_away_cancels_the_answer():
    draft = DraftEngine(step_s=0.02)
    async with serving(draft, resume_grace_s=0) as (url, agent):
        for code in (None, 1000, 1001):
            async with socket_of(url) as socket:
                await socket.send(json.dumps(LONG))
                named = {"session_id": json.loads(await socket.recv())["session_id"]}
                if code is None:
                    socket.transport.abort()
                else:
                    await socket.close(code)
                await wait_until(lambda: agent.num_streams == 0)
                assert not draft.open_caches
            events, _ = await converse(url, [named])
            assert checked(events).last["error"]["code"] == "link"


async def test_who_reads_on_elsewhere_ends_the_socket_in_order():
    async with serving(DraftEngine(step_s=0.005)) as (url, _), socket_of(url) as socket:
        await socket.send(json.dumps(BODY | {"max_tokens": 60}))
        older = [json.loads(await socket.recv())]
        async with asyncio.TaskGroup() as tasks:
            taking_over = tasks.create_task(Sse(url).read_on(older[0]["session_id"]))
            older += [json.loads(message) async for message in socket]
        newer = taking_over.result()
        assert socket.close_code == DONE
        assert older == newer[: len(older)]
        assert checked(newer).last["event"] == "done"
        assert len(older) < len(newer)


def test_a_reader_that_takes_nothing_holds_no_more_than_the_bound():
    """Its socket takes two events; the answer is broken off and its slot is free."""

    async def work():
        async with agent_of(None, DraftEngine(step_s=0.01), max_stream_events=64) as running, asyncio.TaskGroup() as tasks:
            app, never, sent = build_app(running), asyncio.Event(), []
            parts = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(LONG)}]

            async def receive():
                return parts.pop(0) if parts else await never.wait()

            async def send(message):
                sent.append(message)
                if len(sent) > 3:
                    await never.wait()

            scope = {"type": "websocket", "path": "/v1/stream", "query_string": b"", "headers": [(b"host", b"localhost")]}
            calling = tasks.create_task(app(scope, receive, send))
            await asyncio.sleep(30)
            assert (running.num_streams, len(sent)) == (0, 4)
            stream = app.state.kept.find(json.loads(sent[1]["text"])["session_id"])
            calling.cancel()
            return stream.after(stream.next_seq - 1)[0]

    last = virtual_time.run(work())
    assert last.error["code"] == "capacity"
    assert 64 <= last.seq < 200


async def test_where_there_is_no_room_the_code_and_the_reason_say_when_to_come_again():
    changes = {"max_streams": 1, "retry_after_s": 1.5, "resume_grace_s": 0}
    async with serving(DraftEngine(step_s=0.05), **changes) as (url, _), socket_of(url) as socket:
        await socket.send(json.dumps(LONG))
        await socket.recv()
        (event,), closed = await converse(url, [BODY])
        assert (event["error"]["type"], closed) == ("rate_limit_error", (LATER, "retry-after-ms: 1500"))


async def test_an_agent_that_stops_lets_answers_finish_and_cuts_who_asked_nothing():
    agent = agent_of(None, DraftEngine(step_s=0.02))
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as open_sockets:
        async with serve(config(drain_grace_s=30.0), agent=agent) as running:
            busy, idle = [await open_sockets.enter_async_context(socket_of(running.url)) for _ in range(2)]
            await busy.send(json.dumps(BODY))
            events = [json.loads(await busy.recv())]
        events += [json.loads(message) async for message in busy]
        assert checked(events).last["event"] == "done"
        with pytest.raises(ConnectionClosedError):
            await idle.recv()
        assert (busy.close_code, idle.close_code) == (DONE, RESTARTING)


async def status_of(url, **options):
    """What a socket is refused with, None where it is opened."""
    try:
        async with socket_of(url, **options):
            return None
    except InvalidStatus as error:
        response = error.response
    assert set(json.loads(response.body)["error"]) == {"message", "type", "param", "code"}
    return response.status_code


async def test_pages_of_elsewhere_may_not_open_a_socket_on_loopback():
    mine = [None, "http://localhost:3000", "https://phone.home"]
    others = [
        "https://evil.example",
        "null",
        "",
        "http://[",
        "http://127.0.0.1.evil.example",
        "https://phone.home.evil.example",
    ]
    async with serving(allowed_hosts=("phone.home",)) as (url, _):
        for origin in mine + others:
            headers = {} if origin is None else {"origin": origin}
            assert await status_of(url, additional_headers=headers) == (None if origin in mine else 403), origin


async def test_at_an_address_that_others_reach_a_page_needs_to_be_the_agents_own_or_allowed():
    async with serving(host="0.0.0.0", insecure=True, allowed_hosts=("app.example",)) as (url, _):
        host = url.replace("0.0.0.0", "127.0.0.1").removeprefix("http://")
        mine = [None, f"http://{host}", f"HTTPS://{host}", "https://app.example:8443"]
        others = [f"http://{host}1", "http://localhost", "https://app.example.evil.example", "null", "", "http://["]
        for origin in mine + others:
            headers = {} if origin is None else {"origin": origin}
            assert await status_of("http://" + host, additional_headers=headers) == (None if origin in mine else 403), origin


KNOWN, UNKNOWN = {"authorization": bearer(ALICE)}, {"authorization": bearer(WRONG)}
WAYS_IN = [
    ({}, 401),
    ({"additional_headers": KNOWN}, None),
    ({"additional_headers": UNKNOWN}, 401),
    ({"subprotocols": [SUBPROTOCOL, key_name(ALICE)]}, None),
    ({"subprotocols": [SUBPROTOCOL, key_name(WRONG)]}, 401),
    ({"subprotocols": [SUBPROTOCOL, "key." + ALICE]}, 401),
    ({"subprotocols": [SUBPROTOCOL, "key."]}, 401),
    ({"subprotocols": [SUBPROTOCOL]}, 401),
    ({"subprotocols": [SUBPROTOCOL, key_name(ALICE)], "additional_headers": UNKNOWN}, 401),
]


async def test_a_key_comes_in_the_header_or_where_a_page_has_none_among_the_subprotocols(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    async with serving(keys=key_file(tmp_path)) as (url, agent):
        for options, status in WAYS_IN:
            assert await status_of(url, **options) == status, options
        counted = [sample for metric in agent.metrics.registry.collect() for sample in metric.samples]
        refused = {each.labels["status"]: each.value for each in counted if each.name == "outrider_agent_refusals_total"}
        assert refused == {"401": sum(status == 401 for _, status in WAYS_IN)}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    for secret in (ALICE, WRONG):
        assert secret not in caplog.text
        assert key_name(secret) not in caplog.text


async def test_the_key_is_not_sent_back_and_an_answer_is_its_own_tenants(tmp_path):
    async with serving(keys=key_file(tmp_path)) as (url, _):
        alice, bob = ([SUBPROTOCOL, key_name(key)] for key in (ALICE, BOB))
        async with socket_of(url, subprotocols=alice) as socket:
            assert socket.subprotocol == SUBPROTOCOL
            assert key_name(ALICE) not in str(socket.response.headers)
        events, _ = await converse(url, [BODY], subprotocols=alice)
        assert checked(events).last["event"] == "done"
        named = {"session_id": events[0]["session_id"]}
        (refused,), closed = await converse(url, [named], subprotocols=bob)
        assert (refused["error"]["code"], closed[0]) == ("session_not_found", REFUSED)
        assert (await converse(url, [named], subprotocols=alice))[0] == events


async def test_limits_of_a_tenant_hold_on_sockets(tmp_path):
    async with serving(DraftEngine(step_s=0.02), keys=key_file(tmp_path, max_sessions=1)) as (url, _):
        alice, bob = ([SUBPROTOCOL, key_name(key)] for key in (ALICE, BOB))
        async with socket_of(url, subprotocols=alice) as socket:
            await socket.send(json.dumps(LONG))
            session_id = json.loads(await socket.recv())["session_id"]
            (event,), closed = await converse(url, [BODY], subprotocols=alice)
            assert ("sessions of this tenant" in event["error"]["message"], closed[0]) == (True, LATER)
            assert (await converse(url, [BODY | {"max_tokens": 1}], subprotocols=bob))[1] == (DONE, "")
            assert (await converse(url, [{"session_id": session_id}], limit=1, subprotocols=alice))[0][0]["event"] == "session"


@pytest.mark.parametrize("key", [ALICE, "a/key+with=signs,and;more", "~" * 16])
def test_any_key_fits_a_subprotocol(key):
    name = key_name(key)
    assert all(letter.isalnum() or letter in ".-_" for letter in name)
    assert key_among([SUBPROTOCOL, name]) == bearer(key)
    assert key_among([SUBPROTOCOL]) is None
