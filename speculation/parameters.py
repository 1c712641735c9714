"""What a request asks for: how a token is chosen and when generation ends. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from speculation.errors import InvalidRequestError

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Parameters of the choice at a position; with the position they decide it alone.

    ``temperature`` 0 is plain argmax. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 are off. ``seed`` is unsigned, 64 bits.

    Raises ``InvalidRequestError`` when a value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        is_sane = math.isfinite(self.temperature) and 0 <= self.temperature <= 100
        _require(is_sane, "temperature", "from 0 to 100", self.temperature)
        _require(self.top_k >= 0, "top_k", "0 (off) or a positive number of tokens", self.top_k)
        _require(0 < self.top_p <= 1, "top_p", "over 0 and at most 1", self.top_p)
        _require(0 <= self.min_p < 1, "min_p", "at least 0 and below 1", self.min_p)
        _require(0 <= self.seed <= MAX_SEED, "seed", "from 0 to 2**64 - 1", self.seed)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """What stands where a request names no value of its own: greedy and without a limit, unless a model suggests otherwise.

    ``unused`` are entries of the model's file that would change the text and are not applied, one a text.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int | None = None
    unused: tuple[str, ...] = ()


NO_DEFAULTS = GenerationDefaults()


def _require(holds: bool, name: str, wanted: str, got: object) -> None:
    if not holds:
        raise InvalidRequestError(f"{name} must be {wanted}, not {got}", name)
