"""Bodies of anything to OpenAI's routes: no answer is a failure, and each has a status that the OpenAPI document tells."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agent.api import build_app
from device_agent.openai.requests import SHARED_KEYS, WITHOUT_EFFECT
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import VOCABULARY, agent_of, verifier
from tests.device_agent.openai.scene import talking
from tests.device_agent.test_hostile_requests import MESSAGES, VALUES

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
OWN_KEYS = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "prompt", "messages", "tokens")
OWN_KEYS += ("logprobs", "top_logprobs")
KEYS = st.sampled_from([*OWN_KEYS, *SHARED_KEYS, *WITHOUT_EFFECT, "user", ""])
GOOD = {"prompt": "the prompt", "messages": [{"role": "user", "content": "hello"}], "tokens": [1, 2], "max_tokens": 3}
TOKENS = st.lists(st.integers(-1, 2**70) | st.integers(0, VOCABULARY), max_size=4)
CHANGES = st.dictionaries(KEYS, VALUES | TOKENS | MESSAGES, max_size=2)
STREAMS = st.just({}) | st.just({"stream": True})
BODIES = st.tuples(CHANGES, STREAMS).map(lambda parts: json.dumps(GOOD | parts[1] | parts[0]).encode())


async def answer(app, path, body):
    """The status and the bytes of an answer to a client that stays until it has it."""
    pieces, sent = [{"type": "http.request", "body": body}], []

    async def receive():
        return pieces.pop() if pieces else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": b"", "root_path": "", "query_string": b""}
    more = {"headers": [(b"host", b"localhost")], "scheme": "http", "http_version": "1.1", "asgi": {"spec_version": "2.4"}}
    await app(scope | more, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def ids_of(text):
    return [ord(letter) % VOCABULARY for letter in text]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def app():
    pair = talking(encode=ids_of, chat=lambda messages: ids_of(" ".join(message["content"] for message in messages)))
    async with verifier() as made, agent_of(MemoryConnector(made), pair=pair) as agent:
        yield build_app(agent)


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.sampled_from(PATHS), BODIES | st.binary(max_size=20) | VALUES.map(lambda value: json.dumps(value).encode()))
@example("/v1/completions", b'{"prompt": [1' + b"0" * 5_000 + b"]}")
@example("/detokenize", b"[" * 90_000)
@example("/v1/completions", b'{"prompt": ["a", 1]}')
@example("/v1/completions", b'{"prompt": "a", "stream": true, "stream_options": 3}')
async def test_whatever_the_body_the_answer_is_one_that_the_document_tells(app, shouts_heard, path, body):
    status, data = await answer(app, path, body)
    assert str(status) in app.openapi()["paths"][path]["post"]["responses"]
    assert status in (200, 400, 404)
    if status != 200:
        assert set(json.loads(data)["error"]) == {"message", "type", "param", "code"}
    assert shouts_heard == []


@pytest.fixture(scope="module")
def shouts_heard():
    """What was logged at ERROR."""
    shouts = logging.Handler(logging.ERROR)
    records = []
    shouts.emit = records.append
    logging.getLogger().addHandler(shouts)
    yield records
    logging.getLogger().removeHandler(shouts)
