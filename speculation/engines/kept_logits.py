"""Where a pass that wants few rows has its logits written: memory that is never copied, and never taken from who reads it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

LOGITS_KEPT_BOUND = 16
"""Passes that want more rows than this get memory of their own instead of the engine's."""


class KeptLogits:
    """Memory for the logits of a pass that wants few: handed out, and used again once nobody refers to it any more."""

    def __init__(self, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        # No array: what is cut out of rows would refer to that in place of them.
        self._memory = bytearray(LOGITS_KEPT_BOUND * vocabulary_size * np.dtype(np.float32).itemsize)
        self._made: dict[int, tuple[NDArray[np.float32], Any]] = {}
        self._out: NDArray[np.float32] = np.empty((0, vocabulary_size), np.float32)
        self._num_references = sys.getrefcount(self._out)

    def first(self, num_rows: int) -> tuple[NDArray[np.float32], Any] | None:
        """So many rows, and what the runtime knows them as. None where they are more than ``LOGITS_KEPT_BOUND``, and while
        somebody refers to those handed out last, or to a part of them."""
        if num_rows > LOGITS_KEPT_BOUND or sys.getrefcount(self._out) > self._num_references:
            return None
        if num_rows not in self._made:
            rows = np.ndarray((num_rows, self.vocabulary_size), np.float32, self._memory)
            self._made[num_rows] = rows, onnxruntime.OrtValue.ortvalue_from_numpy(rows)
            del rows
        self._out, value = self._made[num_rows]
        self._num_references = sys.getrefcount(self._out)
        return self._out, value
