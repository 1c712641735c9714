"""The choices of a pass: what ``speculation.choice`` calls, once for all rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.choice import MIN_TEMPERATURE, NEAR_TIE, NOT_CHOSEN
from speculation.compiled.contest import Sums, contest_of, contest_of_all
from speculation.compiled.jit import compiled
from speculation.compiled.noise import bits_of, odds_of
from speculation.compiled.peaks import lead_of, num_stretches, peak_of, rank, survey
from speculation.compiled.truncation import Row, TokenIds, left

Logits = NDArray[np.float32]
Seeds = NDArray[np.uint64]
Numbers = NDArray[np.float64]


@compiled
def choose_runs(
    logits: Logits,
    runs: NDArray[np.int64],
    seeds: Seeds,
    numbers: Numbers,
    drafted: NDArray[np.int64],
    token_ids: NDArray[np.int64],
    near_ties: NDArray[np.bool_],
) -> bool:
    """Writes the choices of N runs to ``token_ids`` [R] and ``near_ties`` [R], ``NOT_CHOSEN`` to rows that no choice leads to.
    False where a logit is not finite, also one of such rows.

    ``logits`` is [R, V]. A row of ``runs`` [N, 3] is how many rows the run has, the position of the first choice, and top-k;
    one of ``numbers`` [N, 3] temperature, top-p and min-p. ``drafted`` [R] holds the tokens that the runs' choices are compared
    with, behind those of each run one that no token is.
    """
    heights, sums, found, row = np.empty(num_stretches(logits.shape[1]), np.float32), np.empty(2), np.empty(2, np.int64), 0
    for number in range(len(runs)):
        count, position, top_k = runs[number]
        temperature, top_p, min_p = numbers[number]
        counts = True
        for place in range(count):
            logit = logits[row]
            if not survey(logit, heights):
                return False
            if not counts:
                token_ids[row], near_ties[row] = NOT_CHOSEN, False
            elif temperature == 0:
                best = peak_of(logit, heights)
                token_ids[row], near_ties[row] = best, lead_of(logit, heights, best) < NEAR_TIE
            else:
                warmth, at = max(temperature, MIN_TEMPERATURE), np.uint64(position + place)
                _best(logit, heights.max(), at, seeds[number], warmth, top_k, top_p, min_p, False, sums, found)
                token_ids[row], near_ties[row] = found[0], (sums[0] - sums[1]) * warmth < NEAR_TIE
            counts = counts and token_ids[row] == drafted[row]
            row += 1
    return True


@compiled
def choose_ranked(
    logits: Logits,
    places: NDArray[np.int64],
    seeds: Seeds,
    numbers: Numbers,
    token_ids: NDArray[np.int64],
    confidences: NDArray[np.float64],
) -> bool:
    """Writes the first tokens of R rows to ``token_ids`` [R, count], and ``confidences`` [R, count] in them. False where a
    logit is not finite.

    A row of ``places`` [R, 2] is the position and top-k. The others as for ``choose_runs``, by rows.
    """
    heights, sums = np.empty(num_stretches(logits.shape[1]), np.float32), np.empty(token_ids.shape[1])
    for row in range(len(logits)):
        position, top_k = places[row]
        temperature, top_p, min_p = numbers[row]
        logit, at, seed, found = logits[row], np.uint64(position), seeds[row], token_ids[row]
        if not survey(logit, heights):
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
