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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speculation import noise
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from speculation.truncation import MAX_VOCABULARY_SIZE, at_least, nucleus, top_by_value

# A lead below this many units of logits may be turned round by an engine that is exact only within tolerance: such engines
# were seen to differ by 2e-5 between batch shapes.
NEAR_TIE = 1e-4
# Lower temperatures count as this one: float32 logits divided by it still lie well within float64.
MIN_TEMPERATURE = 1e-30

# Of more tokens than this, those that cannot be first or second are sorted out by rough weights before logarithms are taken.
_SCREENED_FROM = 256
# Rough weights are off by less than this share; smaller ones than that below are not to be compared at all.
_ROUGHNESS = 0.1
_SMALLEST_WEIGHT = 1e-290


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a pass, row by row.

    ``token_ids`` is int64 [R]. ``near_ties`` is bool [R]: the winner leads the runner-up by less than ``NEAR_TIE`` units of
    logits (for sampled rows, the lead in score + noise times the temperature).
    """

    token_ids: NDArray[np.int64]
    near_ties: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The choice of every row and the token behind it, with how sure each is.

    ``token_ids`` is int64 [R, 2]: the choice, and the runner-up by (score + noise descending, id ascending), -1 where only one
    token is left. ``confidences`` is float64 [R, 2]: the softmax of those sums over the tokens left by top-k, top-p and min-p
    (at temperature 0 of the logits), 0 where there is no runner-up. They are for decisions: good to about 0.001.
    """

    token_ids: NDArray[np.int64]
    confidences: NDArray[np.float64]


class _Peak(NamedTuple):
    """The highest logit of a row."""

    token_id: int
    logit: float


@dataclass(frozen=True, slots=True)
class _Left:
    """The tokens of one row that top-k, top-p and min-p leave, with their scores. ``token_ids`` ascend; None is all of them."""

    row: int
    token_ids: NDArray[np.int64] | None
    scores: NDArray[np.float64]
    highest: float
    temperature: float


@dataclass(frozen=True, slots=True)
class _Contest:
    """Those of the tokens left that can be first or second, with score + noise; ``others`` is the weight of the rest.

    Weights are exp(score + noise - ``highest``).
    """

    token_ids: NDArray[np.int64]
    sums: NDArray[np.float64]
    others: float


def choose(
    logits: NDArray[np.float32], positions: Sequence[int] | NDArray[np.int64], parameters: Sequence[SamplingParameters]
) -> Choices:
    """The choice of every row: ``logits`` is float32 [R, V], ``positions`` and ``parameters`` have R elements.

    A row's position is the one that the chosen token will take. The logits are not changed.
    Raises ``EngineError`` when logits are not finite or not float32 [R, V], ``ValueError`` when the lengths differ.
    """
    peaks = _peaks(logits, len(positions), len(parameters))
    token_ids = np.array([peak.token_id for peak in peaks], dtype=np.int64)
    near_ties = np.zeros(len(logits), dtype=np.bool_)
    sampled: list[_Left] = []
    for row, (peak, asked) in enumerate(zip(peaks, parameters, strict=True)):
        if asked.temperature == 0:
            near_ties[row] = peak.logit - _second(logits[row], peak).logit < NEAR_TIE
        else:
            sampled.append(_left(row, logits[row], peak.logit, asked))
    for left, contest in _contests(sampled, positions, parameters):
        sums = contest.sums
        winner = int(sums.argmax())
        token_ids[left.row] = contest.token_ids[winner]
        near_ties[left.row] = np.count_nonzero((sums[winner] - sums) * left.temperature < NEAR_TIE) > 1
    return Choices(token_ids, near_ties)


def choose_two(
    logits: NDArray[np.float32], positions: Sequence[int] | NDArray[np.int64], parameters: Sequence[SamplingParameters]
) -> Ranked:
    """The choice of every row (the same as ``choose``), its runner-up, and the confidence in both: for who drafts.

    Arguments and errors as for ``choose``.
    """
    peaks = _peaks(logits, len(positions), len(parameters))
    token_ids = np.full((len(logits), 2), -1, dtype=np.int64)
    confidences = np.zeros((len(logits), 2))
    sampled: list[_Left] = []
    for row, (peak, asked) in enumerate(zip(peaks, parameters, strict=True)):
        if asked.temperature == 0:
            second = _second(logits[row], peak)
            total = float(np.exp(logits[row] - np.float64(peak.logit)).sum())
            token_ids[row] = peak.token_id, second.token_id
            confidences[row] = 1 / total, math.exp(second.logit - peak.logit) / total
        else:
            sampled.append(_left(row, logits[row], peak.logit, asked))
    for left, contest in _contests(sampled, positions, parameters):
        _rank(left, contest, token_ids[left.row], confidences[left.row])
    return Ranked(token_ids, confidences)


