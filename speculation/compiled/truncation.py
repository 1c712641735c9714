"""``speculation.truncation``: which tokens of one row top-k, top-p and min-p leave, without sorting a row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.jit import compiled
from speculation.compiled.scan import reaching
from speculation.compiled.weights import make_whole, weigh, whole_weight
from speculation.truncation import WEIGHT_UNIT

_NUM_STEPS = 128
# Fewer than one of so many tokens are few.
_SELDOM = 16
# So few tokens are looked through for each of those that are taken.
_FEW = 24

# Weights below a half are 0.
_LIGHTEST = 0.4
# How far rounding could take a bar of logits, of what it is made of.
_SLACK = 1e-6
_NONE = np.empty(0, np.int64)

Row = NDArray[np.float32]
TokenIds = NDArray[np.int64]


@compiled
def left(row: Row, peak: np.float32, temperature: float, top_k: int, top_p: float, min_p: float) -> TokenIds:
    """The tokens that top-k, then top-p, then min-p leave, ascending; none where nothing is asked for: all are left then.
    ``peak`` is the highest logit."""
    kept = _first_by_count(row, top_k) if 0 < top_k < len(row) else _NONE
    if top_p < 1:
        kept = _first_by_weight(row if len(kept) == 0 else row[kept], kept, peak, temperature, top_p)
    if min_p > 0:
        kept = _at_least(row if len(kept) == 0 else row[kept], kept, peak, temperature, math.log(min_p))
    return kept


@compiled
def _near(logits: Row, peak: np.float32, temperature: float, lead: float) -> TokenIds:
    """The places of all logits whose scores are not farther behind than ``lead``, which is below 0, and of a few that are."""
    bar = np.float64(peak) + lead * temperature
    return reaching(logits, np.float32(bar - _SLACK * (abs(np.float64(peak)) - lead * temperature)))


@compiled
def _named(names: TokenIds, places: TokenIds) -> TokenIds:
    """The token ids at places among some: ``names`` are those of the logits, or empty where those are a row."""
    return places if len(names) == 0 else names[places]


@compiled
def _at_least(logits: Row, names: TokenIds, peak: np.float32, temperature: float, least: float) -> TokenIds:
    highest, places, size = np.float64(peak) / temperature, _near(logits, peak, temperature, least), 0
    for i in places:
        if np.float64(logits[i]) / temperature - highest >= least:
            places[size] = i
            size += 1
    return _named(names, places[:size])


@compiled
def _first_by_count(row: Row, count: int) -> TokenIds:
    """By the least of the first, and how many of them are just there: all above it are among them. A heap finds it where the
    first are few, else they are counted as top-p weighs them."""
    if count * _SELDOM > len(row):
        least, equal = _end_of_beginning(row, np.arange(len(row)), np.ones(len(row)), np.float64(count))
        return _from(row, least, equal)
    first = _highest_of(row, count)
    least, equal = first[0], 0
    for logit in first:
        equal += logit == least
    return _from(row, least, equal)


@compiled
def _from(logits: Row, least: np.float32, equal: int) -> TokenIds:
    """The places above ``least``, and as many as ``equal`` of the first that are just there."""
    places, size = reaching(logits, least), 0
    for i in places:
        if logits[i] == least:
            if equal == 0:
                continue
            equal -= 1
        places[size] = i
        size += 1
    return places[:size]


@compiled
def _highest_of(values: Row, count: int) -> Row:
    """As many of the highest, the least of them first: of those seen so far it stands at the root of a heap."""
    heap = values[:count].copy()
    heap.sort()
    for value in values[count:]:
        if value > heap[0]:
            place, child = 0, 1
            while child < count:
                if child + 1 < count and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[place] = heap[child]
                place, child = child, 2 * child + 1
            heap[place] = value
    return heap


@compiled
def _first_by_weight(logits: Row, names: TokenIds, peak: np.float32, temperature: float, share: float) -> TokenIds:
    highest = np.float64(peak) / temperature
    total = whole_weight(logits, highest, temperature)
    target = share * total
    # Those lighter than an equal share of the rest do not, all together, outweigh the rest: none is in the beginning.
    bar = max((total - target) / len(logits) * (1 - 1e-9), _LIGHTEST)
    places = _near(logits, peak, temperature, math.log(bar / WEIGHT_UNIT))
    heavy, weights = logits[places], np.empty(len(places))
    weigh(heavy, highest, temperature, weights)
    make_whole(weights)
    least, equal = _end_of_beginning(heavy, np.arange(len(heavy)), weights, target)
    return _named(names, places[_from(heavy, least, equal)])


@compiled
def _end_of_beginning(row: Row, ids: TokenIds, weights: NDArray[np.float64], target: float) -> tuple[np.float32, int]:
    """The logit of the last token of the shortest beginning of the order whose weights add up to ``target``, and how many
    tokens of just this logit are in it.

    The order is cut into steps of logits, and the step that holds the end is cut again, until all in it are equal, or few.
    """
    above, sums = 0.0, np.empty(_NUM_STEPS)
    near, near_weights = ids, weights
    while True:
        high, low = _ends(row, near)
        if len(near) <= _FEW or high == low:
            break
        above, step = _step_of(row, near, near_weights, high, low, sums, above, target)
        near, near_weights = _of_step(row, near, near_weights, high, low, step)
    while True:
        equal = 0
        for i in range(len(near)):
            if row[near[i]] == high:
                equal += 1
                above += near_weights[i]
                if above >= target:
                    return high, equal
        following = low
        if high == low:
            return low, equal
        for v in near:
            if row[v] < high:
                following = max(following, row[v])
        high = following


@compiled
def _ends(row: Row, ids: TokenIds) -> tuple[np.float32, np.float32]:
    high, low = row[ids[0]], row[ids[0]]
    for v in ids:
        high, low = max(high, row[v]), min(low, row[v])
    return high, low


@compiled
def _step_of(
    row: Row,
    ids: TokenIds,
    weights: NDArray[np.float64],
    high: np.float32,
    low: np.float32,
    sums: NDArray[np.float64],
    above: float,
    target: float,
) -> tuple[float, int]:
    """What the steps before the one with the end weigh, together with ``above``, and which step that is."""
    a_unit = (_NUM_STEPS - 1) / (np.float64(high) - np.float64(low))
    sums[:] = 0.0
    for i in range(len(ids)):
        sums[int((np.float64(high) - np.float64(row[ids[i]])) * a_unit)] += weights[i]
    step = 0
    while step < _NUM_STEPS - 1 and above + sums[step] < target:
        above += sums[step]
        step += 1
    return above, step


@compiled
def _of_step(
    row: Row, ids: TokenIds, weights: NDArray[np.float64], high: np.float32, low: np.float32, step: int
) -> tuple[TokenIds, NDArray[np.float64]]:
    a_unit, size = (_NUM_STEPS - 1) / (np.float64(high) - np.float64(low)), 0
    for i in range(len(ids)):
        if int((np.float64(high) - np.float64(row[ids[i]])) * a_unit) == step:
            ids[size], weights[size] = ids[i], weights[i]
            size += 1
    return ids[:size], weights[:size]
