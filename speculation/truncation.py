"""Top-k and top-p by partition: which tokens of one row are left. Pure.

Law: both keep a beginning of one order, (value descending, index ascending), and neither sorts more than a few hundred values.
Weights are whole numbers held in float64, so their sums are exact in whatever order they are added: a boundary never depends
on a library's way of summing. ``docs/choice-rule.md`` is the rule in words.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# The heaviest token weighs 2**32; 2**21 of them still add up exactly in float64 (2**53).
WEIGHT_UNIT = 2.0**32
MAX_VOCABULARY_SIZE = 2**21
# A token that trails the best score by more than ln(2**33) = 22.874 rounds to no weight at all.
WEIGHT_SPAN = math.log(2**33) + 1e-3

# So many weights are sorted outright; more are halved by partition first.
_SORTED_AT_MOST = 1024


def top_by_value(values: NDArray[np.floating], count: int) -> NDArray[np.bool_]:
    """Which are the first ``count`` by (value descending, index ascending); ``count`` lies between 1 and their number."""
    boundary = np.partition(values, len(values) - count)[len(values) - count]
    kept: NDArray[np.bool_] = values >= boundary
    excess = int(np.count_nonzero(kept)) - count
    if excess:
        kept[np.flatnonzero(values == boundary)[-excess:]] = False
    return kept


def nucleus(scores: NDArray[np.float64], highest: float, share: float) -> NDArray[np.bool_]:
    """Which tokens are in the shortest beginning of the order whose weight reaches ``share`` (below 1) of the whole.

    ``highest`` is the highest of ``scores`` (ids ascending).
    """
    weights = np.exp(scores - highest)
    weights *= WEIGHT_UNIT
    np.rint(weights, out=weights)
    total = float(weights.sum())
    target = share * total
    boundary, count = _boundary(_heavy(weights, total, target), target)
    kept: NDArray[np.bool_] = weights >= boundary
    excess = int(np.count_nonzero(kept)) - count
    if excess:
        # Tokens at the boundary that weigh the same still have their order: by score, then by id.
        level = np.flatnonzero(weights == boundary)
        kept[level] = top_by_value(scores[level], len(level) - excess)
    return kept


def _heavy(weights: NDArray[np.float64], total: float, target: float) -> NDArray[np.float64]:
    """The weights that can be in the beginning: all those lighter than an equal share of the rest do not outweigh the rest."""
    lightest = (total - target) / len(weights) * (1 - 1e-9)
    return weights[weights >= lightest]


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
    last = int(np.searchsorted(np.cumsum(descending) + above, target))
    return float(descending[last]), count + last + 1
