"""The noise of whole rows of a vocabulary, drawn several at once and kept. Pure: what is kept changes no answer.

Who drafts asks for one position after the other, who verifies for a few in a row, and both ask again: for branches at one
position, for drafts anew behind a correction, for drafts that were there already. Rows that are drawn together cost less than
half (``noise.bits_of_rows``). So where fewer are missing than one call draws, the positions that follow them are drawn, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from speculation import noise

KEPT_BYTES = 2**24
"""Of the rows that were asked for last: 1,000 of 4,096 tokens, 27 of 150,000."""

_Row = NDArray[np.uint32]
_Address = tuple[int, int]


class KeptRows:
    """Rows by address and size, the least recently used forgotten first. Any thread may ask."""

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes, self._num_bytes = limit_bytes, 0
        self._rows: OrderedDict[tuple[_Address, int], _Row] = OrderedDict()
        self._lock = Lock()

    def bits(self, addresses: Sequence[_Address], size: int) -> list[_Row]:
        """The raw bits of token ids 0 to ``size`` - 1 at each (seed, position): uint32 [size] each, not to be written to.

        Raises ``ValueError`` for a position below 0.
        """
        if any(position < 0 for _, position in addresses):
            raise ValueError("positions start at 0")
        with self._lock:
            found = {address: self._find(address, size) for address in addresses}
            missing = [address for address, row in found.items() if row is None]
            if missing:
                found |= self._draw(self._with_followers(missing, size), size)
        return [row for address in addresses if (row := found[address]) is not None]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._num_bytes = 0

    def _find(self, address: _Address, size: int) -> _Row | None:
        row = self._rows.get((address, size))
        if row is not None:
            self._rows.move_to_end((address, size))
        return row

    def _with_followers(self, missing: list[_Address], size: int) -> list[_Address]:
        """Those, and behind the last of each seed as many positions as fill up the call."""
        lasts = dict(missing)
        share = (noise.rows_at_once(size) - len(missing)) // len(lasts)
        followers = [
            (seed, position + step)
            for seed, position in lasts.items()
            for step in range(1, share + 1)
            if position + step <= noise.MAX_POSITION and ((seed, position + step), size) not in self._rows
        ]
        return missing + followers

    def _draw(self, addresses: list[_Address], size: int) -> dict[_Address, _Row]:
        seeds = np.array([seed for seed, _ in addresses], dtype=np.uint64)
        positions = np.array([position for _, position in addresses], dtype=np.int64)
        drawn = {}
        for address, part in zip(addresses, noise.bits_of_rows(seeds, positions, size), strict=True):
            row = part.copy()  # a part would keep all that were drawn with it
            row.flags.writeable = False
            drawn[address] = row
            self._keep(address, row)
        return drawn

    def _keep(self, address: _Address, row: _Row) -> None:
        self._rows[address, len(row)] = row
        self._num_bytes += row.nbytes
        while self._num_bytes > self._limit_bytes and len(self._rows) > 1:
            _, oldest = self._rows.popitem(last=False)
            self._num_bytes -= oldest.nbytes


KEPT = KeptRows()
"""The rows of this process: two agents in one process that share a seed share its noise."""
