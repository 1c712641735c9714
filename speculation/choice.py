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

# Of more tokens than this, those that cannot be among the first are sorted out by rough weights before logarithms are taken.
_SCREENED_FROM = 256
# Rough weights are off by less than this share; smaller ones than that below are not to be compared at all.
_ROUGHNESS = 0.1
_SMALLEST_WEIGHT = 1e-290
# Tokens this far behind the highest score are looked at only where their noise is large enough: the first distance at which
# no more than this share of a row is nearer. Where both are too many the row is screened by rough weights instead.
_FAR = (14.0, 8.0)
_NEAR_SHARE = 1 / 8
# Far tokens are weighed in single precision, and count as this far behind where they are farther.
_MOST_BEHIND, _LOWEST = 80.0, float(np.finfo(np.float32).min)
# A choice needs its runner-up too: whether its lead is a near tie.
_FOR_THE_CHOICE = 2


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
    """The choice of every row and the tokens behind it, with how sure each is.

    ``token_ids`` is int64 [R, count]: the choice, then those behind it by (score + noise descending, id ascending), -1 where no
    more are left. ``confidences`` is float64 [R, count]: the softmax of those sums over the tokens left by top-k, top-p and
    min-p (at temperature 0 of the logits), 0 where there is no token. They are for decisions: good to about 0.001.
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
    """Those of the tokens left that can be among the first, with score + noise; ``others`` is the weight of the rest.

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
            near_ties[row] = any(peak.logit - other.logit < NEAR_TIE for other in _behind(logits[row], peak, 1))
        else:
            sampled.append(_left(row, logits[row], peak.logit, asked))
    for left, contest in _contests(sampled, positions, parameters, _FOR_THE_CHOICE, wants_others=False):
        sums = contest.sums
        winner = int(sums.argmax())
        token_ids[left.row] = contest.token_ids[winner]
        near_ties[left.row] = np.count_nonzero((sums[winner] - sums) * left.temperature < NEAR_TIE) > 1
    return Choices(token_ids, near_ties)


def choose_ranked(
    logits: NDArray[np.float32],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
    count: int,
) -> Ranked:
    """The first ``count`` tokens of every row, the choice (the same as ``choose``) before all, and the confidence in each.

    For who drafts. The other arguments and errors as for ``choose``; ``ValueError`` for a count below 1.
    """
    if count < 1:
        raise ValueError(f"the choice is the first of those asked for: count must be at least 1, not {count}")
    peaks = _peaks(logits, len(positions), len(parameters))
    token_ids = np.full((len(logits), count), -1, dtype=np.int64)
    confidences = np.zeros((len(logits), count))
    sampled: list[_Left] = []
    for row, (peak, asked) in enumerate(zip(peaks, parameters, strict=True)):
        if asked.temperature == 0:
            _rank_greedy(logits[row], peak, token_ids[row], confidences[row])
        else:
            sampled.append(_left(row, logits[row], peak.logit, asked))
    for left, contest in _contests(sampled, positions, parameters, count):
        _rank(left, contest, token_ids[left.row], confidences[left.row])
    return Ranked(token_ids, confidences)


