"""The bundled pair, a real verifier over gRPC, a real agent over HTTP."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from httpx_sse import aconnect_sse

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from speculation.engines.package import load_pair
from speculation.errors import UnknownNameError
from tests.device_agent.doubles import feed
from tests.device_agent.replay import Replay

NUM_TOKENS = 32


def test_an_unknown_draft_is_answered_with_all_that_exist():
    with pytest.raises(UnknownNameError, match="'q9'; known: fp32, lookup, q4, random"):
        build_agent(AgentConfig(variant="q9"))


def client_of(agent):
    return httpx.AsyncClient(base_url=agent.url, timeout=60)


async def ask(client, **body):
    replay = Replay()
    async with aconnect_sse(client, "POST", "/v1/stream", json=body) as source:
        source.response.raise_for_status()
        async for message in source.aiter_sse():
            feed(replay, json.loads(message.data))
    return replay.last


async def test_collaboration_writes_what_the_cloud_alone_writes():
    async with asyncio.timeout(110), cloud_verifier.server.serve(VerifierConfig(port=0)) as verifier:
        for variant in ("q4", "random"):
            config = AgentConfig(port=0, verifier=verifier.target, variant=variant)
            async with device_agent.server.serve(config) as agent, client_of(agent) as client:
                await compare(client)


async def compare(client):
    pair = load_pair()
    for temperature in (0.0, 0.8):
        body = {"prompt": pair.prompts[0]["text"], "max_tokens": NUM_TOKENS, "temperature": temperature, "seed": 1}
        together = await ask(client, mode="collaborate", **body)
        alone = await ask(client, mode="cloud", **body)
        assert together["token_ids"] == alone["token_ids"]
        assert together["verified_count"] == len(together["token_ids"])
        assert together["text"] == pair.full.tokenizer.decode(together["token_ids"])
        assert {figure["basis"] for figure in together["figures"].values()} == {"measured"}


async def test_an_agent_without_its_verifier_goes_on_as_an_emulated_phone():
    config = AgentConfig(port=0, verifier="127.0.0.1:9", connect_timeout_s=1.0, phone="dimensity-9300", network="lte")
    async with asyncio.timeout(60), device_agent.server.serve(config) as agent, client_of(agent) as client:
        done = await ask(client, prompt="The module provides", max_tokens=16, seed=1)
        refused = await ask(client, prompt="The module provides", mode="cloud")
    assert done["verified_count"] == 0
    assert len(done["token_ids"]) == 16
    assert {figure["basis"] for figure in done["figures"].values()} == {"emulated"}
    assert refused["error"]["code"] == "link"
