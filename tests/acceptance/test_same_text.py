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
from cloud_verifier.engine import FullModel, build_engine
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from speculation.engines.package import load_pair
from tests.acceptance.plain_loop import plain_texts

NUM_PROMPTS, NUM_TOKENS, AT_ONCE = 40, 128, 20
CONFIG = VerifierConfig(port=0, num_slots=AT_ONCE, max_sessions=AT_ONCE)
GREEDY, SAMPLED = {}, {"temperature": 0.8, "top_p": 0.95, "top_k": 200}
DRAFTS = {
    "fp32": {"variant": "fp32"},
    "q4": {"variant": "q4"},
    "random": {"variant": "random"},
    "lookup": {"variant": "lookup"},
    "q4 and lookup": {"variant": "q4", "draft_lookup": 0.2},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def parameters_of(seed: int, sampled: bool) -> dict[str, float]:
    return {**SAMPLED, "seed": seed} if sampled else GREEDY


@cache
def both_plain_texts() -> list[list[int]]:
    """Greedy texts of all prompts, then sampled ones; side by side, for what they take is to read the weights."""
    pair = load_pair()
    prompts = [pair.full.tokenizer.encode(prompt["text"]).ids for prompt in pair.prompts[:NUM_PROMPTS]]
    parameters = [parameters_of(seed, sampled) for sampled in (False, True) for seed in range(NUM_PROMPTS)]
    # Small matrices: more BLAS threads than one only wait for each other.
    with threadpool_limits(1):
        return plain_texts(pair.full.path, prompts * 2, NUM_TOKENS, pair.full.end_token_ids, parameters)


def plain(sampled: bool) -> list[list[int]]:
    return both_plain_texts()[NUM_PROMPTS:] if sampled else both_plain_texts()[:NUM_PROMPTS]


@cache
def full_model() -> FullModel:
    """Loaded and self-tested once; every verifier starts with its caches free, as the one before gave them back."""
    return build_engine(CONFIG)


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

    async with cloud_verifier.server.serve(CONFIG, full_model=full_model()) as verifier:
        config = AgentConfig(verifier=verifier.target, max_streams=AT_ONCE, **DRAFTS[draft])
        async with build_agent(config) as agent, asyncio.timeout(300):
            return await asyncio.gather(*(one(agent, seed, prompt) for seed, prompt in enumerate(prompts)))


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
async def test_the_cloud_alone_equals_a_plain_loop(sampled):
    assert await collaborative_texts("q4", Mode.CLOUD, sampled) == plain(sampled)


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("draft", DRAFTS)
async def test_collaborative_text_equals_a_plain_loop_with_any_draft(draft, sampled):
    assert await collaborative_texts(draft, Mode.COLLABORATE, sampled) == plain(sampled)
