"""The pair that comes with the project."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.graph import build
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from tests.speculation.engines.tiny import reference_logits
from tests.support.processor import gives_rows_alike

TOLERANCE = 1e-5
"""Of the largest logit."""


@pytest.fixture(scope="module")
def pair():
    return load_pair()


def logits_of(package, tokens):
    engine = OnnxEngine(package, num_slots=1)
    return engine.extend([Chunk(engine.open(), tokens, len(tokens))])


def relative_difference(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(("half", "variant"), [("full", "fp32"), ("draft", "fp32"), ("draft", "q4")])
def test_every_graph_is_exact(pair, half, variant):
    found = self_test.run(OnnxEngine(getattr(pair, half), variant, num_slots=4))
    assert found.is_exact is (variant != "q4" or gives_rows_alike()), found.details


@pytest.mark.parametrize("half", ["full", "draft"])
def test_the_graph_agrees_with_a_plain_forward_in_float64(pair, half):
    package = getattr(pair, half)
    tokens = package.tokenizer.encode(pair.prompts[0]["text"]).ids
    assert relative_difference(logits_of(package, tokens), reference_logits(package, tokens)) < TOLERANCE


@pytest.mark.parametrize("half", ["full", "draft"])
def test_the_graph_is_built_again_byte_for_byte(pair, half):
    """Digests are part of a pair's identity: a change to the builder must not make another pair of the same weights."""
    package = getattr(pair, half)
    model, weight_bytes = build(package.architecture, load_file(package.path / "model.safetensors"))
    assert model.SerializeToString() == package.graph("fp32").read_bytes()
    assert weight_bytes == package.weight_bytes("fp32")


@pytest.mark.parametrize("half", ["full", "draft"])
def test_the_graph_agrees_with_the_network_that_was_trained(pair, half):
    torch = pytest.importorskip("torch", reason="the training framework is an extra")
    from outrider.training.network import Decoder, Shape

    package = getattr(pair, half)
    decoder = Decoder(Shape(**{name: package.config[name] for name in Shape.__dataclass_fields__}))
    weights = load_file(package.path / "model.safetensors")
    decoder.load_state_dict({name: torch.from_numpy(values.astype(np.float32)) for name, values in weights.items()})
    tokens = package.tokenizer.encode(pair.prompts[1]["text"]).ids
    torch.set_num_threads(1)
    with torch.no_grad():
        wanted = decoder(torch.tensor([tokens]))[0].numpy()
    assert relative_difference(logits_of(package, tokens), wanted) < TOLERANCE


def test_the_draft_is_small_beside_the_full_model(pair):
    assert pair.draft.num_parameters * 6 <= pair.full.num_parameters


def test_the_pair_stays_within_its_size(pair):
    folder = pair.full.path.parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6


def test_every_prompt_fits_with_room_for_an_answer(pair):
    assert len(pair.prompts) >= 40
    for prompt in pair.prompts:
        token_ids = pair.full.tokenizer.encode(prompt["text"]).ids
        assert 0 < len(token_ids) <= pair.full.context_length - 128


@pytest.mark.parametrize("half", ["full", "draft"])
def test_a_conversation_is_written_as_paragraphs(pair, half):
    said = [{"role": "system", "content": "## Lock Objects"}, {"role": "user", "content": "A lock is"}]
    assert getattr(pair, half).chat_template.render(said) == "## Lock Objects\n\nA lock is"
