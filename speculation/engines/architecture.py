"""What ``config.json`` says of a decoder, checked and in our words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speculation.errors import PackageError

SUPPORTED = ("llama",)
HEAD_SIZE_STEP = 16
"""ONNX Runtime's attention node takes no other head sizes where it turns positions itself."""
POSITIVE = ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "vocabulary_size", "context_length")


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a decoder with rotary positions, grouped-query attention and a gated feed-forward layer."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocabulary_size: int
    context_length: int
    rope_theta: float
    norm_epsilon: float
    is_tied: bool

    def __post_init__(self) -> None:
        for name in POSITIVE:
            _require(getattr(self, name) > 0, f"{name} must be positive, not {getattr(self, name)}")
        is_served = self.head_size > 0 and self.head_size % HEAD_SIZE_STEP == 0
        _require(is_served, f"head_dim must be a positive multiple of {HEAD_SIZE_STEP}, not {self.head_size}")
        heads = f"num_attention_heads ({self.num_heads}) must be a multiple of num_key_value_heads ({self.num_kv_heads})"
        _require(self.num_heads % self.num_kv_heads == 0, heads)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a Hugging Face ``config.json``. Raises ``PackageError`` for what is missing or cannot be built."""
        kind = config.get("model_type")
        _require(kind in SUPPORTED, f"model_type {kind!r} is not supported; supported: {', '.join(SUPPORTED)}")
        _require(config.get("hidden_act", "silu") == "silu", f"hidden_act must be 'silu', not {config.get('hidden_act')!r}")
        for name in ("attention_bias", "mlp_bias"):
            _require(not config.get(name, False), f"{name} must be false: biases are not supported")
        try:
            heads = int(config["num_attention_heads"])
            return cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                num_layers=int(config["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(config.get("num_key_value_heads") or heads),
                head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
                vocabulary_size=int(config["vocab_size"]),
                context_length=int(config["max_position_embeddings"]),
                rope_theta=_rope_theta(config),
                norm_epsilon=float(config["rms_norm_eps"]),
                is_tied=bool(config.get("tie_word_embeddings", False)),
            )
        except KeyError as error:
            raise PackageError(f"config.json lacks {error.args[0]!r}") from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise PackageError(f"config.json holds a value that is no size: {error}") from error

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values in float32, all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size * 4


def slot_capacity(context_length: int) -> int:
    """Positions that a cache slot must have for sessions of up to ``context_length`` tokens.

    The attention node wants room behind each session's tokens for as many rows as the longest share of the pass has (a full
    context, made even), though it writes only the session's own. What is never written takes no memory from the system.
    """
    return 2 * context_length


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary angles; newer configurations keep it in ``rope_parameters``."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(kind == "default", f"rope type {kind!r} is not supported; supported: 'default'")
    return float(config.get("rope_theta", rope.get("rope_theta", 10000.0)))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise PackageError(f"config.json: {what}")
