"""The first promise: collaborative text is the full model's, token for token, whatever drafts.

The real pair over real gRPC; forty held-out prompts, greedy and sampled, against the cloud alone and against a plain loop that
shares no code with the product. The verifier batches the sessions, twenty at a time.
"""

import asyncio
from functools import cache

import pytest
from threadpoolctl import threadpool_limits

import cloud_verifier.server
from cloud_verifier.config import VerifierConfig
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from speculation.engines.package import load_pair
from tests.acceptance.plain_loop import plain_text

NUM_PROMPTS, NUM_TOKENS, AT_ONCE = 40, 128, 20
GREEDY, SAMPLED = {}, {"temperature": 0.8, "top_p": 0.95, "top_k": 200}
DRAFTS = {
    "fp32": {"variant": "fp32"},
    "q4": {"variant": "q4"},
    "random": {"variant": "random"},
    "lookup": {"variant": "lookup"},
    "q4 and lookup": {"variant": "q4", "draft_lookup": 0.2},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@cache
def plain_texts(sampled: bool) -> list[list[int]]:
    pair = load_pair()
    texts = []
    # One row times a small matrix: more BLAS threads than one only wait for each other.
    with threadpool_limits(1):
        for seed, prompt in enumerate(pair.prompts[:NUM_PROMPTS]):
            token_ids = pair.full.tokenizer.encode(prompt["text"]).ids
            parameters = {**SAMPLED, "seed": seed} if sampled else GREEDY
            texts.append(plain_text(pair.full.path, token_ids, NUM_TOKENS, pair.full.end_token_ids, **parameters))
    return texts


async def collaborative_texts(draft: str, mode: Mode, sampled: bool) -> list[list[int]]:
    """Prompt and answer of every prompt, through a real verifier; every answer verified to its end."""
    prompts = [prompt["text"] for prompt in load_pair().prompts[:NUM_PROMPTS]]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(agent, seed: int, prompt: str) -> list[int]:
        parameters = SAMPLED if sampled else GREEDY
        request = StreamRequest(prompt, max_tokens=NUM_TOKENS, seed=seed, mode=mode, **parameters)
        async with gate:
            done = [event async for event in agent.stream(request)][-1]
        assert isinstance(done, DoneEvent), done
        assert done.verified_count == len(done.token_ids)
        return [*done.prompt_token_ids, *done.token_ids]

    async with cloud_verifier.server.serve(VerifierConfig(port=0, num_slots=AT_ONCE, max_sessions=AT_ONCE)) as verifier:
        config = AgentConfig(verifier=verifier.target, max_streams=AT_ONCE, **DRAFTS[draft])
        async with build_agent(config) as agent, asyncio.timeout(300):
            return await asyncio.gather(*(one(agent, seed, prompt) for seed, prompt in enumerate(prompts)))


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
async def test_the_cloud_alone_equals_a_plain_loop(sampled):
    assert await collaborative_texts("q4", Mode.CLOUD, sampled) == plain_texts(sampled)


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("draft", DRAFTS)
async def test_collaborative_text_equals_a_plain_loop_with_any_draft(draft, sampled):
    assert await collaborative_texts(draft, Mode.COLLABORATE, sampled) == plain_texts(sampled)
