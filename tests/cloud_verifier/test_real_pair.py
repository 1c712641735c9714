"""The bundled pair behind real gRPC: the text is that of plain decoding, whatever is drafted."""

import asyncio

import pytest

from cloud_verifier.engine import build_engine
from cloud_verifier.server import serve
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from speculation.errors import InvalidRequestError, UnknownNameError
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from tests.cloud_verifier.doubles import ScriptedDevice, plain_decoding, settings
from tests.cloud_verifier.sessions import device
from tests.support.likelihoods import likelihoods

LIMIT_S = 60
MAX_TOKENS = 32
GREEDY = SamplingParameters()


@pytest.fixture(scope="module")
def pair():
    return load_pair()


@pytest.fixture(scope="module")
def full_model():
    return build_engine(settings())


@pytest.mark.parametrize("max_rows", [24, 256])
async def test_concurrent_sessions_give_the_text_of_plain_decoding(pair, full_model, max_rows):
    sampled = SamplingParameters(temperature=0.8, top_p=0.95, seed=5)
    prompts = [pair.full.tokenizer.encode(prompt["text"]).ids for prompt in pair.prompts[:4]]
    cases = [(prompt, sampled if n % 2 else SamplingParameters()) for n, prompt in enumerate(prompts)]
    alone = OnnxEngine(pair.full, num_slots=1)
    ends = pair.full.end_token_ids
    truths = [plain_decoding(alone, prompt, parameters, MAX_TOKENS, ends) for prompt, parameters in cases]
    async with asyncio.timeout(LIMIT_S), serve(settings(max_rows=max_rows), full_model=full_model) as running:
        connector = GrpcConnector(running.target)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for n, (prompt, parameters) in enumerate(cases):
                drafting = device(n, truths[n], prompt, parameters, 0.3 * n, MAX_TOKENS, ends, pair.identity)
                tasks.append(group.create_task(drafting.run(connector)))
        await connector.aclose()
    assert [task.result() for task in tasks] == truths


def test_the_bundled_full_model_is_exact(full_model):
    assert full_model.self_test.is_exact, full_model.self_test.details


def test_a_cloud_that_does_not_exist_is_refused_and_the_known_ones_listed():
    with pytest.raises(UnknownNameError, match="mi300x"):
        build_engine(settings(cloud="basement"))


def test_a_model_that_means_nothing_is_refused():
    with pytest.raises(InvalidRequestError, match="70B:fp16"):
        build_engine(settings(cloud="mi300x", emulate="big"))


async def test_log_probabilities_are_those_of_the_model_alone_one_token_at_a_time(pair, full_model):
    """Two sessions at once, right and wrong drafts, another count each: equal to a log-softmax by other means, bit for bit."""
    alone = OnnxEngine(pair.full, num_slots=1)
    cases = [(GREEDY, 0, 0.9), (SamplingParameters(temperature=0.8, top_p=0.95, seed=5), 5, 0.5)]
    prompts = [pair.full.tokenizer.encode(prompt["text"]).ids[:40] for prompt in pair.prompts[:2]]
    truths = [plain_decoding(alone, prompt, case[0], 12) for prompt, case in zip(prompts, cases, strict=True)]
    async with asyncio.timeout(LIMIT_S), serve(settings(), full_model=full_model) as running:
        connector = GrpcConnector(running.target)
        devices = []
        for n, (prompt, truth, (parameters, count, accuracy)) in enumerate(zip(prompts, truths, cases, strict=True)):
            session = DeviceSession(f"told-{n}", pair.identity, prompt, parameters, 12, logprobs=count)
            devices.append(ScriptedDevice(session, [*truth, *[0] * 12], accuracy, n))
        assert await asyncio.gather(*(one.run(connector) for one in devices)) == truths
        await connector.aclose()
    for one, prompt, truth, case in zip(devices, prompts, truths, cases, strict=True):
        assert one.told == likelihoods(alone, truth, len(prompt), case[1])
