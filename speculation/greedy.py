"""The highest logits of a row, which greedy choices are. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speculation.contest import FAR, MOST_BEHIND, is_long

_LOWEST = float(np.finfo(np.float32).min)


class Peak(NamedTuple):
    """The highest logit of a row."""

    token_id: int
    logit: float


def is_near(row: NDArray[np.float32], best: int, units: float) -> bool:
    """Whether the highest logit but that of ``best`` is less than so many units behind it; a row with no other has none."""
    if not row.flags.writeable:
        row = row.copy()
    # In place for the moment: a copy of the row costs more than the look.
    highest = row.item(best)
    row[best] = -np.inf
    second = row.item(int(row.argmax()))
    row[best] = highest
    return highest - second < units


def rank(row: NDArray[np.float32], peak: Peak, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
    """Write the tokens of the highest logits with their confidences."""
    total = _total_weight(row, peak.logit)
    for place, found in enumerate([peak, *_behind(row, peak, len(token_ids) - 1)]):
        token_ids[place], confidences[place] = found.token_id, math.exp(found.logit - peak.logit) / total


def _total_weight(row: NDArray[np.float32], peak: float) -> float:
    """The sum of exp(logit - ``peak``), of the far ones in single precision: off by a millionth of them at most."""
    if not is_long(len(row)):
        return float(np.exp(row - np.float64(peak)).sum())
    # Cut off first, for what lies behind may be more than single precision can hold.
    behind = np.maximum(row, np.float32(max(peak - MOST_BEHIND, _LOWEST)))
    behind -= np.float32(peak)
    near = (behind > -FAR[-1]).nonzero()[0]
    behind[near] = -MOST_BEHIND
    far = float(np.exp(behind, out=behind).sum())
    return float(np.exp(row[near] - np.float64(peak)).sum()) + far


def _behind(row: NDArray[np.float32], peak: Peak, count: int) -> Iterator[Peak]:
    """The highest logits but the highest, in order; fewer than ``count`` where no more tokens are there."""
    if count < 1:
        return
    others, best = row.copy(), peak.token_id
    for _ in range(min(count, len(row) - 1)):
        others[best] = -np.inf
        best = int(others.argmax())
        yield Peak(best, others.item(best))
