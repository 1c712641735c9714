"""``speculation.greedy``: the highest logits of a row, found by their bits.

Turned so that they order as the floats do, bits are whole numbers, of which a processor takes the highest several at a time; of
floats it does not. Steps are loops of their own, for such are done so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.contest import insert
from speculation.compiled.jit import compiled
from speculation.compiled.scan import STRETCH
from speculation.compiled.weights import sum_of, weigh

_ALL_BUT_THE_SIGN = 0x7FFFFFFF
_INFINITY, _MINUS_INFINITY = 0x7F800000, -0x7F800001

Row = NDArray[np.float32]
Heights = NDArray[np.float32]
Orders = NDArray[np.int32]


@compiled
def num_stretches(size: int) -> int:
    """How many of ``STRETCH`` a row has; the last may be shorter."""
    return (size + STRETCH - 1) // STRETCH


@compiled
def survey(row: Row, heights: Heights, orders: Orders) -> bool:
    """Writes the highest logit of each stretch. False, and heights that mean nothing, where a logit is not finite.
    ``orders`` [``STRETCH``] is room to work in."""
    bits, turned = row.view(np.int32), heights.view(np.int32)
    is_finite = True
    for stretch in range(len(heights)):
        part = bits[stretch * STRETCH : (stretch + 1) * STRETCH]
        _turn(part, orders)
        high, low = _highest(orders[: len(part)]), orders[0]
        for i in range(len(part)):
            low = min(low, orders[i])
        if high >= _INFINITY or low <= _MINUS_INFINITY:
            is_finite = False
        turned[stretch] = high
    _turn(turned, turned)
    return is_finite


@compiled
def peak_of(row: Row, heights: Heights) -> int:
    """The token of the highest logit, of equal ones the first. ``heights`` are the row's."""
    stretch = 0
    for i in range(1, len(heights)):
        if heights[i] > heights[stretch]:
            stretch = i
    token_id = stretch * STRETCH
    while row[token_id] != heights[stretch] and token_id < len(row) - 1:  # machine code checks no bounds
        token_id += 1
    return token_id


@compiled
def lead_of(row: Row, heights: Heights, best: int, orders: Orders) -> float:
    """By how much the logit of ``best`` leads the next one; infinite where there is no other. ``orders`` as for ``survey``."""
    own, second = best // STRETCH, np.float32(-np.inf)
    for i in range(len(heights)):
        if i != own:
            second = max(second, heights[i])
    part = row.view(np.int32)[own * STRETCH : (own + 1) * STRETCH]
    _turn(part, orders)
    orders[best - own * STRETCH] = _MINUS_INFINITY
    behind = np.full(1, _highest(orders[: len(part)]), np.int32)
    _turn(behind, behind)
    return np.float64(row[best]) - np.float64(max(second, behind.view(np.float32)[0]))


@compiled
def _turn(bits: Orders, turned: Orders) -> None:
    """Writes bits of floats as whole numbers that order as these do, and such numbers as the bits."""
    for i in range(len(bits)):
        turned[i] = bits[i] ^ ((bits[i] >> 31) & _ALL_BUT_THE_SIGN)


@compiled
def _highest(orders: Orders) -> np.int32:
    high: np.int32 = orders[0]
    for i in range(len(orders)):
        if orders[i] > high:
            high = orders[i]
    return high


@compiled
def rank(
    row: Row,
    heights: Heights,
    sums: NDArray[np.float64],
    token_ids: NDArray[np.int64],
    confidences: NDArray[np.float64],
) -> None:
    """Writes the tokens of the highest logits to ``token_ids``, -1 where no more are there, and the confidence in each."""
    peak, total, weights = np.float64(heights.max()), 0.0, np.empty(STRETCH)
    sums[:] = -np.inf
    token_ids[:] = -1
    for stretch in range(len(heights)):
        part = row[stretch * STRETCH : (stretch + 1) * STRETCH]
        if heights[stretch] > sums[-1]:
            for i in range(len(part)):
                insert(sums, token_ids, np.float64(part[i]), stretch * STRETCH + i)
        weigh(part, peak, 1.0, weights[: len(part)])
        total += sum_of(weights[: len(part)])
    for place in range(len(sums)):
        confidences[place] = math.exp(sums[place] - peak) / total
