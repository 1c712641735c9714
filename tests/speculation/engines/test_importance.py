"""What a text says of the inputs of linear layers, and what 4-bit scales make of it."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from speculation.engines.importance import LEAST_TOKENS, MOST_TOKENS, TEXT_LIMIT_BYTES, importance_of, read_text
from speculation.engines.quantise import from_int4_blocks, to_int4_blocks
from speculation.errors import InvalidRequestError, PackageError
from tests.speculation.engines.tiny import TINY, tiny_package

TEXT = "".join(chr(32 + number * 7 % 90) for number in range(LEAST_TOKENS + 37))
FIRST = "model.layers.0.self_attn.qkv_proj"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny") / "tiny", variants=("fp32", "q4"))


def test_the_first_layers_inputs_are_the_normed_embeddings_of_the_text(package):
    weights = load_file(package.path / "model.safetensors")
    ids = package.tokenizer.encode(TEXT, add_special_tokens=False).ids
    x = weights["model.embed_tokens.weight"].astype(np.float64)[ids]
    x *= weights["model.layers.0.input_layernorm.weight"] / np.sqrt(np.square(x).mean(-1, keepdims=True) + TINY["rms_norm_eps"])
    np.testing.assert_allclose(importance_of(package, TEXT)[FIRST], np.square(x).mean(axis=0), rtol=1e-4)


def test_every_linear_layer_is_watched_and_the_head_too(package):
    found = importance_of(package, TEXT)
    a_layer = {"self_attn.qkv_proj": 32, "self_attn.o_proj": 64, "mlp.gate_proj": 32, "mlp.up_proj": 32, "mlp.down_proj": 48}
    wanted = {f"model.layers.{n}.{name}": size for n in range(2) for name, size in a_layer.items()} | {"logits": 32}
    assert {name: len(values) for name, values in found.items()} == wanted
    assert all((values > 0).all() for values in found.values())


def test_texts_longer_than_a_window_count_whole_and_no_further_than_the_limit(package):
    told = []
    importance_of(package, TEXT, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(TEXT), len(TEXT))
    assert len(told) == -(-len(TEXT) // 96)
    importance_of(package, TEXT * (MOST_TOKENS // len(TEXT) + 1), lambda done, total: told.append((done, total)))
    assert told[-1] == (MOST_TOKENS, MOST_TOKENS)


def test_errors_where_it_counts_are_smaller():
    rng = np.random.default_rng(0)
    weight, counts = rng.normal(0, 1, (64, 96)).astype(np.float32), rng.lognormal(0, 2, 96).astype(np.float32)

    def error(importance):
        rounded = from_int4_blocks(*to_int4_blocks(weight, 32, importance), 96)
        return float((np.square(weight - rounded) * counts).sum())

    assert error(counts) < 0.95 * error(None)


def test_where_all_count_alike_the_bits_are_those_of_no_text():
    weight = np.random.default_rng(0).normal(0, 1, (8, 40)).astype(np.float32)
    for found, wanted in zip(to_int4_blocks(weight, 32, np.ones(40, np.float32)), to_int4_blocks(weight, 32), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_text_that_tells_too_little_is_refused(package):
    with pytest.raises(InvalidRequestError, match="a text of 3 tokens tells too little; 256 are the least"):
        importance_of(package, "abc")


def test_a_package_without_the_graph_that_runs_is_refused(tmp_path):
    with pytest.raises(PackageError, match="has no variant fp32, which calibration runs; make it again"):
        importance_of(tiny_package(tmp_path / "tiny", variants=("i8",)), TEXT)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(PackageError, match="is no file"):
        read_text(tmp_path / "missing.txt")
    (tmp_path / "bytes").write_bytes(b"abc\xff")
    with pytest.raises(PackageError, match="is not UTF-8 at byte 3"):
        read_text(tmp_path / "bytes")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(TEXT_LIMIT_BYTES + 1)
    with pytest.raises(PackageError, match=f"has {TEXT_LIMIT_BYTES + 1} bytes"):
        read_text(tmp_path / "large")
