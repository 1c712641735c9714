"""From checkpoints to a pair on disk."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from speculation.engines.package import load_pair

torch = pytest.importorskip("torch", reason="the training framework is an extra")
from safetensors.torch import load_file  # noqa: E402

from models.recipes import package as recipe  # noqa: E402
from models.recipes.corpus import END_OF_TEXT  # noqa: E402
from models.recipes.runs import place_of, start_from  # noqa: E402
from models.recipes.shapes import SHAPES  # noqa: E402
from outrider.training.loop import cross_entropy  # noqa: E402
from outrider.training.network import Decoder  # noqa: E402
from outrider.training.optimiser import optimisers  # noqa: E402
from outrider.training.quantised import QuantisedForward, rounded  # noqa: E402
from speculation.engines.quantise import from_int4_blocks, to_int4_blocks  # noqa: E402

PAIR = Path(__file__).resolve().parents[2] / "models" / "pydoc"

PROGRESS = {"step": 10, "tokens": 40960, "seconds": 90.0}
PROMPTS = [{"source": "a.rst#0", "title": "A", "text": "a"}]


@pytest.fixture
def arguments(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    Tokenizer(models.BPE(vocab={END_OF_TEXT: 0, "a": 1}, merges=[])).save(str(corpus / "tokenizer.json"))
    (corpus / "prompts.json").write_text(json.dumps(PROMPTS))
    (corpus / "corpus.json").write_text(json.dumps({"sha256": "c0ffee"}))
    torch.manual_seed(0)
    for half in ("draft", "full"):
        torch.save({"model": Decoder(SHAPES["draft"]).state_dict(), "progress": PROGRESS}, tmp_path / f"{half}.pt")
    names = {half: tmp_path / f"{half}.pt" for half in ("draft", "full")}
    return argparse.Namespace(**names, corpus=corpus, out=tmp_path / "out" / "pair", version=3, provenance="a test")


def test_two_checkpoints_become_a_pair(arguments, capsys):
    recipe.package(arguments)
    pair = load_pair(arguments.out)
    assert (pair.name, pair.version, pair.draft.variants, pair.full.variants) == ("pydoc", 3, ("fp32", "q4"), ("fp32",))
    assert pair.full.end_token_ids == (0,)
    assert pair.full.chat_template.render([{"role": "user", "content": "a"}]) == "a"
    assert pair.full.manifest.provenance == "trained on 0.0 M tokens in 2 minutes; a test; corpus sha256 c0ffee"
    assert pair.identity.pair_digest in capsys.readouterr().out


def test_a_half_that_was_not_trained_again_is_taken_from_its_release(arguments, tmp_path):
    recipe.package(arguments)
    released = load_pair(arguments.out)
    arguments.full, arguments.version, arguments.provenance = (
        arguments.out.rename(tmp_path / "old") / "full",
        4,
        "another draft",
    )
    recipe.package(arguments)
    pair = load_pair(arguments.out)
    assert pair.version == 4
    assert pair.full.digest == released.full.digest
    assert "another draft" in pair.draft.manifest.provenance


def test_a_failure_leaves_the_old_pair_whole(arguments):
    recipe.package(arguments)
    before = load_pair(arguments.out).identity
    state = Decoder(SHAPES["draft"]).state_dict()
    state["model.norm.weight"] = torch.full((SHAPES["draft"].hidden_size,), 1e6)
    torch.save({"model": state, "progress": PROGRESS}, arguments.full)
    arguments.version = 4
    with np.errstate(over="ignore"), pytest.raises(Exception, match="float16 cannot hold"):
        recipe.package(arguments)
    assert load_pair(arguments.out).identity == before
    assert [path.name for path in arguments.out.parent.iterdir()] == ["pair"]


def test_weights_of_no_known_shape_are_refused(arguments):
    torch.save({"model": {"model.embed_tokens.weight": torch.zeros(10, 4)}, "progress": PROGRESS}, arguments.draft)
    with pytest.raises(SystemExit, match="no shape has 0 layers of width 4; known: full, draft"):
        recipe.package(arguments)


def test_provenance_tells_what_a_run_went_on_from(tmp_path):
    torch.save({"progress": PROGRESS | {"began_from": "trained long ago"}}, tmp_path / "full.pt")
    assert recipe.training_of(tmp_path / "full.pt").endswith("behind an earlier release (trained long ago)")


def test_a_run_goes_on_from_a_released_package(tmp_path):
    model = Decoder(SHAPES["full"])
    progress = start_from(PAIR / "full", PAIR / "draft", model)
    released = load_file(PAIR / "full" / "model.safetensors")
    assert all(torch.equal(values, released[name].float()) for name, values in model.state_dict().items())
    assert progress.tokens == 0
    assert "trained on" in progress.began_from


def test_a_device_that_is_not_there_is_refused():
    arguments = argparse.Namespace(seed=0, threads=1, device="cuda:99", precision="fp32", compile=False)
    with pytest.raises(SystemExit, match="--device cuda:99"):
        place_of(arguments)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_lowers_the_loss_in_either_precision(precision):
    place = place_of(argparse.Namespace(seed=0, threads=1, device="cpu", precision=precision, compile=False))
    model = Decoder(SHAPES["draft"])
    (muon, adam), tokens = optimisers(model, precision=place.precision), torch.arange(64).reshape(1, 64)
    losses = []
    for _ in range(4):
        loss = cross_entropy(place.forward(model), tokens)
        loss.backward()
        for optimiser in (muon, adam):
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_quantised_forward_rounds_as_the_graph_is_quantised():
    weight = np.random.default_rng(0).standard_normal((24, 96)).astype(np.float32)
    weight[3, :32] = 0
    wanted = from_int4_blocks(*to_int4_blocks(weight), in_size=96)
    np.testing.assert_allclose(rounded(torch.from_numpy(weight)).numpy(), wanted, atol=1e-6)


def test_the_quantised_forward_trains_the_weights_behind_it():
    decoder = Decoder(SHAPES["draft"])
    QuantisedForward(decoder)(torch.arange(8).reshape(1, 8)).square().sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_weights_are_not_taken_over_to_another_tokenizer(arguments):
    with pytest.raises(SystemExit, match="--tokenizer"):
        start_from(PAIR / "full", arguments.corpus, Decoder(SHAPES["full"]))
