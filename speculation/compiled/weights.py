"""What tokens weigh: exponentials of basic operations, which a processor does several at a time, within the rule's 4 units in
the last place."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.jit import compiled, reordered
from speculation.truncation import WEIGHT_UNIT

# ln 2 in two parts, of which the first times a whole number is exact (W. J. Cody, W. Waite, "Software Manual for the
# Elementary Functions", 1980); 1/i! of Taylor's series, whose rest is below 4e-18 for half of ln 2.
_LN2_HIGH, _LN2_LOW, _A_LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1 / math.log(2)
_T2, _T3, _T4, _T5, _T6, _T7, _T8, _T9, _T10, _T11, _T12, _T13 = (1 / math.factorial(i) for i in range(2, 14))
# Added to a number it leaves the nearest whole one in the last bits.
_ROUNDS = 1.5 * 2.0**52
_EXPONENT_BITS, _EXPONENT_OF_1 = np.int64(52), np.int64(1023 << 52)
# Weights so far behind are as good as 0, and still normal numbers.
_FARTHEST = 700.0
_AT_ONCE = 512


@compiled
def weigh(logits: NDArray[np.float32], highest: float, temperature: float, weights: NDArray[np.float64]) -> None:
    """Writes exp(score - ``highest``) of each logit."""
    powers, wholes = np.empty(_AT_ONCE), np.empty(_AT_ONCE)
    for start in range(0, len(logits), _AT_ONCE):
        part = logits[start : start + _AT_ONCE]
        _weigh_few(part, highest, temperature, weights[start : start + _AT_ONCE], powers[: len(part)], wholes[: len(part)])


@compiled
def make_whole(weights: NDArray[np.float64]) -> None:
    """The same in units of 2^-32, rounded."""
    for i in range(len(weights)):
        weights[i] = np.rint(weights[i] * WEIGHT_UNIT)


@compiled
def whole_weight(logits: NDArray[np.float32], highest: float, temperature: float) -> float:
    """What all of them weigh in whole numbers, which add exactly in any order."""
    weights, powers, wholes, total = np.empty(_AT_ONCE), np.empty(_AT_ONCE), np.empty(_AT_ONCE), 0.0
    for start in range(0, len(logits), _AT_ONCE):
        part = logits[start : start + _AT_ONCE]
        size = len(part)
        _weigh_few(part, highest, temperature, weights[:size], powers[:size], wholes[:size])
        make_whole(weights[:size])
        total += sum_of(weights[:size])
    return total


@compiled
def _weigh_few(
    logits: NDArray[np.float32],
    highest: float,
    temperature: float,
    weights: NDArray[np.float64],
    powers: NDArray[np.float64],
    wholes: NDArray[np.float64],
) -> None:
    """Loops of one step each, for such are done several at a time. The last two are written over."""
    for i in range(len(logits)):
        weights[i] = min(highest - np.float64(logits[i]) / temperature, _FARTHEST)
        wholes[i] = weights[i] * _A_LN2 + _ROUNDS
    power_bits, whole_bits = powers.view(np.int64), wholes.view(np.int64)
    for i in range(len(logits)):
        power_bits[i] = _EXPONENT_OF_1 - (whole_bits[i] << _EXPONENT_BITS)
    for i in range(len(logits)):
        whole = wholes[i] - _ROUNDS
        x = (whole * _LN2_HIGH - weights[i]) + whole * _LN2_LOW
        series = ((((_T13 * x + _T12) * x + _T11) * x + _T10) * x + _T9) * x + _T8
        series = (((((series * x + _T7) * x + _T6) * x + _T5) * x + _T4) * x + _T3) * x + _T2
        weights[i] = (series * x * x + x + 1.0) * powers[i]


@reordered
def sum_of(weights: NDArray[np.float64]) -> float:
    """In any order: exact for whole numbers, up to 2^53 altogether, and good to the last digits for others."""
    total = 0.0
    for weight in weights:
        total += weight
    return total
