"""Tiny random checkpoints of every family that can be converted, and an independent forward of them in float64."""

import hashlib
import json
import math

import ml_dtypes
import numpy as np
from safetensors.numpy import save

from tests.speculation.engines.tiny import NORMS, tiny_tokenizer

CONTEXT = 96
COMMON = {
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 272,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.8],
    "long_factor": [1.0, 1.25, 1.75, 2.5, 3.0, 4.5, 6.0, 7.5],
}
DYNAMIC = {"type": "dynamic", "factor": 3.0}
FAMILIES = {
    "llama": {"model_type": "llama", "rope_theta": 10000.0},
    "smollm": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "llama3-biases": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_theta": 500.0,
        "rope_scaling": LLAMA3,
    },
    "llama-linear": {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "llama-longrope": {
        "model_type": "llama",
        "rope_theta": 10000.0,
        "max_position_embeddings": 4 * CONTEXT,
        "original_max_position_embeddings": CONTEXT,
        "rope_scaling": LONGROPE,
    },
    "qwen2-longrope-long": {
        "model_type": "qwen2",
        "rope_parameters": {
            **LONGROPE,
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 32,
            "attention_factor": 1.1,
        },
    },
    "mistral-dynamic": {"model_type": "mistral", "sliding_window": None, "rope_theta": 10000.0, "rope_scaling": DYNAMIC},
    "mistral": {"model_type": "mistral", "sliding_window": 13, "rope_theta": 10000.0, "head_dim": 32},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "num_hidden_layers": 3,
        "rope_theta": 10000.0,
    },
    "qwen2-yarn": {"model_type": "qwen2", "rope_theta": 10000.0, "rope_scaling": YARN},
    "qwen3": {
        "model_type": "qwen3",
        "head_dim": 32,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "qwen3-layers": {
        "model_type": "qwen3",
        "head_dim": 16,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 21,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {**YARN, "rope_type": "yarn", "rope_theta": 10000.0, "truncate": False},
    },
}


def config_of(family, **overrides):
    return {**COMMON, **FAMILIES[family], **overrides}


def shapes_of(config):
    """Name -> shape of every tensor of a checkpoint, as the families' published software names them."""
    kind, width, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or width // heads
    has_qkv_bias = kind == "qwen2" or config.get("attention_bias", False)
    rows = {"self_attn.q_proj": heads * size, "self_attn.k_proj": kv_heads * size, "self_attn.v_proj": kv_heads * size}
    rows |= {"self_attn.o_proj": width, "mlp.gate_proj": inner, "mlp.up_proj": inner, "mlp.down_proj": width}
    columns = dict.fromkeys(rows, width) | {"self_attn.o_proj": heads * size, "mlp.down_proj": inner}
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    for layer in range(config["num_hidden_layers"]):
        for name in rows:
            shapes[f"model.layers.{layer}.{name}.weight"] = (rows[name], columns[name])
            is_qkv, is_mlp = name.split(".")[1][0] in "qkv", name.startswith("mlp")
            if has_qkv_bias if is_qkv else config.get("mlp_bias" if is_mlp else "attention_bias", False):
                shapes[f"model.layers.{layer}.{name}.bias"] = (rows[name],)
        shapes |= {f"model.layers.{layer}.{norm}.weight": (width,) for norm in NORMS}
        if kind == "qwen3":
            shapes |= {f"model.layers.{layer}.self_attn.{n}_norm.weight": (size,) for n in "qk"}
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": shapes["model.embed_tokens.weight"]}


def weights_of(config, seed=0):
    """Random float32 weights that bfloat16 holds exactly, so that every spelling of a checkpoint is the same model."""
    rng = np.random.default_rng(seed)
    drawn = {
        name: rng.uniform(0.5, 1.5, shape) if "norm" in name else rng.normal(0, 0.25, shape)
        for name, shape in shapes_of(config).items()
    }
    return {name: values.astype(ml_dtypes.bfloat16).astype(np.float32) for name, values in drawn.items()}


