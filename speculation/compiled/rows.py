"""The choices of a pass: what ``speculation.choice`` calls, once for all rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.choice import MIN_TEMPERATURE, NEAR_TIE, NOT_CHOSEN
from speculation.compiled.contest import Sums, contest_of, contest_of_all
from speculation.compiled.jit import compiled
from speculation.compiled.memory import real_numbers, whole_numbers
from speculation.compiled.noise import bits_of, odds_of
from speculation.compiled.peaks import lead_of, num_stretches, peak_of, rank, survey
from speculation.compiled.scan import STRETCH
from speculation.compiled.truncation import Row, TokenIds, left

Logits = NDArray[np.float32]


@compiled
def choose_runs(logits: Logits, num_runs: int, whole_at: int, real_at: int) -> bool:
    """The choices of N runs over ``logits`` [R, V]. False where a logit is not finite, also in a row that no choice leads to.

    At ``whole_at`` lie whole numbers: for each run how many rows it has, the position of its first choice, top-k, and the seed
    (its 64 bits); then for each row the token that its choice is compared with, behind those of each run one that no token is;
    then R more. At ``real_at`` for each run temperature, top-p and min-p. The choice of each row is written over the token that
    it is compared with, ``NOT_CHOSEN`` where no choice leads to it, and to the last R whether it is a near tie.
    """
    num_rows, num_asked = len(logits), num_runs * 4
    whole, real = whole_numbers(whole_at, num_asked + 2 * num_rows), real_numbers(real_at, num_runs * 3)
    token_ids, near_ties = whole[num_asked : num_asked + num_rows], whole[num_asked + num_rows :]
    heights, orders = np.empty(num_stretches(logits.shape[1]), np.float32), np.empty(STRETCH, np.int32)
    sums, found, row = np.empty(2), np.empty(2, np.int64), 0
    for number in range(num_runs):
        count, position, top_k, seed = whole[4 * number], whole[4 * number + 1], whole[4 * number + 2], whole[4 * number + 3]
        temperature, top_p, min_p = real[3 * number], real[3 * number + 1], real[3 * number + 2]
        counts = True
        for place in range(count):
            logit = logits[row]
            if not survey(logit, heights, orders):
                return False
            chosen, is_near = NOT_CHOSEN, False
            if counts and temperature == 0:
                chosen = peak_of(logit, heights)
                is_near = lead_of(logit, heights, chosen, orders) < NEAR_TIE
            elif counts:
                warmth, at = max(temperature, MIN_TEMPERATURE), np.uint64(position + place)
                _best(logit, heights.max(), at, np.uint64(seed), warmth, top_k, top_p, min_p, False, sums, found)
                chosen, is_near = int(found[0]), (sums[0] - sums[1]) * warmth < NEAR_TIE
            counts = counts and chosen == token_ids[row]
            token_ids[row], near_ties[row] = chosen, is_near
            row += 1
    return True


@compiled
def choose_ranked(
    logits: Logits, whole_at: int, real_at: int, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]
) -> bool:
    """Writes the first tokens of R rows to ``token_ids`` [R, count], and ``confidences`` [R, count] in them. False where a
    logit is not finite.

    At ``whole_at`` lie position, top-k and seed of each row; the others as for ``choose_runs``, by rows.
    """
    whole, real = whole_numbers(whole_at, 3 * len(logits)), real_numbers(real_at, 3 * len(logits))
    heights, orders = np.empty(num_stretches(logits.shape[1]), np.float32), np.empty(STRETCH, np.int32)
    sums = np.empty(token_ids.shape[1])
    for row in range(len(logits)):
        at, top_k, seed = np.uint64(whole[3 * row]), whole[3 * row + 1], np.uint64(whole[3 * row + 2])
        temperature, top_p, min_p = real[3 * row], real[3 * row + 1], real[3 * row + 2]
        logit, found = logits[row], token_ids[row]
        if not survey(logit, heights, orders):
            return False
        peak = heights.max()
        if temperature == 0:
            rank(logit, heights, sums, found, confidences[row])
        else:
            warmth = max(temperature, MIN_TEMPERATURE)
            total = _best(logit, peak, at, seed, warmth, top_k, top_p, min_p, True, sums, found)
            _tell(logit, peak, at, seed, warmth, total, sums, found, confidences[row])
    return True


@compiled
def _best(
    row: Row,
    peak: np.float32,
    position: np.uint64,
    seed: np.uint64,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    wants_total: bool,
    sums: Sums,
    found: TokenIds,
) -> float:
    """The first tokens with their sums; returns what all that are left weigh, where that is wanted."""
    kept = left(row, peak, temperature, top_k, top_p, min_p)
    if len(kept) == 0:
        return contest_of_all(row, peak, temperature, position, seed, wants_total, sums, found)
    return contest_of(row, kept, peak, temperature, position, seed, wants_total, sums, found)


@compiled
def _tell(
    row: Row,
    peak: np.float32,
    position: np.uint64,
    seed: np.uint64,
    temperature: float,
    total: float,
    sums: Sums,
    found: TokenIds,
    confidences: NDArray[np.float64],
) -> None:
    """The first tokens count by their sums, where noise may be lost in rounding; the others by what they add to ``total``."""
    highest, others, of_these = np.float64(peak) / temperature, total, 0.0
    for place in range(len(sums)):
        if found[place] >= 0:
            lead = np.float64(row[found[place]]) / temperature - highest
            others -= math.exp(lead) / odds_of(bits_of(found[place], position, seed))
            confidences[place] = math.exp(sums[place] - highest)
            of_these += confidences[place]
    confidences /= of_these + max(0.0, others)
