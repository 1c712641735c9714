"""Requests of anything to the agent: no answer is a failure, and each has a status that the OpenAPI document tells."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from urllib.parse import quote_from_bytes

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agent.api import build_app
from device_agent.request import KNOWN_KEYS, NEUTRAL
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import VOCABULARY, agent_of, facts, verifier

pytestmark = pytest.mark.asyncio(loop_scope="module")

READS_ALL = facts(encode=lambda text: [ord(letter) % VOCABULARY for letter in text])
NUMBERS = st.sampled_from([0, 1, -1, 3, 0.5, 1e308, -0.0, 2**31, 2**63, 2**64, 10**400]) | st.floats(0, 2)
TEXTS = st.sampled_from(["", "x", "all", "final", "device", "cloud", "\ud800", "é\u0000", "y" * 5_000]) | st.text(max_size=5)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | MESSAGES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([*KNOWN_KEYS, *NEUTRAL, "stream", ""])
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3) | st.dictionaries(KEYS, NUMBERS | TEXTS, max_size=2).map(
    lambda given: {"prompt": "the prompt", "max_tokens": 3} | given
)
BODIES = st.binary(max_size=30) | (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 90_000)
LATIN = st.binary(max_size=20)


class Scene:
    """An application, what its document says of statuses, and what was logged at ERROR."""

    def __init__(self, app, shouts):
        self.app, self.shouts, self.paths = app, shouts, app.openapi()["paths"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene():
    shouts = logging.Handler(logging.ERROR)
    shouts.records = []
    shouts.emit = shouts.records.append
    logging.getLogger().addHandler(shouts)
    async with verifier() as made, agent_of(MemoryConnector(made), pair=READS_ALL) as agent:
        app = build_app(agent)
        scene = Scene(app, shouts.records)
        _, data = await answer(app, "POST", "/v1/stream", b'{"prompt": "the prompt", "max_tokens": 3}')
        scene.session_id = re.search(r'"session_id":"(\w+)"', data.decode())[1]
        yield scene
    logging.getLogger().removeHandler(shouts)


def query_of(value):
    """As it arrives: uvicorn refuses bytes that are not ASCII before the application hears of them."""
    return b"starting_after=" + quote_from_bytes(value).encode()


async def answer(app, method, path, body=b"", query=b"", headers=()):
    """The status and the bytes of an answer that is read to its end."""
    pieces, sent = [{"type": "http.request", "body": body}], []

    async def receive():
        return pieces.pop() if pieces else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": b"", "root_path": "", "query_string": query}
    headers = [(b"host", b"localhost"), *headers]
    await app(
        scope | {"headers": headers, "scheme": "http", "http_version": "1.1", "asgi": {"spec_version": "2.4"}}, receive, send
    )
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(BODIES)
@example(b'{"prompt": "x", "temperature": 1' + b"0" * 400 + b"}")
@example(b'{"prompt": "x", "seed": 1' + b"0" * 5_000 + b"}")
@example(b"[" * 90_000)
@example(b'{"\\ud800": 1}')
async def test_whatever_the_body_the_answer_is_an_answer_or_a_refusal_that_the_document_tells(scene, body):
    status, data = await answer(scene.app, "POST", "/v1/stream", body)
    assert str(status) in scene.paths["/v1/stream"]["post"]["responses"]
    if status != 200:
        assert json.loads(data)["error"]["type"] in ("invalid_request_error", "rate_limit_error")
    assert scene.shouts == []


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.just("") | st.text(max_size=12), LATIN, st.none() | LATIN)
@example("", b"0", "²".encode("latin-1"))
@example("", b"9" * 5_000, None)
async def test_whatever_is_to_be_read_on_the_answer_is_one_that_the_document_tells(scene, name, query, last_event_id):
    headers = () if last_event_id is None else ((b"last-event-id", last_event_id),)
    path = "/v1/stream/" + (name.replace("/", "") or scene.session_id)
    status, _ = await answer(scene.app, "GET", path, query=query_of(query), headers=headers)
    assert str(status) in scene.paths["/v1/stream/{session_id}"]["get"]["responses"]
    assert scene.shouts == []


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.sampled_from(["/health", "/metrics"]), LATIN, st.none() | LATIN)
async def test_whatever_a_caller_calls_itself_the_answer_is_one_that_the_document_tells(scene, path, host, origin):
    headers = [(b"host", host)] if origin is None else [(b"origin", origin)]
    status, _ = await answer(scene.app, "GET", path, headers=headers)
    assert str(status) in scene.paths[path]["get"]["responses"]
    assert scene.shouts == []


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(BODIES | st.dictionaries(st.sampled_from(["session_id", "starting_after", "x"]), VALUES).map(json.dumps), st.booleans())
@example('{"session_id": "\\ud800"}', True)
@example('{"session_id": "x", "\\ud800": 1}', True)
async def test_whatever_a_socket_says_first_it_gets_an_answer_or_one_refusal_and_is_closed(scene, said, is_text):
    data = said.encode() if isinstance(said, str) else said
    message = {"text": data.decode("utf-8", "replace")} if is_text else {"bytes": data}
    parts, sent = [{"type": "websocket.receive"} | message, {"type": "websocket.connect"}], []

    async def receive():
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")]
    await scene.app({"type": "websocket", "path": "/v1/stream", "query_string": b"", "headers": headers}, receive, send)
    kinds = [message["type"] for message in sent]
    assert kinds == ["websocket.accept", *["websocket.send"] * (len(sent) - 2), "websocket.close"]
    told = [json.loads(message["text"].encode()) for message in sent[1:-1]]
    assert sent[-1]["code"] == (1000 if told[0]["event"] == "session" else 1008)
    assert told[-1]["event"] == ("done" if told[0]["event"] == "session" else "error")
    assert scene.shouts == []
