"""The sampled choices of a pass: what ``speculation.choice`` calls, once for all rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.contest import Sums, contest_of, contest_of_all
from speculation.compiled.jit import compiled
from speculation.compiled.noise import bits_of, odds_of
from speculation.compiled.truncation import Row, TokenIds, left

Logits = NDArray[np.float32]
Seeds = NDArray[np.uint64]
Numbers = NDArray[np.float64]


@compiled
def choose_runs(
    logits: Logits,
    peaks: NDArray[np.float32],
    runs: NDArray[np.int64],
    seeds: Seeds,
    numbers: Numbers,
    drafted: NDArray[np.int64],
    near_tie: float,
    token_ids: TokenIds,
    near_ties: NDArray[np.bool_],
) -> None:
    """Writes the choices of N runs to ``token_ids`` [R] and ``near_ties`` [R]; rows that no choice leads to stay as they are.

    ``logits`` is [R, V], ``peaks`` [R] holds the highest of each row. A row of ``runs`` [N, 4] is the run's first row, how many
    it has, the position of the first choice, and top-k; one of ``numbers`` [N, 3] temperature, top-p and min-p. ``drafted``
    holds the tokens that the runs' choices are compared with, run after run, each with one behind it that no token is.
    """
    sums, found, draft = np.empty(2), np.empty(2, np.int64), 0
    for number in range(len(runs)):
        first, count, position, top_k = runs[number]
        temperature, top_p, min_p = numbers[number]
        for place in range(count):
            row, at = first + place, np.uint64(position + place)
            _best(logits[row], peaks[row], at, seeds[number], temperature, top_k, top_p, min_p, False, sums, found)
            token_ids[row], near_ties[row] = found[0], (sums[0] - sums[1]) * temperature < near_tie
            if found[0] != drafted[draft + place]:
                break
        draft += count


@compiled
def choose_ranked(
    logits: Logits,
    peaks: NDArray[np.float32],
    places: NDArray[np.int64],
    seeds: Seeds,
    numbers: Numbers,
    token_ids: NDArray[np.int64],
    confidences: NDArray[np.float64],
) -> None:
    """Writes the first tokens of N rows to ``token_ids`` [R, count], and ``confidences`` [R, count] in them.

    A row of ``places`` [N, 3] is the number of the row, the position and top-k. The others as for ``choose_runs``.
    """
    sums = np.empty(token_ids.shape[1])
    for number in range(len(places)):
        row, position, top_k = places[number]
        temperature, top_p, min_p = numbers[number]
        logit, at, seed, found = logits[row], np.uint64(position), seeds[number], token_ids[row]
        total = _best(logit, peaks[row], at, seed, temperature, top_k, top_p, min_p, True, sums, found)
        _tell(logit, peaks[row], at, seed, temperature, total, sums, found, confidences[row])


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
