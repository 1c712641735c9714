"""The choice: which token stands at a position, given the model's logits there, the parameters and the seed. Pure.

Law: the choice is a function of (logits, parameters, seed, position) and of nothing else; a row chosen in a batch equals the
row chosen alone, bit for bit. Both ends call this one function, so a drafted token is accepted by comparing two numbers.
``docs/choice-rule.md`` is the rule in words. In short, for a temperature over 0:

- score = float64(logit) / temperature; order tokens by (score descending, id ascending);
- keep the first ``top_k``; of these the shortest beginning that holds ``top_p`` of their weight; of these the tokens with at
  least ``min_p`` times the weight of the first;
- take the highest score + noise (``speculation.noise``); ties go to the lowest id.

The coupling of two models by common noise: Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant
speculative decoding", arXiv 2408.07978: the choices agree with probability (1 - TV) / (1 + TV) or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speculation import noise
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from speculation.truncation import MAX_VOCABULARY_SIZE, WEIGHT_SPAN, nucleus, top_by_value

# A lead below this many units of logits may be turned round by an engine that is exact only within tolerance: such engines
# were seen to differ by 2e-5 between batch shapes.
NEAR_TIE = 1e-4
# Lower temperatures count as this one: float32 logits divided by it still lie well within float64.
MIN_TEMPERATURE = 1e-30

# Rows with more candidates than this on average ask for their noise one by one.
_POOLED_ON_AVERAGE = 512
# More tokens than this are screened by their bits; a token so far below the best one (in scores) is deep.
_SCREENED_FROM = 512
_DEEP = 6.0

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a pass, row by row.

    ``token_ids`` is int64 [R]. ``near_ties`` is bool [R]: the winner leads the runner-up by less than ``NEAR_TIE`` units of
    logits (for sampled rows, the lead in score + noise times the temperature).
    """

    token_ids: NDArray[np.int64]
    near_ties: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The tokens of one row that can still win, ids ascending, with their scores."""

    row: int
    token_ids: NDArray[np.int64]
    scores: NDArray[np.float64]


def choose(
    logits: NDArray[np.float32], positions: Sequence[int] | NDArray[np.int64], parameters: Sequence[SamplingParameters]
) -> Choices:
    """The choice of every row: ``logits`` is float32 [R, V], ``positions`` and ``parameters`` have R elements.

    A row's position is the one that the chosen token will take. The logits are not changed.
    Raises ``EngineError`` when logits are not finite or not float32 [R, V], ``ValueError`` when the lengths differ.
    """
    _require_shape(logits, len(positions), len(parameters))
    num_rows = len(logits)
    near_ties = np.zeros(num_rows, dtype=np.bool_)
    if not num_rows:
        return Choices(np.empty(0, dtype=np.int64), near_ties)
    token_ids = logits.argmax(axis=1)
    peaks = _finite_peaks(logits, token_ids)
    contested: list[_Candidates] = []
    for row, asked in enumerate(parameters):
        if asked.temperature == 0:
            near_ties[row] = _is_near_tie(logits[row], peaks[row])
            continue
        candidates = _candidates(row, logits[row], peaks[row], int(token_ids[row]), int(positions[row]), asked)
        if len(candidates.token_ids) > 1:
            contested.append(candidates)
    if contested:
        _settle(contested, positions, parameters, token_ids, near_ties)
    return Choices(token_ids, near_ties)


def _require_shape(logits: NDArray[np.float32], num_positions: int, num_parameters: int) -> None:
    if logits.ndim != 2 or logits.dtype != np.float32 or not 0 < logits.shape[1] <= MAX_VOCABULARY_SIZE:
        wanted = f"float32 [rows, vocabulary of 1 to {MAX_VOCABULARY_SIZE}]"
        raise EngineError(f"logits must be {wanted}, not {logits.dtype} {list(logits.shape)}")
    if not len(logits) == num_positions == num_parameters:
        raise ValueError(
            f"{len(logits)} rows of logits, {num_positions} positions, {num_parameters} parameters: not one for each row"
        )


def _finite_peaks(logits: NDArray[np.float32], best: NDArray[np.int64]) -> list[float]:
    """Each row's highest logit. A NaN anywhere shows as the highest and as the lowest, so two looks find all that is wrong."""
    peaks: list[float] = logits[np.arange(len(logits)), best].tolist()
    lows: list[float] = logits.min(axis=1).tolist()
    for row, (peak, low) in enumerate(zip(peaks, lows, strict=True)):
        if not (math.isfinite(peak) and math.isfinite(low)):
            raise EngineError(f"row {row} of the logits is not finite (highest {peak}, lowest {low})")
    return peaks


