"""Who can win a choice: tokens of a row get their noise, and the few that can be among the first are singled out. Pure.

Law: what is left out could not have been among the first ``count``; sums are those of ``docs/choice-rule.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speculation import noise
from speculation.noise_rows import KEPT

# Of more tokens than this, those that cannot be among the first are sorted out by rough weights before logarithms are taken.
_SCREENED_FROM = 256
# Rough weights are off by less than this share; smaller ones than that below are not to be compared at all.
_ROUGHNESS = 0.1
_SMALLEST_WEIGHT = 1e-290
# Single precision is enough down to this: far more than a token can weigh that was cut off at ``MOST_BEHIND``.
_SMALLEST_SINGLE = 1e-28
# For shorter rows the look at who stands out by score takes as long as it saves.
LONG_ROW = 16_384
# Tokens this far behind the highest score are looked at only where their noise is large enough: the first distance at which
# no more than this share of a row is nearer. Where both are too many the row is screened by rough weights instead.
FAR = (14.0, 8.0)
_NEAR_SHARE = 1 / 8
# Sums of scores larger than this are rounded by more than the bounds here allow for; larger yet, they swallow the noise.
_LARGE = 1e9
# Far tokens are weighed in single precision, and count as this far behind where they are farther.
MOST_BEHIND = 80.0


@dataclass(frozen=True, slots=True)
class Left:
    """The tokens of one row that top-k, top-p and min-p leave, with their scores; ``seed`` and ``position`` are where their
    noise stands. ``token_ids`` ascend; None is all of them."""

    row: int
    seed: int
    position: int
    num_tokens: int
    token_ids: NDArray[np.int64] | None
    scores: NDArray[np.float64]
    highest: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Contest:
    """Those of the tokens left that can be among the first, with score + noise; ``others`` is the weight of the rest.

    Weights are exp(score + noise - ``highest``).
    """

    token_ids: NDArray[np.int64]
    sums: NDArray[np.float64]
    others: float


def is_long(num_tokens: int) -> bool:
    """Whether a row is worth a look at who stands out by score, before all of it is weighed."""
    return num_tokens >= LONG_ROW


def contests(rows: Sequence[Left], count: int, wants_others: bool = True) -> Iterator[tuple[Left, Contest]]:
    """Give each row its noise: rows with few tokens left share one call, the others are screened one by one.

    The first ``count`` tokens of a row are in its contest. What the others weigh is told only where it is wanted.
    """
    short = [left for left in rows if len(left.scores) <= _SCREENED_FROM]
    for left, drawn in _with_bits([left for left in rows if len(left.scores) > _SCREENED_FROM]):
        foremost = _foremost(left, drawn, count, wants_others) if is_long(len(left.scores)) else None
        yield left, foremost or _screened(left, drawn, count)
    names = [np.arange(len(left.scores)) if left.token_ids is None else left.token_ids for left in short]
    if len(short) == 1:
        left, token_ids = short[0], names[0]
        drawn = noise.bits_of_tokens(left.seed, left.position, token_ids)
        yield left, Contest(token_ids, left.scores + noise.gumbel_of(drawn), 0.0)
    elif short:
        yield from _pooled(short, names)


def _pooled(rows: Sequence[Left], names: Sequence[NDArray[np.int64]]) -> Iterator[tuple[Left, Contest]]:
    """Contests of several short rows, whose noise is drawn in one call; ``names`` are their token ids."""
    seeds = np.array([left.seed for left in rows], dtype=np.uint64)
    places = np.array([left.position for left in rows], dtype=np.int64)
    counts = [len(left.scores) for left in rows]
    drawn = noise.gumbel(np.repeat(seeds, counts), np.repeat(places, counts), np.concatenate(names))
    end = 0
    for left, token_ids, count in zip(rows, names, counts, strict=True):
        start, end = end, end + count
        yield left, Contest(token_ids, left.scores + drawn[start:end], 0.0)


def _with_bits(rows: Sequence[Left]) -> Iterator[tuple[Left, NDArray[np.uint32]]]:
    """Rows with the raw bits of every token left; as many at a time as are drawn at once."""
    at_once = noise.rows_at_once(rows[0].num_tokens) if rows else 1
    for start in range(0, len(rows), at_once):
        group = rows[start : start + at_once]
        addresses = [(left.seed, left.position) for left in group]
        for left, drawn in zip(group, KEPT.bits(addresses, group[0].num_tokens), strict=True):
            yield left, drawn if left.token_ids is None else drawn[left.token_ids]


def _foremost(left: Left, drawn: NDArray[np.uint32], count: int, wants_others: bool) -> Contest | None:
    """The tokens of high scores, and of the others those whose noise may take them past place ``count`` of these.

    None where no few tokens stand out by their scores.
    """
    scores = left.scores
    for bar in (left.highest - far for far in FAR):
        near = (scores >= bar).nonzero()[0]
        if len(near) <= _NEAR_SHARE * len(scores):
            break
    if not count <= len(near) <= _NEAR_SHARE * len(scores) or abs(left.highest) > _LARGE:
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
    return Contest(near if left.token_ids is None else left.token_ids[near], sums, others)


def _rest(left: Left, drawn: NDArray[np.uint32], near: NDArray[np.int64]) -> float:
    """About what all tokens but those weigh."""
    distances = left.scores - left.highest
    distances[near] = -MOST_BEHIND
    # In place: fresh memory for each of these costs more than the arithmetic.
    behind = np.maximum(distances, -MOST_BEHIND, out=distances).astype(np.float32)
    weights = np.exp(behind, out=behind)
    weights /= noise.rough_odds(drawn)
    return float(weights.sum())


def _screened(left: Left, drawn: NDArray[np.uint32], count: int) -> Contest:
    """The tokens whose rough weight comes near that of place ``count``, and those whose noise is too large to be told roughly.

    Rough weights are exp(score) / -log(u), in single precision where that is enough.
    """
    scores, token_ids = left.scores, left.token_ids
    odds, distances = noise.rough_odds(drawn), scores - left.highest
    weights = np.exp(np.maximum(distances, -MOST_BEHIND).astype(np.float32))
    weights /= odds
    least = _weight_at(weights, count)
    if least < _SMALLEST_SINGLE:
        weights = np.exp(distances) / odds
        least = _weight_at(weights, count)
    floor = least * (1 - _ROUGHNESS) if least > _SMALLEST_WEIGHT and abs(left.highest) <= _LARGE else 0.0
    near = ((weights >= floor) | (drawn >= noise.SURE_BITS)).nonzero()[0]
    sums = scores[near] + noise.gumbel_of(drawn[near])
    others = float(weights.sum() - weights[near].sum())
    return Contest(near if token_ids is None else token_ids[near], sums, max(0.0, others))


def _weight_at(weights: NDArray[np.float32] | NDArray[np.float64], place: int) -> float:
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
