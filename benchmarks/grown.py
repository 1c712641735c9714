"""The bundled full model, grown: zeros round its weights make it as wide and deep as wanted, and it computes the same function.

So a model of a billion parameters has the bundled pair's acceptance, at its own price. A wider residual stream has a smaller
mean square, so the weights of the norms and their epsilon shrink with it; layers of zeros add nothing.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Weights = dict[str, NDArray[np.float16]]
KEPT = ("tokenizer.json", "generation_config.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the grown model; none may be smaller than the model's own."""

    hidden: int
    layers: int
    feed_forward: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """``2048x32x5632`` is hidden size x layers x feed-forward size. Raises ``ValueError``."""
        hidden, layers, feed_forward = map(int, text.split("x"))
        return cls(hidden, layers, feed_forward)


def grow(source: Path, target: Path, shape: Shape) -> int:
    """Write a checkpoint folder; tells how many parameters it has. Raises ``ValueError`` for a shape that is too small."""
    config: dict[str, Any] = json.loads((source / "config.json").read_text("utf-8"))
    _require_larger(config, shape)
    weights = grown(load_file(source / "model.safetensors"), config, shape)
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(grown_config(config, shape)), "utf-8")
    for name in KEPT:
        shutil.copy(source / name, target / name)
    return sum(weight.size for weight in weights.values())


def grown_config(config: dict[str, Any], shape: Shape) -> dict[str, Any]:
    num_heads, num_kv_heads = _heads(config, shape)
    return config | {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "rms_norm_eps": config["rms_norm_eps"] * config["hidden_size"] / shape.hidden,
    }


def grown(weights: Weights, config: dict[str, Any], shape: Shape) -> Weights:
    """The weights with zeros round them."""
    hidden, scale = shape.hidden, math.sqrt(config["hidden_size"] / shape.hidden)
    found = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(shape.layers):
        found |= {f"model.layers.{layer}.{name}.weight": size for name, size in _sizes(config, shape).items()}
    return {name: _padded(weights.get(name), size, scale if len(size) == 1 else 1.0) for name, size in found.items()}


def _sizes(config: dict[str, Any], shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, forward = shape.hidden, shape.feed_forward
    queries, keys = (count * config["head_dim"] for count in _heads(config, shape))
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (forward, hidden),
        "mlp.up_proj": (forward, hidden),
        "mlp.down_proj": (hidden, forward),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }


def _heads(config: dict[str, Any], shape: Shape) -> tuple[int, int]:
    """As many heads as fill the width; query heads share keys as before, so the first stay with theirs."""
    num_heads = shape.hidden // config["head_dim"]
    return num_heads, num_heads * config["num_key_value_heads"] // config["num_attention_heads"]


def _padded(weight: NDArray[np.float16] | None, size: tuple[int, ...], scale: float) -> NDArray[np.float16]:
    padded = np.zeros(size, np.float16)
    if weight is not None:
        padded[tuple(slice(length) for length in weight.shape)] = weight.astype(np.float32) * scale
    return padded


def _require_larger(config: dict[str, Any], shape: Shape) -> None:
    least = Shape(config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"])
    fits = shape.hidden >= least.hidden and shape.layers >= least.layers and shape.feed_forward >= least.feed_forward
    if not fits or shape.hidden % least.hidden:
        raise ValueError(f"{shape} must be at least {least}, its width a multiple")