def _is_near_tie(row: NDArray[np.float32], peak: float) -> bool:
    """Whether a greedy choice was close: a second logit within ``NEAR_TIE`` of the highest."""
    if np.count_nonzero(row >= _just_below(peak - NEAR_TIE)) == 1:
        return False
    return bool(np.count_nonzero(peak - row.astype(np.float64) < NEAR_TIE) > 1)


def _just_below(bound: float) -> np.float32:
    """A float32 that is not above ``bound``: comparing float32 logits with it loses none that reaches the bound."""
    return np.float32(max(bound - abs(bound) * 2.0**-22, _LOWEST))


def _candidates(
    row: int, logits: NDArray[np.float32], peak: float, best: int, position: int, asked: SamplingParameters
) -> _Candidates:
    """The tokens left by top-k, top-p and min-p that can still win.

    Each filter keeps the upper end of one order, so tokens too low to win may be dropped before them, as long as top-p's sum
    misses no weight.
    """
    temperature = max(asked.temperature, MIN_TEMPERATURE)
    if asked.top_p < 1:
        token_ids = np.flatnonzero(logits >= _just_below(peak - WEIGHT_SPAN * temperature))
    else:
        token_ids = _able_to_win(logits, peak, best, position, asked)
    values = logits[token_ids]
    if 0 < asked.top_k < len(token_ids):
        kept = top_by_value(values, asked.top_k)
        token_ids, values = token_ids[kept], values[kept]
    scores = values / np.float64(temperature)
    highest = peak / temperature
    kept = nucleus(scores, highest, asked.top_p) if asked.top_p < 1 else np.ones(len(scores), dtype=np.bool_)
    if asked.min_p > 0:
        kept &= scores - highest >= math.log(asked.min_p)
    return _Candidates(row, token_ids[kept], scores[kept])


def _able_to_win(
    logits: NDArray[np.float32], peak: float, best: int, position: int, asked: SamplingParameters
) -> NDArray[np.int64]:
    """Ids of tokens whose score with the largest noise there is reaches that of the likeliest token with its own noise.

    (Less ``NEAR_TIE``, so that the runner-up is seen too.) Where many are left and top-k counts none of them, their bits are
    drawn and those dropped that lie deep and whose noise is small, before logarithms are taken.
    """
    temperature = max(asked.temperature, MIN_TEMPERATURE)
    known = noise.gumbel_of_one(asked.seed, position, best)
    span = (noise.GUMBEL_MAX - known) * temperature + NEAR_TIE
    if asked.min_p > 0:
        span = min(span, (1e-3 - math.log(asked.min_p)) * temperature)
    can_win: NDArray[np.bool_] = logits >= _just_below(peak - span)
    if not asked.top_k and np.count_nonzero(can_win) > _SCREENED_FROM:
        deep_noise = known + _DEEP - NEAR_TIE / temperature
        drawn = noise.bits_of_row(asked.seed, position, len(logits))
        can_win &= (drawn >= noise.least_bits(deep_noise)) | (logits >= _just_below(peak - _DEEP * temperature))
    return np.flatnonzero(can_win)


def _settle(
    contested: list[_Candidates],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
    token_ids: NDArray[np.int64],
    near_ties: NDArray[np.bool_],
) -> None:
    """Write the winners of the sampled rows: noise for all their candidates in one call, then the highest sum of each row."""
    counts = [len(candidates.token_ids) for candidates in contested]
    sums = np.concatenate([candidates.scores for candidates in contested]) if len(contested) > 1 else contested[0].scores
    sums += _noise(contested, counts, positions, parameters)
    end = 0
    for candidates, count in zip(contested, counts, strict=True):
        start, end = end, end + count
        part = sums[start:end]
        winner = int(part.argmax())
        temperature = max(parameters[candidates.row].temperature, MIN_TEMPERATURE)
        token_ids[candidates.row] = candidates.token_ids[winner]
        near_ties[candidates.row] = np.count_nonzero((part[winner] - part) * temperature < NEAR_TIE) > 1


def _noise(
    contested: list[_Candidates],
    counts: list[int],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
) -> NDArray[np.float64]:
    """Noise for all candidates, row after row: short rows share one call, long ones are cheaper each in its own."""
    seeds = np.array([parameters[candidates.row].seed for candidates in contested], dtype=np.uint64)
    places = np.array([positions[candidates.row] for candidates in contested], dtype=np.int64)
    if len(contested) == 1 or sum(counts) > _POOLED_ON_AVERAGE * len(contested):
        parts = [noise.gumbel(seeds[i : i + 1], places[i : i + 1], row.token_ids) for i, row in enumerate(contested)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    token_ids = np.concatenate([candidates.token_ids for candidates in contested])
    return noise.gumbel(np.repeat(seeds, counts), np.repeat(places, counts), token_ids)
