"""Small random packages, and an independent forward of their weights in float64."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from speculation.engines import grouping, pointwise
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair
from speculation.engines.package_writer import PackageSource, write_package, write_pair

END_OF_TEXT = "<|endoftext|>"
PROMPTS = [{"source": "tiny#0", "title": "Tiny", "text": "## Tiny"}]
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 272,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


class OneRowEngine(OnnxEngine):
    """The engine without its even-row rule."""

    _rows_multiple = 1


def tiny_tokenizer() -> bytes:
    """Bytes as tokens 1 to 256, the end of a text as token 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END_OF_TEXT: 0, **{letter: number for number, letter in enumerate(alphabet, 1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str().encode()


def tiny_weights(config, seed=0):
    rng = np.random.default_rng(seed)
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    shapes = {"model.embed_tokens": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            shapes[f"{prefix}.self_attn.{name}_proj"] = (config[heads] * size, width)
        shapes[f"{prefix}.self_attn.o_proj"] = (width, config["num_attention_heads"] * size)
        shapes[f"{prefix}.mlp.gate_proj"] = shapes[f"{prefix}.mlp.up_proj"] = (inner, width)
        shapes[f"{prefix}.mlp.down_proj"] = (width, inner)
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = shapes["model.embed_tokens"]
    weights = {f"{name}.weight": rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    norms = ["model.norm", *[f"model.layers.{n}.{kind}" for n in range(config["num_hidden_layers"]) for kind in NORMS]]
    return weights | {f"{name}.weight": rng.uniform(0.5, 1.5, width) for name in norms}


NORMS = ("input_layernorm", "post_attention_layernorm")


def tiny_source(name="tiny", seed=0, variants=("fp32", "q4", "i8"), **overrides) -> PackageSource:
    config = {**TINY, **overrides}
    return PackageSource(
        name=name,
        config=config,
        weights=tiny_weights(config, seed),
        tokenizer=tiny_tokenizer(),
        end_token_ids=(0,),
        licence="Apache-2.0",
        provenance=f"random weights, seed {seed}",
        variants=variants,
    )


def convolve_all(monkeypatch):
    """Multiply the matrices of any model as convolutions from now on, however small they are."""
    if not pointwise.can_convolve():
        pytest.skip("this processor, or this ONNX Runtime, has no convolutions in blocks of 16")
    for limit in ("MODEL_LEAST_BYTES", "MATRIX_LEAST_BYTES"):
        monkeypatch.setattr(pointwise, limit, 0)


def group_all(monkeypatch):
    """Take query heads of a group as rows of one from now on, however little that saves."""
    monkeypatch.setattr(grouping, "SAVED_LEAST", 0)


def tiny_package(path, name="tiny", seed=0, variants=("fp32", "q4", "i8"), **overrides) -> Package:
    """A package of random weights; ``overrides`` are entries of its ``config.json``."""
    write_package(path, tiny_source(name, seed, variants, **overrides))
    return Package(path)


def tiny_pair(path):
    """A pair of two unrelated random models."""
    draft = tiny_source("tiny-draft", seed=1, variants=("fp32", "q4"), num_hidden_layers=1)
    write_pair(path, "tiny", 1, draft, tiny_source("tiny-full", seed=2, variants=("fp32",)), PROMPTS)
    return load_pair(path)


def token_ids(count, seed=0, vocabulary_size=272):
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocabulary_size, count)]


def reference_logits(package, tokens, rounded=lambda weight: weight):
    """Logits [len(tokens), vocabulary] of the package's ``model.safetensors``, in float64, the whole sequence at once.

    ``rounded`` is what becomes of each matrix that multiplies.
    """
    config = package.config
    weights = {name: values.astype(np.float64) for name, values in load_file(package.path / "model.safetensors").items()}
    head = rounded(weights.get("lm_head.weight", weights["model.embed_tokens.weight"]))
    weights |= {name: rounded(values) for name, values in weights.items() if "_proj" in name}
    rotary = _rotary(len(tokens), config["head_dim"], config["rope_theta"])
    x = weights["model.embed_tokens.weight"][list(tokens)]
    for layer in range(config["num_hidden_layers"]):
        part = {name.split(f"layers.{layer}.")[1]: w for name, w in weights.items() if f"layers.{layer}." in name}
        x = x + _attention(_normed(x, part["input_layernorm.weight"], config), part, config, rotary)
        normed = _normed(x, part["post_attention_layernorm.weight"], config)
        gate = normed @ part["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ part["mlp.up_proj.weight"].T)) @ part["mlp.down_proj.weight"].T
    return _normed(x, weights["model.norm.weight"], config) @ head.T


def _normed(x, gain, config):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config["rms_norm_eps"]) * gain


def _rotary(rows, size, theta):
    """One complex number a row and a pair of channels; a turn of the pair is a product with it."""
    return np.exp(1j * np.outer(np.arange(rows), theta ** (-np.arange(0, size, 2) / size)))


def _attention(x, part, config, rotary):
    rows, size, heads, kv_heads = len(x), config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    q, k, v = ((x @ part[f"self_attn.{n}_proj.weight"].T).reshape(rows, -1, size) for n in "qkv")
    outputs = []
    for head in range(heads):
        kv_head = head * kv_heads // heads
        turned = [_turned(values, rotary) for values in (q[:, head], k[:, kv_head])]
        scores = turned[0] @ turned[1].T / np.sqrt(size)
        scores[np.triu_indices(rows, 1)] = -np.inf
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        outputs.append(shares / shares.sum(axis=-1, keepdims=True) @ v[:, kv_head])
    return np.concatenate(outputs, axis=-1) @ part["self_attn.o_proj.weight"].T


def _turned(values, rotary):
    half = values.shape[-1] // 2
    turned = (values[:, :half] + 1j * values[:, half:]) * rotary
    return np.concatenate((turned.real, turned.imag), axis=-1)
