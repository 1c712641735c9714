"""Rotary positions and the ways of stretching them, as `config.json` names them: angles per position, as tables.

Su et al., arXiv 2104.09864, turn channel pair ``i`` of a head of size D at position ``p`` by ``p * theta ** (-2 i / D)``
radians. The scalings change these frequencies, and ``yarn`` the length of what is turned as well. Tables are made in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.errors import PackageError

KINDS = ("default", "linear", "llama3", "yarn")
STRETCHED = ("llama3", "yarn")
"""Kinds that ask for the context that the model was trained with before it was stretched."""

MAX_CONTEXT = 1 << 30
"""Tokens; far above any model, and what a float holds exactly."""

LEAST, MOST = 1e-6, 1e12
"""What any of the numbers below may be: far beyond any model, and within what keeps angles finite."""

Angles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rotary:
    """How positions are turned. ``trained_context`` (tokens) and what follows it mean something to the kinds that read it."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    trained_context: int = 0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    is_truncated: bool = True
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        positive = ("theta", "factor", "low_frequency", "high_frequency", "beta_fast", "beta_slow", "attention_factor")
        for name in positive:
            value = getattr(self, name)
            _require(LEAST <= value <= MOST, f"{name} must be from {LEAST} to {MOST}, not {value}")
        _require(self.theta > 1, f"theta must be over 1, not {self.theta}")
        has_context = self.kind not in STRETCHED or 0 < self.trained_context <= MAX_CONTEXT
        _require(has_context, f"{self.kind!r} needs positive original_max_position_embeddings, not {self.trained_context}")
        is_band = self.kind != "llama3" or self.low_frequency < self.high_frequency
        _require(is_band, f"low_freq_factor must be below high_freq_factor, not {self.low_frequency} and {self.high_frequency}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rotary:
        """Read ``rope_parameters``, or the older ``rope_theta`` and ``rope_scaling``, of a Hugging Face ``config.json``.

        Raises ``PackageError`` for kinds that are not in ``KINDS``, ``KeyError`` for what a kind needs and is not there,
        ``TypeError`` or ``ValueError`` for what is no number.
        """
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        _require(isinstance(rope, dict), f"they must be an object, not {rope!r}")
        nested = sorted(name for name, value in rope.items() if isinstance(value, dict))
        _require(not nested, f"one for each kind of layer ({', '.join(nested)}) is not supported; give one for all layers")
        kind = rope.get("rope_type", rope.get("type", "default"))
        _require(kind in KINDS, f"rope type {kind!r} is not supported; supported: {', '.join(KINDS)}")
        part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        _require(part in (None, 1), f"partial_rotary_factor must be 1 (the whole head is turned), not {part!r}")
        theta = rope.get("rope_theta")
        theta = float(config.get("rope_theta", 10000.0) if theta is None else theta)
        return cls(theta=theta, kind=kind, **_READERS[kind](rope, config))

    def tables(self, num_positions: int, head_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines, float32 [positions, D / 2] each, times the attention factor."""
        angles = np.outer(np.arange(num_positions, dtype=np.float64), self.frequencies(head_size))
        cosines, sines = (f(angles) * self.attention_factor for f in (np.cos, np.sin))
        return cosines.astype(np.float32), sines.astype(np.float32)

    def frequencies(self, head_size: int) -> Angles:
        """Radians a position, float64 [D / 2]."""
        plain: Angles = self.theta ** -(np.arange(0, head_size, 2, dtype=np.float64) / head_size)
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "llama3":
            return self._by_wavelength(plain)
        return self._by_parts(plain, head_size) if self.kind == "yarn" else plain

    def _by_wavelength(self, plain: Angles) -> Angles:
        """Llama 3.1 (arXiv 2407.21783; its reference code): long waves are slowed by the factor, short ones kept, the band
        between them blended by how often a wave fits the trained context."""
        fits = self.trained_context * plain / (2 * math.pi)
        kept = np.clip((fits - self.low_frequency) / (self.high_frequency - self.low_frequency), 0, 1)
        blended: Angles = (1 - kept) * plain / self.factor + kept * plain
        return blended

    def _by_parts(self, plain: Angles, head_size: int) -> Angles:
        """YaRN, "NTK by parts" (Peng et al., arXiv 2309.00071, section 3.2): the ramp runs over channel pairs."""
        low, high = (self._pair_that_turns(turns, head_size) for turns in (self.beta_fast, self.beta_slow))
        if self.is_truncated:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_size - 1)
        high += 0.001 if low == high else 0
        slowed = np.clip((np.arange(head_size // 2) - low) / (high - low), 0, 1)
        mixed: Angles = slowed * plain / self.factor + (1 - slowed) * plain
        return mixed

    def _pair_that_turns(self, turns: float, head_size: int) -> float:
        """The channel pair whose wave fits the trained context ``turns`` times."""
        return head_size * math.log(self.trained_context / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


def _linear(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {"factor": float(rope["factor"])}


def _llama3(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    bands = {"low_frequency": float(rope["low_freq_factor"]), "high_frequency": float(rope["high_freq_factor"])}
    return {"factor": float(rope["factor"]), "trained_context": _trained_context(rope, config), **bands}


def _yarn(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    trained = _trained_context(rope, config)
    factor = rope.get("factor")
    factor = int(config["max_position_embeddings"]) / trained if factor is None else float(factor)
    return {
        "factor": factor,
        "trained_context": trained,
        "beta_fast": float(rope.get("beta_fast") or 32),
        "beta_slow": float(rope.get("beta_slow") or 1),
        "is_truncated": bool(rope.get("truncate", True)),
        "attention_factor": _attention_factor(rope, factor),
    }


_READERS = {"default": lambda rope, config: {}, "linear": _linear, "llama3": _llama3, "yarn": _yarn}


def _trained_context(rope: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The model's own figure: where nothing is said of training, its positions; never a context that a package cuts it to."""
    outer = config.get("original_max_position_embeddings")
    return int(outer or rope.get("original_max_position_embeddings") or config["max_position_embeddings"])


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    """What is turned is also lengthened, so that attention stays as sharp (arXiv 2309.00071, equation 22)."""
    given, scale, scale_all = (rope.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is not None:
        return float(given)
    if scale and scale_all:
        return _lengthened(factor, float(scale)) / _lengthened(factor, float(scale_all))
    return _lengthened(factor, 1.0)


def _lengthened(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise PackageError(f"config.json: rotary positions: {what}")