def _rank_greedy(row: NDArray[np.float32], peak: _Peak, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
    """Write the tokens of the highest logits with their confidences."""
    total = _total_weight(row, peak.logit)
    for place, found in enumerate([peak, *_behind(row, peak, len(token_ids) - 1)]):
        token_ids[place], confidences[place] = found.token_id, math.exp(found.logit - peak.logit) / total


def _total_weight(row: NDArray[np.float32], peak: float) -> float:
    """The sum of exp(logit - ``peak``), of the far ones in single precision: off by a millionth of them at most."""
    # Cut off first, for what lies behind may be more than single precision can hold.
    behind = np.maximum(row, np.float32(max(peak - _MOST_BEHIND, _LOWEST)))
    behind -= np.float32(peak)
    near = (behind > -_FAR[-1]).nonzero()[0]
    behind[near] = -_MOST_BEHIND
    far = float(np.exp(behind, out=behind).sum())
    return float(np.exp(row[near] - np.float64(peak)).sum()) + far


def _rank(left: _Left, contest: _Contest, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
    """Write a row's first tokens with their confidences; the sums are used up."""
    sums = contest.sums
    weights = np.exp(sums - left.highest)
    total = float(weights.sum()) + contest.others
    for place in range(min(len(token_ids), len(sums))):
        best = int(sums.argmax())
        sums[best] = -np.inf
        token_ids[place], confidences[place] = contest.token_ids[best], weights[best] / total


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


def _behind(row: NDArray[np.float32], peak: _Peak, count: int) -> Iterator[_Peak]:
    """The highest logits but the highest, in order; fewer than ``count`` where no more tokens are there."""
    if count < 1:
        return
    others, best = row.copy(), peak.token_id
    for _ in range(min(count, len(row) - 1)):
        others[best] = -np.inf
        best = int(others.argmax())
        yield _Peak(best, others.item(best))


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
    rows: Sequence[_Left],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
    count: int,
    wants_others: bool = True,
) -> Iterator[tuple[_Left, _Contest]]:
    """Give each row its noise: rows with few tokens left share one call, the others are screened one by one.

    The first ``count`` tokens of a row are in its contest. What the others weigh is told only where it is wanted.
    """
    short = [left for left in rows if len(left.scores) <= _SCREENED_FROM]
    for left in rows:
        if len(left.scores) > _SCREENED_FROM:
            drawn = _drawn(left, int(positions[left.row]), parameters[left.row].seed)
            yield left, _foremost(left, drawn, count, wants_others) or _screened(left, drawn, count)
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


def _drawn(left: _Left, position: int, seed: int) -> NDArray[np.uint32]:
    """The raw bits of every token left."""
    if left.token_ids is None:
        return noise.bits_of_row(seed, position, len(left.scores))
    return noise.bits_of_tokens(seed, position, left.token_ids)


def _foremost(left: _Left, drawn: NDArray[np.uint32], count: int, wants_others: bool) -> _Contest | None:
    """The tokens of high scores, and of the others those whose noise may take them past place ``count`` of these.

    None where no few tokens stand out by their scores.
    """
    scores = left.scores
    for bar in (left.highest - far for far in _FAR):
        near = (scores >= bar).nonzero()[0]
        if len(near) <= _NEAR_SHARE * len(scores):
            break
    if not count <= len(near) <= _NEAR_SHARE * len(scores):
        return None
    sums = scores[near] + noise.gumbel_of(drawn[near])
    least = float(np.partition(sums, len(sums) - count)[len(sums) - count])
    lucky = (drawn >= noise.least_bits(least - bar)).nonzero()[0]
    lucky = lucky[scores[lucky] < bar]
    if len(lucky):
        near = np.concatenate((near, lucky))
        order = near.argsort()
        near, sums = near[order], np.concatenate((sums, scores[lucky] + noise.gumbel_of(drawn[lucky])))[order]
    others = _rest(left, drawn, near) if wants_others else 0.0
    return _Contest(near if left.token_ids is None else left.token_ids[near], sums, others)


def _rest(left: _Left, drawn: NDArray[np.uint32], near: NDArray[np.int64]) -> float:
    """About what all tokens but those weigh."""
    distances = left.scores - left.highest
    distances[near] = -_MOST_BEHIND
    # In place: fresh memory for each of these costs more than the arithmetic.
    behind = np.maximum(distances, -_MOST_BEHIND, out=distances).astype(np.float32)
    weights = np.exp(behind, out=behind)
    weights /= noise.rough_odds(drawn)
    return float(weights.sum())


def _screened(left: _Left, drawn: NDArray[np.uint32], count: int) -> _Contest:
    """The tokens whose rough weight comes near that of place ``count``, and those whose noise is too large to be told roughly.

    Rough weights are exp(score) / -log(u), in single precision where that is enough.
    """
    scores, token_ids = left.scores, left.token_ids
    weights = np.exp(scores - left.highest)
    weights /= noise.rough_odds(drawn)
    least = _weight_at(weights, count)
    floor = least * (1 - _ROUGHNESS) if least > _SMALLEST_WEIGHT else 0.0
    near = ((weights >= floor) | (drawn >= noise.SURE_BITS)).nonzero()[0]
    sums = scores[near] + noise.gumbel_of(drawn[near])
    others = float(weights.sum() - weights[near].sum())
    return _Contest(near if token_ids is None else token_ids[near], sums, max(0.0, others))


def _weight_at(weights: NDArray[np.float64], place: int) -> float:
    """The highest weight but ``place`` - 1; a few looks for the highest are quicker than a partition. Nothing is changed."""
    taken: list[tuple[int, float]] = []
    for _ in range(place - 1):
        best = int(weights.argmax())
        taken.append((best, weights.item(best)))
        weights[best] = 0.0
    found = float(weights.max())
    for best, weight in reversed(taken):
        weights[best] = weight
    return found
