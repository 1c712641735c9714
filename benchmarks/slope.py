"""How fast something grows: the slope by least squares, with an interval that holds where neighbours are alike. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Slope:
    """Units of y a unit of x, and half the width of its 95 % interval."""

    value: float
    margin: float

    @property
    def holds_zero(self) -> bool:
        return abs(self.value) <= self.margin

    def __str__(self) -> str:
        return f"{self.value:+.1f} ({self.value - self.margin:+.1f} to {self.value + self.margin:+.1f})"


def slope_of(x: Sequence[float], y: Sequence[float], num_lags: int) -> Slope:
    """Least squares; the interval by Newey and West (1987, Econometrica 55, 703): Bartlett's weights over ``num_lags`` samples.

    A wave shorter than the lags widens the interval instead of passing for growth. Raises ``ValueError`` for fewer than three
    samples, or samples of one moment.
    """
    if len(x) < 3 or len(set(x)) == 1:
        raise ValueError("a slope takes three samples, and not all of one moment")
    offsets = np.asarray(x, float) - np.mean(x)
    spread = float(offsets @ offsets)
    value = float(offsets @ np.asarray(y, float)) / spread
    scores = offsets * (np.asarray(y, float) - np.mean(y) - value * offsets)
    variance = float(scores @ scores)
    for lag in range(1, min(num_lags, len(x) - 1) + 1):
        variance += 2 * (1 - lag / (num_lags + 1)) * float(scores[lag:] @ scores[:-lag])
    return Slope(value, NORMAL_95 * max(variance, 0.0) ** 0.5 / spread)
