"""What services write about themselves holds no prompt, no answer and no key; over real HTTP and gRPC."""

from __future__ import annotations

import contextlib
import io
import json
import logging

import httpx
import pytest

import cloud_verifier.server
from cloud_verifier.engine import FullModel
from device_agent.server import serve
from speculation.engines.self_test import SelfTest
from speculation.links.grpc import GrpcConnector
from speculation.telemetry.logs import JsonFormatter
from speculation.tenants import bearer
from tests.cloud_verifier.doubles import settings
from tests.device_agent.doubles import IDENTITY, FullEngine, agent_of, config
from tests.device_agent.test_door import events_of
from tests.support.keys import ALICE, BOB, WRONG, key_file

MARKER = "Xyzzy plugh"
"""A prompt that occurs nowhere by itself."""


@pytest.fixture
def log():
    """Everything that anybody logs, as lines of JSON."""
    handler, root = logging.StreamHandler(io.StringIO()), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.stream
    root.setLevel(level)
    root.removeHandler(handler)


@contextlib.asynccontextmanager
async def services(folder):
    """An agent with keys, a verifier with keys behind it, and a function that makes a client of the agent."""
    keys = key_file(folder)
    full = FullModel(FullEngine(), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
    async with contextlib.AsyncExitStack() as stack:
        verifier = await stack.enter_async_context(cloud_verifier.server.serve(settings(keys=keys), full_model=full))
        agent = agent_of(GrpcConnector(verifier.target, key=ALICE), keys=keys)
        running = await stack.enter_async_context(serve(config(keys=keys), agent=agent))

        async def client(key):
            headers = {"authorization": bearer(key)}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=running.url, headers=headers, timeout=30))

        yield client


async def test_no_log_at_any_level_holds_a_prompt_an_answer_or_a_key(log, tmp_path):
    async with services(tmp_path) as client:
        alice, wrong = await client(ALICE), await client(WRONG)
        last = (await events_of(alice, prompt=MARKER, stop=["never this"]))[-1]
        await alice.post("/v1/stream", json={"prompt": MARKER, "max_tokens": -1})
        await wrong.post("/v1/stream", json={"prompt": MARKER})
    text = log.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    answered = next(line for line in lines if line["message"] == "an answer ended")
    served = next(line for line in lines if line["message"] == "a session ended")
    assert (answered["tenant"], answered["status"], answered["tokens"]) == ("alice", "length", 12)
    assert (served["tenant"], served["status"], served["final_tokens"]) == ("alice", "OK", 12)
    assert answered["session_id"] == served["session_id"]
    assert min(answered["duration_s"], served["duration_s"]) > 0
    secrets = (MARKER, last["text"], str(list(last["token_ids"]))[1:-1], "never this", ALICE, BOB, WRONG)
    assert [secret for secret in secrets if secret in text] == []
