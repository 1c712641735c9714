"""What services write about themselves holds no prompt, no answer and no key; over real HTTP and gRPC."""

from __future__ import annotations

import io
import json
import logging

import pytest

from speculation.telemetry.logs import JsonFormatter
from tests.device_agent.test_door import events_of
from tests.support.keys import ALICE, BOB, WRONG
from tests.support.services import MARKER, services


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
