"""``speculation.contest``: the tokens of one row with the highest sums of score and noise.

Nothing is screened by rough weights. A few tokens of high logits give a sum that the first ones must reach; by how far a
token's logit lies behind the highest, a table tells which raw bits can take it there, and of those alone logarithms are taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.jit import compiled
from speculation.compiled.noise import NUM_STEPS, STEPS_A_UNIT, bits_of, fill, gumbel_of, odds_of, set_bars
from speculation.compiled.scan import STRETCH, seen
from speculation.compiled.truncation import Row, TokenIds
from speculation.compiled.weights import weigh

# So many tokens near the highest give the first bound; after so many exact sums there is a better one.
_FIRST, _AGAIN = 16, 64
_NEAR = 2.0
# Where fewer than one in so many tokens are left, the bits of each are drawn alone.
_SPARSE = 8
# Tokens farther behind than this are looked at only where their bits could take them from there.
_FAR_STEP = 24

Sums = NDArray[np.float64]
Bits = NDArray[np.uint32]


@compiled
def contest_of_all(
    row: Row,
    peak: np.float32,
    temperature: float,
    position: np.uint64,
    seed: np.uint64,
    wants_total: bool,
    sums: Sums,
    token_ids: TokenIds,
) -> float:
    """Fills in the highest ``sums`` and their ``token_ids``, -inf and -1 where no more tokens are there.

    ``peak`` is the highest logit. Returns the sum of exp(score + noise - ``peak``'s score), where that is wanted.
    """
    highest, total, num_exact = np.float64(peak) / temperature, 0.0, 0
    bars, drawn, weights = np.empty(NUM_STEPS, np.uint64), np.empty(STRETCH, np.uint32), np.empty(STRETCH)
    ids, flags = np.empty(STRETCH, np.int64), np.zeros(STRETCH, np.uint8)
    near = peak - np.float32(_NEAR * temperature)
    found = 0
    sums[:] = -np.inf
    for v in range(len(row)):
        if row[v] >= near:
            insert(sums, token_ids, np.float64(row[v]) / temperature + gumbel_of(bits_of(v, position, seed)), v)
            found += 1
            if found == _FIRST:
                break
    set_bars(bars, sums[-1], highest)
    sums[:] = -np.inf
    token_ids[:] = -1
    least = peak - np.float32(_FAR_STEP / STEPS_A_UNIT * temperature)
    for start in range(0, len(row), STRETCH):
        part = row[start : start + STRETCH]
        fill(drawn[: (len(part) + 3) // 4 * 4], start, position, seed)
        if wants_total:
            weigh(part, highest, temperature, weights[: len(part)])
            for i in range(len(part)):
                total += weights[i] / odds_of(np.uint64(drawn[i]))
        size = _worth_a_look(part, least, drawn, bars[_FAR_STEP], flags, ids)
        num_exact = _consider(part, ids[:size], drawn, start, peak, temperature, highest, bars, num_exact, sums, token_ids)
    return total


@compiled
def contest_of(
    row: Row,
    kept: TokenIds,
    peak: np.float32,
    temperature: float,
    position: np.uint64,
    seed: np.uint64,
    wants_total: bool,
    sums: Sums,
    token_ids: TokenIds,
) -> float:
    """``contest_of_all`` among the tokens ``kept``, ascending, of which there may be few."""
    sums[:] = -np.inf
    token_ids[:] = -1
    weights, total, place = np.empty(len(kept) if wants_total else 0), 0.0, 0
    if wants_total:
        weigh(row[kept], np.float64(peak) / temperature, temperature, weights)
    drawn = np.empty(STRETCH, np.uint32)
    while place < len(kept):
        start = kept[place] // STRETCH * STRETCH
        end = place + np.searchsorted(kept[place : place + STRETCH], start + STRETCH)
        is_dense = (end - place) * _SPARSE >= STRETCH
        if is_dense:
            fill(drawn[: (kept[end - 1] - start) // 4 * 4 + 4], start, position, seed)
        for i in range(place, end):
            v = kept[i]
            bits = np.uint64(drawn[v - start]) if is_dense else bits_of(v, position, seed)
            if wants_total:
                total += weights[i] / odds_of(bits)
            insert(sums, token_ids, np.float64(row[v]) / temperature + gumbel_of(bits), v)
        place = end
    return total


@compiled
def insert(sums: Sums, token_ids: TokenIds, total: float, token_id: int) -> None:
    """Put a sum to its place among the highest, if it is one of them. Of equal ones the first stays before."""
    place = len(sums) - 1
    if not total > sums[place]:
        return
    while place > 0 and sums[place - 1] < total:
        sums[place], token_ids[place] = sums[place - 1], token_ids[place - 1]
        place -= 1
    sums[place], token_ids[place] = total, token_id


@compiled
def _worth_a_look(
    part: Row, least: np.float32, drawn: Bits, bar: np.uint64, flags: NDArray[np.uint8], places: NDArray[np.int64]
) -> int:
    """Writes the places of the tokens with a logit of ``least`` or bits of ``bar``; tells how many they are."""
    lowest = np.uint32(bar)
    for i in range(len(part)):
        flags[i] = np.uint8(part[i] >= least) | np.uint8(drawn[i] >= lowest)
    return seen(flags, len(part), 0, places, 0)


@compiled
def _consider(
    part: Row,
    places: NDArray[np.int64],
    drawn: Bits,
    start: int,
    peak: np.float32,
    temperature: float,
    highest: float,
    bars: NDArray[np.uint64],
    num_exact: int,
    sums: Sums,
    token_ids: TokenIds,
) -> int:
    """Take the sums of those tokens of a row's ``part``, which begins at ``start``, whose bits can reach the bound. Returns how
    many sums were taken in all; every ``_AGAIN`` of them the bound is set anew."""
    a_unit = np.float32(STEPS_A_UNIT / temperature)
    for i in places:
        step = int(min((peak - part[i]) * a_unit, np.float32(NUM_STEPS - 1)))
        if np.uint64(drawn[i]) >= bars[step]:
            insert(sums, token_ids, np.float64(part[i]) / temperature + gumbel_of(np.uint64(drawn[i])), start + i)
            num_exact += 1
            if num_exact % _AGAIN == 0:
                set_bars(bars, sums[-1], highest)
    return num_exact
