"""A full model that a server of another kind runs, behind real gRPC and HTTP: the text is the cloud's alone, token for token.

The server is a stand-in that speaks vLLM's and SGLang's routes over an engine of ours.
"""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.request import Mode
from outrider.client import Client, DoneEvent
from speculation.engines.pairs import load_model
from speculation.engines.remote_routes import ROUTES
from speculation.errors import EngineError
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.tiny import tiny_package
from tests.support.both_ways import PROMPT, both_ways
from tests.support.served_model import NAME, ServedModel, serving

NUM_TOKENS, LIMIT_S = 40, 60
TEMPERATURES = (0.0, 0.8, 3.0)
"""At the last one tokens that the server does not return would often be chosen, were one of them in a row."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The full model, what only describes it, and a draft."""
    path = tmp_path_factory.mktemp("folders")
    export_folder(path / "full", seed=2, graphs={"model.onnx": {"attention": "gqa"}})
    shutil.copytree(path / "full", path / "described", ignore=shutil.ignore_patterns("onnx"))
    tiny_package(path / "draft", seed=1, variants=("fp32",), num_hidden_layers=1)
    return path


@pytest.fixture(scope="module")
def running(folders):
    full = load_model(folders / "full")
    served = ServedModel(full.engine("fp32", 4, 1), full.context_length + 1)
    with serving(served) as url:
        yield served, url


@pytest.fixture
def served(running):
    served, _ = running
    served.max_logprobs, served.meddle = 20, None
    return served


@asynccontextmanager
async def client_of(folders, full, **settings):
    """A client of an agent, behind it a verifier with these settings."""
    models = {"draft": folders / "draft", "full": folders / full}
    verifier = VerifierConfig(port=0, **models, **settings)
    async with asyncio.timeout(LIMIT_S), cloud_verifier.server.serve(verifier) as running:
        config = AgentConfig(port=0, verifier=running.target, **models)
        async with device_agent.server.serve(config) as agent, Client(agent.url) as client:
            yield client


async def answers(client, **parameters):
    """The tokens together and by the cloud alone, to two requests at a time."""
    sides = await both_ways(client, max_tokens=NUM_TOKENS, **parameters)
    assert all(isinstance(event, DoneEvent) for side in sides for event in side), sides
    return tuple([event.token_ids for event in side] for side in sides)


@pytest.fixture(scope="module")
def own(folders):
    """What the full model writes where the verifier runs it itself, by temperature and top_k."""

    async def written():
        async with client_of(folders, "full") as client:
            asked = [(temperature, top_k) for temperature in TEMPERATURES for top_k in (0, 20)]
            return {(t, k): (await answers(client, temperature=t, top_k=k))[1] for t, k in asked}

    return asyncio.run(written())


@pytest.mark.parametrize("num_logprobs", [20, -1])
@pytest.mark.parametrize("route", ROUTES)
async def test_collaborative_text_is_that_of_the_cloud_alone(folders, served, running, own, route, num_logprobs):
    """And that of the same model without a server between, with as many tokens as the server returns."""
    served.max_logprobs = 272
    remote = {"full_url": running[1], "full_route": route, "full_logprobs": num_logprobs}
    async with client_of(folders, "described", **remote) as client:
        found = await asyncio.gather(*(answers(client, temperature=temperature) for temperature in TEMPERATURES))
    for temperature, (together, alone) in zip(TEMPERATURES, found, strict=True):
        assert together == alone
        assert alone == own[temperature, max(0, num_logprobs)]


async def test_a_server_that_fails_ends_the_streams_by_name_and_the_verifier_goes_on(folders, served, running):
    async with client_of(folders, "described", full_url=running[1], full_model=NAME) as client:
        served.meddle = lambda path, answer: {"error": "out of memory"}
        for mode in (Mode.COLLABORATE, Mode.CLOUD):
            with pytest.raises(EngineError, match="in another form than its route has"):
                _ = [event async for event in client.stream(PROMPT, max_tokens=8, mode=mode.value)]
        served.meddle = None
        together, alone = await answers(client)
        assert together == alone


async def test_speculation_inside_the_cloud_writes_the_same_text(folders, served, running, own):
    async with client_of(folders, "described", full_url=running[1], draft_length=3) as client:
        assert await answers(client) == (own[0.0, 20], own[0.0, 20])
