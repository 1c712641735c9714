"""``speculation.noise`` of one token or of neighbours: equal bits, logarithms within the rule's 4 units in the last place."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.jit import compiled, inlined
from speculation.noise import GUMBEL_MIN, RULE_WORD

NUM_STEPS, STEPS_A_UNIT = 128, 4.0
"""A token's distance behind the highest score in steps of a quarter; the last step holds all that is farther."""

_WORD, _HALF, _RULE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(RULE_WORD)
_MULTIPLIER_0, _MULTIPLIER_2 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEP_0, _KEY_STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
# How far roundings could take a bound, in units of score, and for each unit of the highest.
_SLACK, _SLACK_A_UNIT = 1e-3, 1e-12

Words = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


@inlined
def _philox(block: np.uint64, low: np.uint64, high: np.uint64, key0: np.uint64, key1: np.uint64) -> Words:
    """Philox4x32-10 of one counter; ``low`` and ``high`` are the position's words, both keys the seed's."""
    c0, c1, c2, c3 = block, low, high, _RULE
    for _ in range(10):
        p0, p2 = _MULTIPLIER_0 * c0, _MULTIPLIER_2 * c2
        c0, c1, c2, c3 = (p2 >> _HALF) ^ c1 ^ key0, p2 & _WORD, (p0 >> _HALF) ^ c3 ^ key1, p0 & _WORD
        key0, key1 = (key0 + _KEY_STEP_0) & _WORD, (key1 + _KEY_STEP_1) & _WORD
    return c0, c1, c2, c3


@compiled
def bits_of(token_id: int, position: np.uint64, seed: np.uint64) -> np.uint64:
    """The raw bits of one token."""
    block = np.uint64(token_id >> 2)
    words, lane = _philox(block, position & _WORD, position >> _HALF, seed & _WORD, seed >> _HALF), token_id & 3
    if lane < 2:
        return words[0] if lane == 0 else words[1]
    return words[2] if lane == 2 else words[3]


@compiled
def fill(drawn: NDArray[np.uint32], start: int, position: np.uint64, seed: np.uint64) -> None:
    """The raw bits of as many tokens as ``drawn`` holds, from ``start`` on; both are multiples of 4."""
    low, high, key0, key1 = position & _WORD, position >> _HALF, seed & _WORD, seed >> _HALF
    first = start >> 2
    for i in range(len(drawn) >> 2):
        words = _philox(np.uint64(first + i), low, high, key0, key1)
        drawn[4 * i], drawn[4 * i + 1], drawn[4 * i + 2], drawn[4 * i + 3] = words


@compiled
def odds_of(bits: np.uint64) -> float:
    """-log(u): noise is its logarithm, negative."""
    return -math.log((bits + 0.5) * 2.0**-32)


@compiled
def gumbel_of(bits: np.uint64) -> float:
    return -math.log(odds_of(bits))


@compiled
def set_bars(bars: NDArray[np.uint64], bound: float, highest: float) -> None:
    """For each step of distance the least bits whose noise could take such a token to ``bound``, or a little less.

    ``bars`` is uint64 [``NUM_STEPS``], ``highest`` the highest score.
    """
    slack = _SLACK + _SLACK_A_UNIT * abs(highest)
    for step in range(NUM_STEPS):
        value = max(bound - highest + step / STEPS_A_UNIT - slack, GUMBEL_MIN)
        bars[step] = np.uint64(max(0.0, math.floor(2.0**32 * math.exp(-math.exp(-value))) - 2.0))
