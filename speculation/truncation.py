"""Top-k, top-p and min-p by partition: which tokens of one row are left. Pure.

Law: all keep a beginning of one order, (score descending, id ascending), and none sorts more than a few hundred values.
Weights are whole numbers held in float64, so their sums are exact in whatever order they are added: a boundary never depends
on a library's way of summing. ``docs/choice-rule.md`` is the rule in words.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64)

# The heaviest token weighs 2**32; 2**21 of them still add up exactly in float64 (2**53).
WEIGHT_UNIT = 2.0**32
MAX_VOCABULARY_SIZE = 2**21

# So many weights are sorted outright; more are halved by partition first.
_SORTED_AT_MOST = 1024
# Of many values, all below the highest ones of enough blocks are left out before the rest is partitioned.
_BLOCKS_A_VALUE, _SHORTEST_BLOCK = 4, 16


def top_by_value(values: NDArray[_Number], count: int) -> NDArray[np.int64]:
    """Indexes, ascending, of the first ``count`` by (value descending, index ascending).

    ``count`` lies between 1 and the number of values.
    """
    near = (values >= _reached(values, count)).nonzero()[0]
    values = values[near]
    boundary = np.partition(values, len(values) - count)[len(values) - count]
    kept = values >= boundary
    excess = int(np.count_nonzero(kept)) - count
    if excess:
        kept[(values == boundary).nonzero()[0][-excess:]] = False
    first: NDArray[np.int64] = near[kept]
    return first


def _reached(values: NDArray[_Number], count: int) -> _Number:
    """A value that at least ``count`` of them reach: so many blocks have a highest one that does."""
    num_blocks = _BLOCKS_A_VALUE * count
    length = len(values) // num_blocks
    if length < _SHORTEST_BLOCK:
        least: _Number = values.min()
        return least
    highest = values[: length * num_blocks].reshape(length, num_blocks).max(axis=0)
    bound: _Number = np.partition(highest, num_blocks - count)[num_blocks - count]
    return bound


def nucleus(scores: NDArray[np.float64], highest: float, share: float) -> NDArray[np.int64]:
    """Indexes, ascending, of the shortest beginning of the order whose weight reaches ``share`` (below 1) of the whole.

    ``highest`` is the highest of ``scores`` (ids ascending).
    """
    weights = np.exp(scores - highest)
    weights *= WEIGHT_UNIT
    np.rint(weights, out=weights)
    total = float(weights.sum())
    target = share * total
    # Those lighter than an equal share of the rest do not, all together, outweigh the rest: none is in the beginning.
    heavy = (weights >= (total - target) / len(weights) * (1 - 1e-9)).nonzero()[0]
    weights = weights[heavy]
    boundary, count = _boundary(weights, target)
    kept = weights >= boundary
    excess = int(np.count_nonzero(kept)) - count
    if excess:
        # Tokens at the boundary that weigh the same still have their order: by score, then by id.
        level = (weights == boundary).nonzero()[0]
        kept[level] = False
        kept[level[top_by_value(scores[heavy[level]], len(level) - excess)]] = True
    return heavy[kept]


def _boundary(weights: NDArray[np.float64], target: float) -> tuple[float, int]:
    """The weight at which the sum in descending order reaches ``target``, and how many weights that takes."""
    above, count = 0.0, 0
    while len(weights) > _SORTED_AT_MOST:
        middle = len(weights) // 2
        parted = np.partition(weights, middle)
        upper = parted[middle:]
        mass = float(upper.sum())
        if above + mass >= target:
            weights = upper
        else:
            above, count, weights = above + mass, count + len(upper), parted[:middle]
    descending = np.sort(weights)[::-1]
    last = int((descending.cumsum() + above).searchsorted(target))
    return float(descending[last]), count + last + 1


def at_least(scores: NDArray[np.float64], highest: float, share: float) -> NDArray[np.int64]:
    """Indexes of the tokens at least ``share`` times as likely as the first."""
    return (scores - highest >= math.log(share)).nonzero()[0]
