"""What ``config.json`` says of a decoder, checked and in our words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speculation.engines.rotary import Rotary
from speculation.errors import PackageError

HEAD_SIZE_STEP = 16
"""ONNX Runtime's attention node takes no other head sizes where it turns positions itself."""
DEFAULT_CONTEXT = 4096
"""Tokens. Every slot of an engine has memory for its context, so few want all positions of a model that has 131,072."""
MAX_LAYERS = MAX_HEAD_SIZE = 1024
"""Far above any decoder; keeps a damaged configuration from filling the memory."""
SIZE_LIMIT = 2**31
POSITIVE = ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "vocabulary_size", "context_length")
DEFAULT_WINDOW = 4096
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class Family:
    """What a ``model_type`` implies beyond its sizes. ``..._switch`` names the entry of ``config.json`` that turns something
    on; ``required`` lists entries that may not be left out there, because other software fills in other values."""

    has_head_norms: bool = False
    has_window: bool = False
    window_switch: str | None = None
    has_qkv_bias: bool = False
    attention_bias_switch: str | None = None
    mlp_bias_switch: str | None = None
    required: tuple[str, ...] = ("num_key_value_heads",)


FAMILIES: Mapping[str, Family] = {
    "llama": Family(attention_bias_switch="attention_bias", mlp_bias_switch="mlp_bias", required=()),
    "mistral": Family(has_window=True),
    "qwen2": Family(has_qkv_bias=True, has_window=True, window_switch="use_sliding_window"),
    "qwen3": Family(
        has_head_norms=True,
        has_window=True,
        window_switch="use_sliding_window",
        attention_bias_switch="attention_bias",
        required=("num_key_value_heads", "head_dim"),
    ),
}
SUPPORTED = tuple(FAMILIES)


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a decoder with rotary positions, grouped-query attention and a gated feed-forward layer.

    ``windows``: for each layer how many tokens a token sees, itself included; 0 is all of them. ``has_head_norms``: queries and
    keys are normed head by head before they are turned.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocabulary_size: int
    context_length: int
    rotary: Rotary
    norm_epsilon: float
    is_tied: bool
    windows: tuple[int, ...]
    has_head_norms: bool = False
    has_qkv_bias: bool = False
    has_out_bias: bool = False
    has_mlp_bias: bool = False

    def __post_init__(self) -> None:
        for name in POSITIVE:
            _require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}")
            is_size = name == "context_length" or getattr(self, name) < SIZE_LIMIT
            _require(is_size, f"{name} must be below {SIZE_LIMIT}, not {getattr(self, name)}")
        is_served = 0 < self.head_size <= MAX_HEAD_SIZE and self.head_size % HEAD_SIZE_STEP == 0
        right = f"a positive multiple of {HEAD_SIZE_STEP}, and at most {MAX_HEAD_SIZE}"
        _require(is_served, f"head_dim must be {right}, not {self.head_size}")
        self.rotary.check_head(self.head_size)
        heads = f"num_attention_heads ({self.num_heads}) must be a multiple of num_key_value_heads ({self.num_kv_heads})"
        _require(self.num_heads % self.num_kv_heads == 0, heads)
        _require(0 < self.norm_epsilon < math.inf, f"rms_norm_eps must be a positive number, not {self.norm_epsilon}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face ``config.json``. Raises ``PackageError`` for what is missing or cannot be built."""
        family = _family(config)
        try:
            heads = int(config["num_attention_heads"])
            has_attention_bias = _is_on(config, family.attention_bias_switch)
            rotary = Rotary.from_config(config)
            return cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                num_layers=int(config["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(config.get("num_key_value_heads") or heads),
                head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
                vocabulary_size=int(config["vocab_size"]),
                context_length=rotary.longest_context(int(config["max_position_embeddings"])),
                rotary=rotary,
                norm_epsilon=float(config["rms_norm_eps"]),
                is_tied=bool(config.get("tie_word_embeddings", False)),
                windows=_windows(config, family, int(config["num_hidden_layers"])),
                has_head_norms=family.has_head_norms,
                has_qkv_bias=family.has_qkv_bias or has_attention_bias,
                has_out_bias=has_attention_bias,
                has_mlp_bias=_is_on(config, family.mlp_bias_switch),
            )
        except KeyError as error:
            raise PackageError(f"config.json lacks {error.args[0]!r}") from error
        except (OverflowError, TypeError, ValueError, ZeroDivisionError) as error:
            raise PackageError(f"config.json holds a value that is no size: {error}") from error

    @property
    def rope_theta(self) -> float:
        """The base of the rotary angles."""
        return self.rotary.theta

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values in float32, all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size * 4


def slot_capacity(context_length: int) -> int:
    """Positions that a cache slot must have for sessions of up to ``context_length`` tokens.

    The attention node wants room behind each session's tokens for as many rows as the longest share of the pass has (a full
    context, made even), though it writes only the session's own. What is never written takes no memory where pages are small
    (``cache_pages.py``).
    """
    return 2 * context_length


def _family(config: Mapping[str, Any]) -> Family:
    """Raises ``PackageError`` for a model type that is not known, and for what no family here has."""
    kind = config.get("model_type")
    is_known = isinstance(kind, str) and kind in FAMILIES
    _require(is_known, f"model_type {kind!r} is not supported; supported: {', '.join(SUPPORTED)}")
    family = FAMILIES[str(kind)]
    _require(config.get("hidden_act", "silu") == "silu", f"hidden_act must be 'silu', not {config.get('hidden_act')!r}")
    for name in ("attention_bias", "mlp_bias"):
        is_switch = name in (family.attention_bias_switch, family.mlp_bias_switch)
        _require(is_switch or not config.get(name, False), f"{name} must be false for model_type {kind!r}")
    missing = [name for name in family.required if name not in config]
    _require(not missing, f"lacks {', '.join(missing)}, which model_type {kind!r} needs")
    return family


def _is_on(config: Mapping[str, Any], switch: str | None) -> bool:
    return switch is not None and bool(config.get(switch, False))


def _windows(config: Mapping[str, Any], family: Family, num_layers: int) -> tuple[int, ...]:
    """The window of each layer in tokens, 0 for none. Raises ``PackageError`` where the entries contradict each other."""
    _require(0 < num_layers <= MAX_LAYERS, f"num_layers must be positive and at most {MAX_LAYERS}, not {num_layers}")
    window = _window(config, family)
    kinds = config.get("layer_types") if family.window_switch else None
    if kinds is None:
        first = int(config.get("max_window_layers", 28)) if window and family.window_switch else 0
        kinds = [SLIDING if window and n >= first else FULL for n in range(num_layers)]
    is_known = isinstance(kinds, Sequence) and len(kinds) == num_layers and all(k in (FULL, SLIDING) for k in kinds)
    _require(is_known, f"layer_types must name {FULL} or {SLIDING} for each of {num_layers} layers, not {kinds!r}")
    has_window = window > 0 or SLIDING not in kinds
    _require(has_window, f"layer_types names {SLIDING}, but {family.window_switch} and sliding_window give no window")
    return tuple(window if kind == SLIDING else 0 for kind in kinds)


def _window(config: Mapping[str, Any], family: Family) -> int:
    """The window in tokens, 0 where it is off. Where the entry is left out, the families' published default stands."""
    window = config.get("sliding_window", DEFAULT_WINDOW)
    is_off = not family.has_window or (family.window_switch is not None and not _is_on(config, family.window_switch))
    if is_off or window is None:
        return 0
    _require(int(window) > 0, f"sliding_window must be positive or null, not {window!r}")
    return int(window)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise PackageError(f"config.json: {what}")
