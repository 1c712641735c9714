"""Rotary positions and the ways of stretching them, as `config.json` names them: angles per position, as tables.

Su et al., arXiv 2104.09864, turn channel pair ``i`` of a head of size D at position ``p`` by ``p * theta ** (-2 i / D)``
radians. The scalings change these frequencies, and ``yarn`` and ``longrope`` the length of what is turned as well. Tables are
made in float64.

A cache keeps keys that are turned already, so an angle may depend on the position and on nothing else. Where ``transformers``
lets it follow the length of the text so far (``longrope``, ``dynamic``), it follows the context of the package here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.errors import PackageError

KINDS = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")
STRETCHED = ("llama3", "yarn", "longrope", "dynamic")
"""Kinds that ask for the context that the model was trained with before it was stretched."""

ORIGINAL = "original_max_position_embeddings"
"""The entry that says what that context was."""

MAX_CONTEXT = 1 << 30
"""Tokens; far above any model, and what a float holds exactly."""

LEAST, MOST = 1e-6, 1e12
"""What any of the numbers below may be: far beyond any model, and within what keeps angles finite."""

Angles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rotary:
    """How positions are turned. ``trained_context`` (tokens) and what follows it mean something to the kinds that read it;
    ``short_factors`` and ``long_factors`` have an entry for each channel pair of a head."""

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
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        positive = ("theta", "factor", "low_frequency", "high_frequency", "beta_fast", "beta_slow", "attention_factor")
        for name in positive:
            value = getattr(self, name)
            _require(LEAST <= value <= MOST, f"{name} must be from {LEAST} to {MOST}, not {value}")
        _require(self.theta > 1, f"theta must be over 1, not {self.theta}")
        has_context = self.kind not in STRETCHED or 0 < self.trained_context <= MAX_CONTEXT
        _require(has_context, f"{self.kind!r} needs positive {ORIGINAL}, not {self.trained_context}")
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

    def check_head(self, head_size: int) -> None:
        """Raises ``PackageError`` for factors that are not one for each channel pair of a head of this size."""
        for name, factors in (("short_factor", self.short_factors), ("long_factor", self.long_factors)):
            fits = self.kind != "longrope" or len(factors) == head_size // 2
            _require(fits, f"{name} must have {head_size // 2} entries, half of a head of {head_size}, not {len(factors)}")

    def fixed_context(self, num_positions: int) -> int:
        """How many of a model's positions (tokens) are turned alike whatever the text's length."""
        return min(num_positions, self.trained_context) if self.kind in ("longrope", "dynamic") else num_positions

    def longest_context(self, num_positions: int) -> int:
        """The most tokens of a package: ``dynamic`` has other angles behind its fixed context for every length of a text."""
        return self.fixed_context(num_positions) if self.kind == "dynamic" else num_positions

    def note(self, context_length: int) -> str:
        """What a user should know of a package of this context (tokens); empty for kinds that leave nothing open."""
        trained = self.trained_context
        if self.kind == "dynamic":
            return f"dynamic turns plainly up to {trained} tokens, and beyond by the text's length; contexts end there"
        if self.kind != "longrope":
            return ""
        if self._is_long(context_length):
            return f"longrope by long_factor, also in texts of up to {trained} tokens, where transformers takes short_factor"
        return f"longrope by short_factor; a context of over {trained} tokens takes long_factor"

    def tables(
        self, num_positions: int, head_size: int, context_length: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines, float32 [positions, D / 2] each, times the attention factor, for a package of this context."""
        angles = np.outer(np.arange(num_positions, dtype=np.float64), self.frequencies(head_size, context_length))
        cosines, sines = (f(angles) * self.attention_factor for f in (np.cos, np.sin))
        return cosines.astype(np.float32), sines.astype(np.float32)

    def frequencies(self, head_size: int, context_length: int = 0) -> Angles:
        """Radians a position, float64 [D / 2], in a package of this context (tokens).

        ``longrope`` divides that of each pair by a factor that was searched for (Ding et al., arXiv 2402.13753, section 3), of
        one list within the trained context and of another beyond, as in ``transformers``.
        """
        plain: Angles = self.theta ** -(np.arange(0, head_size, 2, dtype=np.float64) / head_size)
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "llama3":
            return self._by_wavelength(plain)
        if self.kind == "longrope":
            return plain / np.array(self.long_factors if self._is_long(context_length) else self.short_factors, np.float64)
        return self._by_parts(plain, head_size) if self.kind == "yarn" else plain

    def _is_long(self, context_length: int) -> bool:
        return context_length > self.trained_context

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


def _longrope(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Scaled by the square root of ``1 + ln(s) / ln(trained)``, where ``s`` is how far the context is stretched (arXiv
    2402.13753, its reference code; ``transformers`` does it within the trained context, too)."""
    is_told = any(entries.get(ORIGINAL) is not None for entries in (rope, config))
    _require(is_told, f"'longrope' needs {ORIGINAL}, where short_factor gives way to long_factor")
    trained = _trained_context(rope, config)
    _require(trained > 1, f"'longrope' needs {ORIGINAL} over 1, not {trained}")
    given, factor = rope.get("attention_factor"), rope.get("factor")
    stretch = int(config["max_position_embeddings"]) / trained if factor is None else float(factor)
    usual = math.sqrt(1 + math.log(stretch) / math.log(trained)) if stretch > 1 else 1.0
    return {
        "factor": stretch,
        "trained_context": trained,
        "attention_factor": usual if given is None else float(given),
        "short_factors": _factors(rope, "short_factor"),
        "long_factors": _factors(rope, "long_factor"),
    }


def _factors(rope: Mapping[str, Any], name: str) -> tuple[float, ...]:
    factors = rope[name]
    are_numbers = isinstance(factors, list) and all(type(factor) in (int, float) for factor in factors)
    _require(are_numbers, f"{name} must be a list of numbers, not {factors!r}")
    strange = [factor for factor in factors if not LEAST <= factor <= MOST]
    _require(not strange, f"{name} must hold numbers from {LEAST} to {MOST}, not {strange[:4]}")
    return tuple(map(float, factors))


def _dynamic(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """``transformers`` counts from ``max_position_embeddings``, other software from the original positions where they are told:
    all agree up to the smaller of the two."""
    trained = min(_trained_context(rope, config), int(config["max_position_embeddings"]))
    return {"factor": float(rope["factor"]), "trained_context": trained}


_READERS = {
    "default": lambda rope, config: {},
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "dynamic": _dynamic,
}


def _trained_context(rope: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The model's own figure: where nothing is said of training, its positions; never a context that a package cuts it to."""
    return int(config.get(ORIGINAL) or rope.get(ORIGINAL) or config["max_position_embeddings"])


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
