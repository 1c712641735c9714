"""The arrays of a pass, bound to a session of ONNX Runtime: what stays from pass to pass is bound once."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.cache_pages import CacheType
from speculation.engines.grouping import OUTPUT
from speculation.engines.head_groups import TOKENS_BOUND, GroupedRows, HeadGroups
from speculation.engines.kept_logits import KeptLogits
from speculation.engines.packing import Packing
from speculation.engines.slots import Slot

BIAS_BOUND = 1 << 19
"""Numbers of the bias of a pass; one that would need more has no grouped rows."""
WIDTH_STEP = 64
"""Keys by which the width of the bias grows, so that it is not bound anew for every token."""
_NO_TOKENS = np.zeros(0, np.int64)
_INT64 = _NO_TOKENS.data.format


class Bias:
    """The bias of the node with grouped rows: ``values`` are zeros, but for the keys that are ``hidden`` in the pass at hand,
    spans of a place and a number each. ``zeros`` and ``infinities`` are as many as a span has at most."""

    def __init__(self, groups: HeadGroups, kind: CacheType) -> None:
        self._values = np.zeros(BIAS_BOUND, kind)
        self.values, self.hidden = self._values.data, list[tuple[int, int]]()
        most = groups.heads_each * TOKENS_BOUND
        self.zeros, self.infinities = np.zeros(most, kind).data, np.full(most, -np.inf, kind).data

    def touch(self) -> None:
        """Have all of its memory from now on."""
        self._values.fill(0)
        self.hidden.clear()

    def of(self, batch: int, rows: int, width: int) -> NDArray[Any]:
        """Its beginning as [batch, 1, rows, width]."""
        return self._values[: batch * rows * width].reshape(batch, 1, rows, width)


def bias_width(most_keys: int, capacity: int) -> int:
    """The width of the bias for a pass whose longest cache holds so many keys, those behind the real ones included."""
    return min(most_keys + -most_keys % WIDTH_STEP, capacity)


class Binding:
    """A pool's slots ``[low, high)`` bound to the graph, and the small arrays of the pass bound last; or, where it stays, those
    of one shape of pass. ``bias``: of a graph with grouped rows.
    """

    def __init__(
        self,
        engine_session: Any,
        pools: Mapping[str, NDArray[Any]],
        low: int,
        high: int,
        capacity: int,
        stays: bool,
        bias: Bias | None,
    ) -> None:
        self._stays, self._low, self._size = stays, low, high - low
        self.io = engine_session.io_binding()
        # Views are written to: for a few numbers NumPy's way to an array touches more than a pass does otherwise.
        seqlens_k = np.zeros(self._size, np.int32)
        self._seqlens_k = seqlens_k.data
        self._token_ids = _NO_TOKENS.data
        self._is_half = next(iter(pools.values())).dtype == np.float16
        self._packing: Packing | None = None
        self._logits: Any = None
        # Arrays are bound by what they are: the runtime holds them, and that takes a third of binding their addresses.
        self.io.bind_cpu_input("seqlens_k", seqlens_k)
        self._capacity, self._total = capacity, np.array(capacity, np.int32)
        self.io.bind_cpu_input("total_sequence_length", self._total)
        self._grouped = None if bias is None else _Grouped(self.io, self._size, capacity, bias)
        for name, pool in pools.items():
            part = pool[low:high]
            self.io.bind_cpu_input(f"past_key_values.{name}", part)
            for output in ("present", OUTPUT) if bias is not None else ("present",):
                self.io.bind_output(f"{output}.{name}", "cpu", 0, part.dtype.type, part.shape, part.ctypes.data)

    def prepare(self, packing: Packing, kept: KeptLogits) -> NDArray[np.float32]:
        """Bind what differs from the last pass; the array that will hold the logits comes back, from what is ``kept`` if that
        has the rows."""
        if packing is not self._packing:
            self._bind_rows(packing)
            self._packing, self._logits = packing, None
        num_rows = packing.num_rows
        found = kept.first(num_rows)
        if found is not None:
            logits, value = found
            if self._logits is not value:
                self.io.bind_ortvalue_output("logits", value)
                self._logits = value
            return logits
        self._logits = None
        logits = np.empty((num_rows, kept.vocabulary_size), np.float32)
        self.io.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return logits

    def fill(self, token_ids: Sequence[int], slots: Sequence[Slot]) -> None:
        """The tokens of the pass that is prepared, and where its ``slots`` are now."""
        packing = self._packing
        assert packing is not None
        self._token_ids[: packing.num_tokens] = array(_INT64, token_ids)
        if packing.pad_idx.size:
            self._fill_lengths(packing.rows, slots)
        if self._grouped is not None and packing.grouped is not None and packing.grouped.shares:
            self._grouped.fill(packing.grouped, slots)

    def forget(self) -> None:
        """Hold on to nothing of the last pass, unless it is one that comes again."""
        if self._stays or self._packing is None:
            return
        self._bind_rows(_NO_ROWS)
        self._packing = self._logits = None

    def _fill_lengths(self, rows: Sequence[int], slots: Sequence[Slot]) -> None:
        """Tokens behind this pass minus one. Idle slots have no rows, so that theirs is not looked at beyond being in range."""
        if len(slots) < self._size:
            self._seqlens_k[:] = np.zeros(self._size, np.int32).data
        most_keys = 0
        for slot in slots:
            place = slot.number - self._low
            num_keys = slot.length + rows[place]
            most_keys = max(most_keys, num_keys)
            self._seqlens_k[place] = num_keys - 1
        if self._is_half:  # the scores of all rows are so wide
            self._total[()] = bias_width(most_keys, self._capacity)

    def _bind_rows(self, packing: Packing) -> None:
        input_ids = np.zeros(len(packing.unpad_idx), np.int64)  # fillers are tokens, too
        self._token_ids = input_ids.data
        self.io.bind_cpu_input("input_ids", input_ids)
        self.io.bind_cpu_input("pad_idx", packing.pad_idx)
        self.io.bind_cpu_input("unpad_idx", packing.unpad_idx)
        self.io.bind_cpu_input("out_idx", packing.out_idx)
        self.io.bind_cpu_input("query_seqlens", packing.query_seqlens)
        if self._grouped is not None and packing.grouped is not None:
            self._grouped.bind(packing.grouped)


class _Grouped:
    """What a binding has bound for the node with grouped rows."""

    def __init__(self, io: Any, batch: int, capacity: int, bias: Bias) -> None:
        self._io, self._bias, self._batch, self._capacity = io, bias, batch, capacity
        self._width, self._total = 0, np.array(0, np.int32)
        seqlens_k = np.zeros(batch, np.int32)
        self._seqlens_k, self._positions = seqlens_k.data, _NO_TOKENS.data
        io.bind_cpu_input("grouped_total", self._total)
        io.bind_cpu_input("grouped_seqlens_k", seqlens_k)

    def bind(self, grouped: GroupedRows) -> None:
        positions = np.zeros(self._batch * grouped.most_rows, np.int64)
        self._positions = positions.data
        self._io.bind_cpu_input("grouped_idx", grouped.pieces)
        self._io.bind_cpu_input("grouped_positions", positions.reshape(self._batch, grouped.most_rows))
        self._io.bind_cpu_input("grouped_query_seqlens", grouped.num_rows)
        # Slots without rows keep a length that is within any width.
        self._seqlens_k[:] = np.zeros(self._batch, np.int32).data
        self._widen(grouped.most_rows, bias_width(1, self._capacity))

    def fill(self, grouped: GroupedRows, slots: Sequence[Slot]) -> None:
        most_rows, bias = grouped.most_rows, self._bias
        values, hidden, zeros, infinities = bias.values, bias.hidden, bias.zeros, bias.infinities
        for place, count in hidden:
            values[place : place + count] = zeros[:count]
        hidden.clear()
        longest, positions = 0, self._positions
        for number, _, _ in grouped.shares:
            longest = max(longest, slots[number].length)
        most_keys = longest + most_rows
        if not self._width - WIDTH_STEP < most_keys <= self._width:
            self._widen(most_rows, bias_width(most_keys, self._capacity))
        for number, lane, rows in grouped.shares:
            length, row = slots[number].length, lane * most_rows
            first, width = row * self._width + length, self._width
            for offset in rows.offsets:
                positions[row] = length + offset
                row += 1
            self._seqlens_k[lane] = length + len(rows.offsets) - 1
            for row, column, count in rows.hidden:
                place = first + row * width + column
                values[place : place + count] = infinities[:count]
                hidden.append((place, count))

    def _widen(self, most_rows: int, width: int) -> None:
        self._width = width
        self._total[()] = width
        self._io.bind_cpu_input("grouped_bias", self._bias.of(self._batch, most_rows, width))


_NO_COUNTS, _NO_PLACES = np.zeros(0, np.int32), np.zeros((0, 0), np.int64)
_NO_GROUPED_ROWS = GroupedRows(0, (), np.zeros((0, 0, 0), np.int32), _NO_COUNTS)
_NO_ROWS = Packing(0, 0, 0, _NO_PLACES, _NO_TOKENS, _NO_TOKENS, _NO_COUNTS, (), _NO_GROUPED_ROWS)
