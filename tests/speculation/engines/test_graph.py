"""The graph's numbers, against forwards that were written apart."""

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from speculation.engines.architecture import Architecture
from speculation.engines.base import Chunk
from speculation.engines.graph import build
from speculation.engines.onnx import OnnxEngine
from speculation.engines.quantise import BLOCK, BLOCKS, MOST_INT8, from_int4_blocks, to_int4_blocks
from speculation.errors import PackageError
from tests.speculation.engines.tiny import TINY, reference_logits, tiny_package, tiny_weights, token_ids

FLOAT32_TOLERANCE = 2e-5
"""Of the largest logit: two dozen roundings of float32, well below any quantisation."""


def logits_of(package, tokens, variant="fp32"):
    engine = OnnxEngine(package, variant, num_slots=1)
    return engine.extend([Chunk(engine.open(), tokens, len(tokens))])


def relative_difference(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "num_hidden_layers": 3},
        {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 500.0},
        {"hidden_size": 40, "intermediate_size": 24, "num_hidden_layers": 1, "rms_norm_eps": 0.1},
    ],
    ids=["tied", "untied", "one head a query", "one head for all", "other rotary base", "odd sizes"],
)
def test_the_graph_agrees_with_a_plain_forward_in_float64(tmp_path, overrides):
    package, tokens = tiny_package(tmp_path, variants=("fp32",), **overrides), token_ids(90)
    assert relative_difference(logits_of(package, tokens), reference_logits(package, tokens)) < FLOAT32_TOLERANCE


def to_int4(weight, block=BLOCK):
    packed, scales = to_int4_blocks(weight.astype(np.float32), block)
    return from_int4_blocks(packed, scales, weight.shape[1]).astype(np.float64)


def to_int8(weight):
    scales = np.abs(weight).max(axis=1, keepdims=True) / MOST_INT8
    return np.rint(weight / scales) * scales


@pytest.mark.parametrize(("variant", "rounded"), [("i8", to_int8), ("q4", to_int4)])
def test_a_quantised_graph_agrees_with_a_plain_forward_of_its_rounded_weights(tmp_path, variant, rounded):
    """Activations are rounded to 8 bits at each linear layer, which the plain forward does not do: so much may remain."""
    package, tokens = tiny_package(tmp_path, hidden_size=64), token_ids(90)
    found, wanted = logits_of(package, tokens, variant), reference_logits(package, tokens, rounded)
    assert np.abs(found - wanted).mean() < 0.12 * wanted.std()
    assert np.abs(reference_logits(package, tokens) - wanted).mean() > 0.01 * wanted.std()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != BLOCK])
def test_a_graph_of_any_block_size_agrees_with_a_plain_forward_of_its_rounded_weights(tmp_path, block):
    """Also where a block is longer than a row of the matrix."""
    variant = f"q4_b{block}"
    package, tokens = tiny_package(tmp_path, variants=(variant,), hidden_size=64), token_ids(90)
    found = logits_of(package, tokens, variant)
    wanted = reference_logits(package, tokens, lambda weight: to_int4(weight, block))
    assert np.abs(found - wanted).mean() < 0.12 * wanted.std()


def test_the_graph_agrees_with_the_network_that_is_trained(tmp_path):
    torch = pytest.importorskip("torch", reason="the training framework is an extra")
    from outrider.training.network import Decoder, Shape

    package, tokens = tiny_package(tmp_path, variants=("fp32",), hidden_size=64), token_ids(90)
    sizes = {name: package.config[name] for name in Shape.__dataclass_fields__ if name in TINY}
    decoder = Decoder(Shape(**sizes))
    weights = load_file(package.path / "model.safetensors")
    decoder.load_state_dict({name: torch.from_numpy(values.astype(np.float32)) for name, values in weights.items()})
    torch.set_num_threads(1)
    with torch.no_grad():
        wanted = decoder(torch.tensor([tokens]))[0].numpy()
    assert relative_difference(logits_of(package, tokens), wanted) < FLOAT32_TOLERANCE


def test_the_graph_passes_the_checker_for_its_standard_nodes():
    model, weight_bytes = build(Architecture.from_config(TINY), tiny_weights(TINY))
    domains = {node.domain for node in model.graph.node}
    assert domains == {"", "com.microsoft"}
    assert {value.name for value in model.graph.output} >= {"logits", "present.0.key", "present.1.value"}
    assert weight_bytes == sum(w.size for w in tiny_weights(TINY).values()) * 4
    assert onnx.load_from_string(model.SerializeToString()) == model


def test_tied_weights_are_stored_once():
    model, _ = build(Architecture.from_config(TINY), tiny_weights(TINY))
    untied = {**TINY, "tie_word_embeddings": False}
    other, _ = build(Architecture.from_config(untied), tiny_weights(untied))
    assert len(other.SerializeToString()) - len(model.SerializeToString()) > TINY["vocab_size"] * TINY["hidden_size"] * 3


def test_a_missing_weight_is_named():
    weights = tiny_weights(TINY)
    del weights["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(PackageError, match=r"lacks model.layers.1.mlp.up_proj.weight.*\[48, 32\]"):
        build(Architecture.from_config(TINY), weights)


def test_a_weight_of_another_shape_is_named():
    weights = tiny_weights(TINY) | {"model.norm.weight": np.ones(31)}
    with pytest.raises(PackageError, match=r"model.norm.weight has shape \[31\].*\[32\]"):
        build(Architecture.from_config(TINY), weights)


def test_stacked_weights_take_no_memory_before_the_first_has_the_shape_that_is_asked_for():
    too_many = {"num_attention_heads": 2**31 - 2, "num_key_value_heads": 2}
    with pytest.raises(PackageError, match=r"q_proj.weight has shape \[64, 32\]; config.json asks for \[34359738336, 32\]"):
        build(Architecture.from_config({**TINY, **too_many}), tiny_weights(TINY))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: llama"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu'"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_layers must be positive"),
        ({"head_dim": 24}, "head_dim must be a positive multiple of 16"),
        ({"head_dim": 1_000_000}, "head_dim must be a positive multiple of 16, and at most 1024, not 1000000"),
        ({"num_attention_heads": 10**29}, "num_heads must be below 2147483648"),
        ({"hidden_size": "wide"}, "no size"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(overrides, message):
    with pytest.raises(PackageError, match=message):
        Architecture.from_config({**TINY, **overrides})


def test_a_configuration_that_lacks_a_size_is_refused():
    config = {name: value for name, value in TINY.items() if name != "hidden_size"}
    with pytest.raises(PackageError, match="lacks 'hidden_size'"):
        Architecture.from_config(config)


def test_newer_configurations_keep_the_rotary_base_elsewhere():
    config = {name: value for name, value in TINY.items() if name != "rope_theta"}
    assert (
        Architecture.from_config({**config, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}).rope_theta == 7.0
    )
