"""The routes that pause, resume and cancel an answer, over real HTTP."""

from __future__ import annotations

import asyncio

import jsonschema
import pytest

from device_agent import schema
from tests.device_agent.doubles import DraftEngine, wait_until
from tests.device_agent.test_door import serving as serving_with_keys
from tests.device_agent.test_resume import begin, go_on, serving
from tests.support.keys import ALICE, BOB

TOLD = schema.control_operation("", "paused")["responses"]["200"]["content"]["application/json"]["schema"]


async def told(client, method, path):
    response = await client.request(method, f"/v1/stream/{path}")
    assert response.status_code == 200, response.text
    jsonschema.validate(response.json(), TOLD)
    return response.json()["state"]


async def test_an_answer_is_paused_and_goes_on_over_http_and_asking_twice_does_no_harm():
    async with serving(DraftEngine(0.6, step_s=0.02)) as (client, agent):
        events = await begin(client, 3, max_tokens=40)
        session = events[0]["session_id"]
        assert [await told(client, "POST", f"{session}/pause") for _ in range(2)] == ["paused"] * 2
        assert "outrider_agent_streams_paused 1.0" in (await client.get("/metrics")).text
        assert [await told(client, "POST", f"{session}/resume") for _ in range(2)] == ["running"] * 2
        rest = await go_on(client, session, events[-1]["seq"])
        assert [event["reason"] for event in rest if event["event"] == "state"][:2] == ["paused", "resumed"]
        assert rest[-1]["event"] == "done"
        assert [await told(client, "POST", f"{session}/{verb}") for verb in ("pause", "resume")] == ["ended"] * 2
        assert agent.num_streams == 0


async def test_an_answer_that_is_deleted_has_ended_and_its_events_are_still_there():
    async with serving(DraftEngine(0.6, step_s=0.02)) as (client, agent):
        session = (await begin(client, 3, max_tokens=40))[0]["session_id"]
        assert [await told(client, "DELETE", session) for _ in range(2)] == ["ended"] * 2
        assert agent.num_streams == 0
        assert (await go_on(client, session))[-1]["error"]["code"] == "link"


async def test_a_queued_answer_is_told_as_such_and_a_full_queue_says_when_to_come_again():
    changes = {"max_streams": 1, "max_queued_streams": 1, "retry_after_s": 1.5}
    async with serving(DraftEngine(0.6, step_s=0.02), **changes) as (client, _):
        await begin(client, 1, max_tokens=40)
        queued = (await begin(client, 2, max_tokens=40))[0]["session_id"]
        assert await told(client, "POST", f"{queued}/resume") == "queued"
        full = await client.post("/v1/stream", json={"prompt": "the prompt"})
        assert (full.status_code, full.headers["retry-after-ms"]) == (429, "1500")
        assert "1 wait, as many as may (max_queued_streams); one of them has to end" in full.json()["error"]["message"]
        await told(client, "DELETE", queued)


@pytest.mark.parametrize(("method", "path"), [("POST", "x/pause"), ("POST", "x/resume"), ("DELETE", "x")])
async def test_an_answer_that_is_not_kept_is_not_found(method, path):
    async with serving() as (client, _):
        response = await client.request(method, f"/v1/stream/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "session_not_found"


async def test_another_tenants_answer_is_not_found(tmp_path):
    async with serving_with_keys(tmp_path, draft=DraftEngine(step_s=0.02)) as (client, agent):
        alice, bob = await client(ALICE), await client(BOB)
        session = (await begin(alice, 1, mode="device"))[0]["session_id"]
        for method, path in (("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
            assert (await bob.request(method, f"/v1/stream/{session}{path}")).status_code == 404
        assert await told(alice, "DELETE", session) == "ended"
        await wait_until(lambda: agent.num_streams == 0)


async def test_an_answer_that_is_paused_and_whose_reader_is_gone_ends_like_any_other():
    async with serving(DraftEngine(0.6, step_s=0.02), resume_grace_s=0.1) as (client, agent):
        session = (await begin(client, 2, max_tokens=40))[0]["session_id"]
        await told(client, "POST", f"{session}/pause")
        async with asyncio.timeout(20):
            await wait_until(lambda: agent.num_streams == 0)