def _rank(left: _Left, contest: _Contest, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
    """Write a row's first and second with their confidences; the sums are used up."""
    sums = contest.sums
    first = int(sums.argmax())
    weights = np.exp(sums - left.highest)
    total = float(weights.sum()) + contest.others
    token_ids[0], confidences[0] = contest.token_ids[first], weights[first] / total
    if len(sums) > 1:
        sums[first] = -np.inf
        second = int(sums.argmax())
        token_ids[1], confidences[1] = contest.token_ids[second], weights[second] / total


def _peaks(logits: NDArray[np.float32], num_positions: int, num_parameters: int) -> list[_Peak]:
    """Each row's highest logit. Raises as ``choose`` says.

    A NaN anywhere shows as the highest and as the lowest, so two looks find all that is wrong.
    """
    _require_shape(logits, num_positions, num_parameters)
    peaks = []
    for number, row in enumerate(logits):
        best = int(row.argmax())
        peak, low = row.item(best), row.item(int(row.argmin()))
        if not (math.isfinite(peak) and math.isfinite(low)):
            raise EngineError(f"row {number} of the logits is not finite (highest {peak}, lowest {low})")
        peaks.append(_Peak(best, peak))
    return peaks


def _second(row: NDArray[np.float32], peak: _Peak) -> _Peak:
    """The highest logit but the highest; token -1 with no chance where there is no other."""
    if len(row) == 1:
        return _Peak(-1, -math.inf)
    others = row.copy()
    others[peak.token_id] = -np.inf
    second = int(others.argmax())
    return _Peak(second, others.item(second))


def _require_shape(logits: NDArray[np.float32], num_positions: int, num_parameters: int) -> None:
    if logits.ndim != 2 or logits.dtype != np.float32 or not 0 < logits.shape[1] <= MAX_VOCABULARY_SIZE:
        wanted = f"float32 [rows, vocabulary of 1 to {MAX_VOCABULARY_SIZE}]"
        raise EngineError(f"logits must be {wanted}, not {logits.dtype} {list(logits.shape)}")
    if not len(logits) == num_positions == num_parameters:
        raise ValueError(
            f"{len(logits)} rows of logits, {num_positions} positions, {num_parameters} parameters: not one for each row"
        )


def _left(row: int, logits: NDArray[np.float32], peak: float, asked: SamplingParameters) -> _Left:
    """Top-k, then top-p, then min-p."""
    temperature = max(asked.temperature, MIN_TEMPERATURE)
    highest = peak / temperature
    token_ids: NDArray[np.int64] | None = None
    if 0 < asked.top_k < len(logits):
        token_ids = top_by_value(logits, asked.top_k)
        logits = logits[token_ids]
    scores = logits / np.float64(temperature)
    if asked.top_p < 1:
        kept = nucleus(scores, highest, asked.top_p)
        token_ids, scores = kept if token_ids is None else token_ids[kept], scores[kept]
    if asked.min_p > 0:
        kept = at_least(scores, highest, asked.min_p)
        token_ids, scores = kept if token_ids is None else token_ids[kept], scores[kept]
    return _Left(row, token_ids, scores, highest, temperature)


def _contests(
    rows: Sequence[_Left], positions: Sequence[int] | NDArray[np.int64], parameters: Sequence[SamplingParameters]
) -> Iterator[tuple[_Left, _Contest]]:
    """Give each row its noise: rows with few tokens left share one call, the others are screened one by one."""
    short = [left for left in rows if len(left.scores) <= _SCREENED_FROM]
    for left in rows:
        if len(left.scores) > _SCREENED_FROM:
            yield left, _screened(left, int(positions[left.row]), parameters[left.row].seed)
    names = [np.arange(len(left.scores)) if left.token_ids is None else left.token_ids for left in short]
    if len(short) == 1:
        left, token_ids = short[0], names[0]
        drawn = noise.bits_of_tokens(parameters[left.row].seed, int(positions[left.row]), token_ids)
        yield left, _Contest(token_ids, left.scores + noise.gumbel_of(drawn), 0.0)
    elif short:
        yield from _pooled(short, names, positions, parameters)


def _pooled(
    rows: Sequence[_Left],
    names: Sequence[NDArray[np.int64]],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
) -> Iterator[tuple[_Left, _Contest]]:
    """Contests of several short rows, whose noise is drawn in one call; ``names`` are their token ids."""
    seeds = np.array([parameters[left.row].seed for left in rows], dtype=np.uint64)
    places = np.array([positions[left.row] for left in rows], dtype=np.int64)
    counts = [len(left.scores) for left in rows]
    drawn = noise.gumbel(np.repeat(seeds, counts), np.repeat(places, counts), np.concatenate(names))
    end = 0
    for left, token_ids, count in zip(rows, names, counts, strict=True):
        start, end = end, end + count
        yield left, _Contest(token_ids, left.scores + drawn[start:end], 0.0)


def _screened(left: _Left, position: int, seed: int) -> _Contest:
    """The tokens whose rough weight comes near the second highest, and those whose noise is too large to be told roughly.

    Whether the winner's lead is a near tie, the runner-up alone decides. Rough weights are exp(score) / -log(u), in single
    precision where that is enough.
    """
    scores, token_ids = left.scores, left.token_ids
    if token_ids is None:
        drawn = noise.bits_of_row(seed, position, len(scores))
    else:
        drawn = noise.bits_of_tokens(seed, position, token_ids)
    weights = np.exp(scores - left.highest)
    weights /= noise.rough_odds(drawn)
    first = int(weights.argmax())
    highest, weights[first] = weights[first], 0.0
    second, weights[first] = weights.max(), highest
    floor = second * (1 - _ROUGHNESS) if second > _SMALLEST_WEIGHT else 0.0
    near = ((weights >= floor) | (drawn >= noise.SURE_BITS)).nonzero()[0]
    sums = scores[near] + noise.gumbel_of(drawn[near])
    others = float(weights.sum() - weights[near].sum())
    return _Contest(near if token_ids is None else token_ids[near], sums, max(0.0, others))
