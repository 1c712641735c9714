"""Places where something is seen, of stretches in which it is seen seldom: eight at a time are passed over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speculation.compiled.jit import compiled

STRETCH = 1024
"""How many places are looked at by one call."""

_EIGHT = 8


@compiled
def seen(flags: NDArray[np.uint8], length: int, start: int, places: NDArray[np.int64], size: int) -> int:
    """Writes where ``flags`` [``STRETCH``] are not 0 among the first ``length``, counted from ``start``, behind the first
    ``size`` of ``places``, which must have room for ``STRETCH`` more. Returns how many there are now."""
    flags[length:] = 0
    for block, found in enumerate(flags.view(np.uint64)):
        if found:
            for i in range(_EIGHT * block, _EIGHT * block + _EIGHT):
                if flags[i]:
                    places[size] = start + i
                    size += 1
    return size


@compiled
def reaching(values: NDArray[np.float32], least: np.float32) -> NDArray[np.int64]:
    """The places of all values of ``least`` or more."""
    flags, places, size = np.empty(STRETCH, np.uint8), np.empty(2 * STRETCH, np.int64), 0
    for start in range(0, len(values), STRETCH):
        part = values[start : start + STRETCH]
        for i in range(len(part)):
            flags[i] = np.uint8(part[i] >= least)
        if size + STRETCH > len(places):
            more = np.empty(2 * len(places), np.int64)
            more[:size] = places[:size]
            places = more
        size = seen(flags, len(part), start, places, size)
    return places[:size]
