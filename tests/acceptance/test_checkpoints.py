"""Checkpoints without a graph, run by transformers, behind real gRPC and HTTP: collaborative text is the cloud's alone."""

import asyncio
import json

import pytest

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from outrider import cli
from outrider.client import Client
from outrider.local import Models
from speculation.engines.describing import describe
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.tiny import TINY, tiny_package, tiny_tokenizer, tiny_weights
from tests.support.both_ways import PROMPT, both_ways, both_ways_of, check_same_text

LIMIT_S = 100
GREEDY, SAMPLED = {}, {"temperature": 0.8, "top_p": 0.95}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One full model as a checkpoint and as a package, and drafts: another checkpoint, an export, and the full model."""
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed; pip install 'outrider[transformers]'")
    import numpy as np
    from safetensors.numpy import save

    path = tmp_path_factory.mktemp("folders")
    for name, seed, layers in (("full", 2, 2), ("draft", 1, 1)):
        config = {**TINY, "num_hidden_layers": layers, "eos_token_id": 0}
        weights = {n: np.ascontiguousarray(w.astype(np.float32)) for n, w in tiny_weights(config, seed).items()}
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps(config))
        (path / name / "tokenizer.json").write_bytes(tiny_tokenizer())
        (path / name / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    tiny_package(path / "package", seed=2, variants=("fp32", "q4"))
    export_folder(path / "export", seed=1, num_hidden_layers=1)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("parameters", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("draft", "full", "variants"),
    [
        ("draft", "full", (None, None)),
        ("full", "full", ("transformers", "transformers")),
        ("export", "full", (None, None)),
        ("draft", "package", (None, "fp32")),
        ("package", "package", ("q4", "transformers")),
        ("package", "full", ("transformers", None)),
        ("draft", "full", (None, "torch")),
        ("package", "package", ("torch", "torch")),
    ],
    ids=[
        *("both", "one model", "export drafts", "verified by a graph", "a package's weights", "a package's weights draft"),
        *("shared passes", "a package's weights in shared passes"),
    ],
)
async def test_collaborative_text_is_that_of_the_cloud_alone(folders, draft, full, variants, parameters):
    together, alone = await both_ways_of(Models(folders / draft, folders / full, *variants), LIMIT_S, **parameters)
    check_same_text(together, alone)
    for collaborative, cloud in zip(together, alone, strict=True):
        assert collaborative.text == cloud.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
async def test_a_draft_that_is_the_full_model_is_never_corrected(folders):
    for done in (await both_ways_of(Models(folders / "full", folders / "full"), LIMIT_S))[0]:
        assert done.usage["accepted"] > 0
        assert done.usage["corrections"] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_command_runs_checkpoints(folders, capsys):
    names = ["--draft", str(folders / "draft"), "--full", str(folders / "full"), "--variant", "transformers"]
    arguments = ["generate", PROMPT, *names, "--full-variant", "transformers", "--max-tokens", "5", "--json"]
    assert cli.run(lambda: cli.app([*arguments, "--provider", "cpu"], standalone_mode=False)) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["token_ids"]) <= 5


def test_the_command_says_what_a_provider_needs(capsys):
    """The bundled pair has packed graphs, which CUDA does not run; that is known before any model is loaded."""
    graphs = ["--variant", "fp32", "--full-variant", "fp32"]
    assert cli.run(lambda: cli.app(["generate", PROMPT, "--provider", "cuda", *graphs], standalone_mode=False)) == 2
    assert "run on the CPU only" in capsys.readouterr().err
    assert cli.run(lambda: cli.app(["generate", PROMPT, "--provider", "tpu"], standalone_mode=False)) == 2
    assert "'cpu', 'cuda'" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["export", "package"])
async def test_a_device_without_the_weights_is_one_with_its_verifier(tmp_path, layout):
    """What ``outrider models describe`` leaves of a full model is enough for an agent."""
    tiny_package(tmp_path / "draft", seed=1, variants=("fp32",), num_hidden_layers=1)
    if layout == "package":
        tiny_package(tmp_path / "full", seed=2, variants=("fp32",))
    else:
        export_folder(tmp_path / "full", seed=2)
    describe(tmp_path / "full", tmp_path / "small")
    verifier = VerifierConfig(port=0, draft=tmp_path / "draft", full=tmp_path / "full")
    async with asyncio.timeout(LIMIT_S), cloud_verifier.server.serve(verifier) as running:
        agent = AgentConfig(port=0, verifier=running.target, draft=tmp_path / "draft", full=tmp_path / "small")
        async with device_agent.server.serve(agent) as served, Client(served.url) as client:
            together, alone = await both_ways(client)
    check_same_text(together, alone)
