"""What is labelled ``device_only`` does not leave the device: judged at a real socket, in front of a real verifier."""

from __future__ import annotations

import json
import logging

import httpx
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from tests.device_agent.doubles import feed
from tests.device_agent.replay import Replay
from tests.support.recording_relay import recorded

SECRET = "Parrot sketch diary"
ASKED = {"max_tokens": 12, "seed": 3}
PRIVATE = [
    {"prompt": SECRET, "mode": "auto", "privacy": "device_only"},
    {"prompt": SECRET, "mode": "device", "privacy": "device_only"},
    {
        "messages": [{"role": "user", "content": SECRET, "privacy": "device_only"}, {"role": "user", "content": "Go on"}],
        "mode": "auto",
        "deadline_ms": 60000,
        "reveal": "stable",
    },
]
OPEN = {"prompt": "The module provides", "mode": "auto"}


async def ask(client, body):
    replay = Replay()
    async with aconnect_sse(client, "POST", "/v1/stream", json=body | ASKED) as source:
        source.response.raise_for_status()
        async for message in source.aiter_sse():
            feed(replay, json.loads(message.data))
    return replay.last


async def ask_over_a_socket(url, body):
    async with connect(url.replace("http", "ws") + "/v1/stream") as socket:
        await socket.send(json.dumps(body | ASKED))
        return [json.loads(message) async for message in socket][-1]


async def all_private(agent, client):
    for body in PRIVATE:
        done = await ask(client, body)
        assert (done["event"], done["verified_count"]) == ("done", 0)
    assert (await ask_over_a_socket(agent.url, PRIVATE[0]))["verified_count"] == 0
    refused = await client.post("/v1/stream", json=PRIVATE[0] | {"mode": "collaborate"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mode")
    for route, body in OPENAI.items():
        refused = await client.post(route, json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reveal")
        assert "POST /v1/stream" in refused.json()["error"]["message"]


LABELLED = {"role": "user", "content": SECRET, "privacy": "device_only"}
PART = {"type": "text", "text": SECRET, "privacy": "device_only"}
OPENAI = {
    "/v1/completions": {"prompt": SECRET, "privacy": "device_only", "mode": "auto"},
    "/v1/chat/completions": {"messages": [LABELLED]},
    "/v1/chat/completions?": {"messages": [{"role": "user", "content": [PART]}], "stream": True},
}


async def test_nothing_of_it_reaches_the_wire_the_log_or_the_figures(caplog):
    caplog.set_level(logging.DEBUG)
    async with cloud_verifier.server.serve(VerifierConfig(port=0)) as verifier, recorded(verifier.target) as (target, wire):
        config = AgentConfig(port=0, verifier=target)
        async with device_agent.server.serve(config) as agent, httpx.AsyncClient(base_url=agent.url, timeout=60) as client:
            await all_private(agent, client)
            assert wire.sent == [], "a connection was made"
            opened = await ask(client, OPEN)
            assert opened["verified_count"] == len(opened["token_ids"]), "the control went to the verifier"
            num_before = wire.num_messages
            assert num_before > 0
            await all_private(agent, client)
            assert wire.num_messages == num_before, "something was sent on the warm connection"
            figures = (await client.get("/metrics")).text
    told = "\n".join([figures, *(record.getMessage() + str(vars(record)) for record in caplog.records if ours(record))])
    for word in SECRET.split():
        assert word not in told


def ours(record):
    """What the tests' own client logs of its requests and bodies is not the agent's."""
    return record.name.split(".")[0] not in ("httpx", "httpcore", "websockets")