def write_checkpoint(path, config, weights, dtype=np.float32, shards=1, tokenizer=None):
    """A folder as published models have it: ``shards`` files with an index where there are more than one."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_bytes(tokenizer or tiny_tokenizer())
    stored = {name: np.ascontiguousarray(values.astype(dtype)) for name, values in weights.items()}
    if shards == 1:
        (path / "model.safetensors").write_bytes(save(stored, metadata={"format": "pt"}))
        return path
    names, weight_map = sorted(stored), {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: stored[name] for name in names[number::shards]}
        (path / file).write_bytes(save(part, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(v.nbytes for v in stored.values())}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def family_logits(config, weights, tokens, window_change=0, rounded=lambda matrix: matrix):
    """Logits [len(tokens), vocabulary] in float64, the whole sequence at once, one head and one row after the other.

    ``rounded`` is what becomes of each matrix that multiplies; ``window_change`` makes windows wider by so many tokens.
    """
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    w |= {name: rounded(values) for name, values in w.items() if name.endswith("_proj.weight")}
    x = w["model.embed_tokens.weight"][list(tokens)]
    for layer in range(config["num_hidden_layers"]):
        part = {name.split(f"layers.{layer}.")[1]: v for name, v in w.items() if f"layers.{layer}." in name}
        x = x + _attention(_normed(x, part["input_layernorm.weight"], config), part, config, layer, window_change)
        x = x + _feed_forward(_normed(x, part["post_attention_layernorm.weight"], config), part)
    head = w["model.embed_tokens.weight"] if config["tie_word_embeddings"] else w["lm_head.weight"]
    return _normed(x, w["model.norm.weight"], config) @ rounded(head).T


def _normed(x, gain, config):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config["rms_norm_eps"]) * gain


def _linear(x, part, name):
    return x @ part[f"{name}.weight"].T + part.get(f"{name}.bias", 0.0)


def _feed_forward(x, part):
    gate = _linear(x, part, "mlp.gate_proj")
    return _linear(gate / (1 + np.exp(-gate)) * _linear(x, part, "mlp.up_proj"), part, "mlp.down_proj")


def window_of(config, layer):
    """How many tokens a token of a layer sees, itself included."""
    if config["model_type"] == "mistral":
        return config["sliding_window"] or CONTEXT
    if not config.get("use_sliding_window"):
        return CONTEXT
    kinds = config.get("layer_types")
    slides = kinds[layer] == "sliding_attention" if kinds else layer >= config["max_window_layers"]
    return config["sliding_window"] if slides else CONTEXT


def _attention(x, part, config, layer, window_change):
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    q, k, v = (_linear(x, part, f"self_attn.{n}_proj").reshape(len(x), -1, size) for n in "qkv")
    if "self_attn.q_norm.weight" in part:
        q, k = (_normed(values, part[f"self_attn.{n}_norm.weight"], config) for n, values in (("q", q), ("k", k)))
    q, k = (_turned(values, config) for values in (q, k))
    out, window = np.zeros((len(x), heads, size)), window_of(config, layer) + window_change
    for row in range(len(x)):
        seen = slice(max(0, row - window + 1), row + 1)
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            scores = k[seen, kv_head] @ q[row, head] / math.sqrt(size)
            shares = np.exp(scores - scores.max())
            out[row, head] = shares / shares.sum() @ v[seen, kv_head]
    return _linear(out.reshape(len(x), -1), part, "self_attn.o_proj")


def _turned(values, config):
    size = values.shape[-1]
    speeds, length = _speeds(config, size, len(values))
    angles = np.arange(len(values))[:, None, None] * speeds
    low, high = values[..., : size // 2], values[..., size // 2 :]
    turned = (low * np.cos(angles) - high * np.sin(angles), low * np.sin(angles) + high * np.cos(angles))
    return length * np.concatenate(turned, axis=-1)


def _speeds(config, size, num_tokens):
    """Radians a position for each channel pair, and the length that turning gives, in a text of so many tokens; one pair after
    the other."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    theta, kind = rope.get("rope_theta", config.get("rope_theta")), rope.get("rope_type", rope.get("type", "default"))
    plain = [theta ** (-2 * pair / size) for pair in range(size // 2)]
    if kind == "default" or (kind == "dynamic" and num_tokens <= config["max_position_embeddings"]):
        return np.array(plain), 1.0
    if kind == "longrope":
        trained = config.get("original_max_position_embeddings") or rope["original_max_position_embeddings"]
        slowed = rope["long_factor" if num_tokens > trained else "short_factor"]
        length = math.sqrt(1 + math.log(config["max_position_embeddings"] / trained) / math.log(trained))
        return np.array([s / f for s, f in zip(plain, slowed, strict=True)]), rope.get("attention_factor", length)
    factor = rope["factor"]
    if kind == "linear":
        return np.array([speed / factor for speed in plain]), 1.0
    if kind == "llama3":
        return np.array([_llama3(speed, rope) for speed in plain]), 1.0
    return np.array(_yarn(plain, rope, theta, size)), 0.1 * math.log(factor) + 1


def _llama3(speed, rope):
    """The published code: short waves stay, long ones are slowed, the middle is mixed by a smooth factor."""
    trained, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    wave = 2 * math.pi / speed
    if wave < trained / high:
        return speed
    if wave > trained / low:
        return speed / rope["factor"]
    smooth = (trained / wave - low) / (high - low)
    return (1 - smooth) * speed / rope["factor"] + smooth * speed


def _yarn(plain, rope, theta, size):
    trained = rope["original_max_position_embeddings"]
    ends = [size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (32, 1)]
    if rope.get("truncate", True):
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], size - 1)
    slowed = [min(max((pair - low) / (high - low), 0), 1) for pair in range(size // 2)]
    return [share * speed / rope["factor"] + (1 - share) * speed for share, speed in zip(slowed, plain, strict=True)]


def digest_of(weights):
    """SHA-256 of all values, so that what was recorded of them is not held against others."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].astype("<f4").tobytes())
    return digest.hexdigest()
