"""An exported graph with GroupQueryAttention as ``surgery.py`` leaves it: ragged batches, one pool of cache slots a layer.

All rows of a pass stand in a padded batch [slots, rows], linear layers included. The even-row rule of ``onnx.py`` holds here
too: the row that makes a session's count even repeats its last token, behind the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.cache_pages import cache_memory
from speculation.engines.exported_graph import ExportedGraph
from speculation.engines.handover import computing
from speculation.engines.packing import concatenated
from speculation.engines.pointwise import PADDED, Convolved, convolved
from speculation.engines.slots import Slot, Slots
from speculation.engines.stock import load_session
from speculation.engines.surgery import LAST, ROOM, ROWS, CannotBeRaggedError, make_ragged
from speculation.errors import CapacityError, EngineError, PackageError

PASS_ROWS = 64
"""Rows a session in one run at most: a long prompt would pad all its neighbours to its own length."""
LOGITS_LIMIT_BYTES = 256 * 1024 * 1024
"""A run gives the logits of every row of the batch, padding too: with a large vocabulary, fewer rows are run at a time."""
MAX_BINDINGS = 256
LOGITS_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

_Share = tuple[Slot, NDArray[np.int64], NDArray[np.float32]]
"""A session's part in a pass: its place, its new tokens, and where the logits of the last ones are wanted."""


class RaggedEngine:
    """An ``Engine`` and ``Forkable`` over an exported graph. Not for use by two threads at once.

    Raises ``CannotBeRaggedError`` with the reason where the graph, the runtime or the memory at hand does not allow it.
    """

    _rows_multiple: ClassVar[int] = 2

    def __init__(self, graph: ExportedGraph, description: EngineDescription, threads: int = 1) -> None:
        self.head_size = graph.head_size
        self._description, self._graph = description, graph.without_model()
        self._capacity = description.context_length + PASS_ROWS
        self._pools = self._allocated()
        self._pass_rows, self._is_single = self._most_rows(), False
        ragged = self._ragged(graph)
        self._matrices: Convolved | None = None
        made = convolved(graph.path, graph.model, PADDED)
        if made is None or not self._begins_with(made, threads):
            self._begin(ragged, threads)

    def _ragged(self, graph: ExportedGraph) -> bytes:
        try:
            return make_ragged(graph, self._capacity)
        except (KeyError, ValueError) as error:  # KeyError: a constant of a type that there is not
            raise CannotBeRaggedError(f"the graph does not load with lengths as inputs: {error}") from error

    def _begins_with(self, made: Convolved, threads: int) -> bool:
        """Whether the graph does with convolutions what its form promises. Where it does not, it may without."""
        try:
            self._begin(made, threads)
        except CannotBeRaggedError:
            return False
        self._matrices = made
        return True

    def _begin(self, ragged: bytes | Convolved, threads: int) -> None:
        try:
            self._session = load_session(ragged, self._graph.path.parent, threads)
        except PackageError as error:
            raise CannotBeRaggedError(f"the graph does not load with lengths as inputs: {error}") from error
        self._inputs = {value.name for value in self._session.get_inputs()}
        logits = next(value for value in self._session.get_outputs() if value.name == self._graph.names.logits)
        self._logits_type = LOGITS_TYPES[logits.type]
        self._bindings: dict[tuple[int, int], Any] = {}
        self._slots = Slots(self._description)
        self._probe()

    @property
    def description(self) -> EngineDescription:
        return self._description

    @property
    def is_convolved(self) -> bool:
        """Whether its matrices are multiplied as convolutions (``pointwise.py``)."""
        return self._matrices is not None

    def run_singly(self) -> None:
        """From now on each run holds one token of one session: exact whatever the graph does with several, and slower."""
        self._pass_rows, self._is_single = 1, True

    def open(self) -> CacheId:
        return self._slots.open()

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        logits = np.empty((sum(chunk.num_logits for chunk in chunks), self._description.vocabulary_size), np.float32)
        if not chunks:
            return logits
        slots = self._slots.of(chunks)
        token_ids = concatenated(chunks)
        self._slots.check_tokens(token_ids)
        parts = np.split(token_ids, np.cumsum([len(chunk.token_ids) for chunk in chunks])[:-1])
        rows = np.split(logits, np.cumsum([chunk.num_logits for chunk in chunks])[:-1])
        shares = list(zip(slots, parts, rows, strict=True))
        for together in [[share] for share in shares] if self._is_single else [shares]:
            self._append(together)
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._slots.close(cache)

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        for pool in self._pools:
            pool[slot.number, :, : slot.length] = pool[parent.number, :, : slot.length]
        return child

    def _append(self, shares: list[_Share]) -> None:
        """Run all tokens, a pass after the other; the wanted rows are written where they belong."""
        for start in range(0, max(len(tokens) for _, tokens, _ in shares), self._pass_rows):
            going = [share for share in shares if len(share[1]) > start]
            pieces = [(slot, tokens[start : start + self._pass_rows]) for slot, tokens, _ in going]
            found = self._run(pieces)
            for (_, tokens, wanted), (_, piece), rows in zip(going, pieces, found, strict=True):
                first = start - (len(tokens) - len(wanted))
                skipped = max(0, -first)
                if skipped < len(piece):
                    wanted[first + skipped : first + len(piece)] = rows[skipped : len(piece)]

    def _run(self, pieces: list[tuple[Slot, NDArray[np.int64]]]) -> list[NDArray[np.float32]]:
        """One pass; the rows of logits of each piece, and some junk behind them."""
        numbers = [slot.number for slot, _ in pieces]
        low, high = min(numbers), max(numbers) + 1
        logits = self._forward(self._small_inputs(pieces, low, high), low, high)
        for slot, piece in pieces:
            slot.length += len(piece)
        return [logits[number - low] for number in numbers]

    def _forward(self, small: dict[str, NDArray[Any]], low: int, high: int) -> NDArray[Any]:
        """Logits [slots, rows, vocabulary], in the graph's own type."""
        shape = (*small[self._graph.names.input_ids].shape, self._description.vocabulary_size)
        logits = np.empty(shape, self._logits_type)
        try:
            binding = self._binding(low, high)
            for name, values in small.items():
                binding.bind_input(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)
            binding.bind_output(self._graph.names.logits, "cpu", 0, self._logits_type, shape, logits.ctypes.data)
            computing()
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"{self._description.name} could not be run: {error}") from error
        return logits

    def _binding(self, low: int, high: int) -> Any:
        """The pool's slots ``[low, high)`` bound to the graph, in and out in the same place."""
        binding = self._bindings.get((low, high))
        if binding is None:
            if len(self._bindings) >= MAX_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            binding = self._bindings[low, high] = self._session.io_binding()
            kind = self._graph.cache_type
            for past, present, pool in zip(self._graph.past, self._graph.present, self._pools, strict=True):
                part = pool[low:high]
                binding.bind_input(past, "cpu", 0, kind, part.shape, part.ctypes.data)
                binding.bind_output(present, "cpu", 0, kind, part.shape, part.ctypes.data)
        return binding

    def _small_inputs(self, pieces: list[tuple[Slot, NDArray[np.int64]]], low: int, high: int) -> dict[str, NDArray[Any]]:
        """Tokens in a padded batch, and lengths. Idle slots have no rows."""
        names, most = self._graph.names, max(self._padded(len(piece)) for _, piece in pieces)
        types, shape = self._graph.small_inputs, (high - low, most)
        token_ids = np.zeros(shape, types[names.input_ids])
        seqlens_k, rows = np.zeros(high - low, np.int32), np.zeros(high - low, np.int32)
        for slot, piece in pieces:
            lane = slot.number - low
            token_ids[lane, : len(piece)], token_ids[lane, len(piece) :] = piece, piece[-1]
            rows[lane] = self._padded(len(piece))
            seqlens_k[lane] = slot.length + rows[lane] - 1
        small = {names.input_ids: token_ids, LAST: seqlens_k, ROWS: rows, ROOM: np.array(self._capacity, np.int32)}
        if names.position_ids in self._inputs:
            small[names.position_ids] = self._positions(seqlens_k + 1 - rows, most).astype(types[names.position_ids])
        return small | {name: values for name, values in self._graph.fixed_inputs.items() if name in self._inputs}

    def _positions(self, firsts: NDArray[np.int32], most: int) -> NDArray[Any]:
        """Positions [slots, rows]; those of rows that count for nothing stay within the model's."""
        positions: NDArray[Any] = np.minimum(firsts[:, None] + np.arange(most), self._description.context_length - 1)
        return positions

    def _probe(self) -> None:
        """A first pass of three rows a session, of two sessions where that many may be: what the runtime has against it, or the
        graph against more than one, should be known now."""
        caches = [self.open() for _ in range(min(2, self._description.num_slots))]
        try:
            self.extend([Chunk(cache, [0, 0, 0], 3) for cache in caches])
        except EngineError as error:
            raise CannotBeRaggedError(str(error)) from error
        for cache in caches:
            self.close(cache)

    def _padded(self, count: int) -> int:
        return count + -count % self._rows_multiple

    def _most_rows(self) -> int:
        """Rows of a run, even and at least 2, so that the logits of a batch of all slots stay within the limit."""
        described = self._description
        fit = LOGITS_LIMIT_BYTES // (described.num_slots * described.vocabulary_size * np.dtype(np.float32).itemsize)
        return max(2, min(PASS_ROWS, fit - fit % 2))

    def _allocated(self) -> list[NDArray[Any]]:
        """The caches of all slots; what is never written takes no memory from the system.

        Each is an array of its own, since a system may refuse at once what it would grant piece by piece.
        """
        graph = self._graph
        shape = (self._description.num_slots, graph.num_kv_heads, self._capacity, graph.head_size)
        num_bytes = math.prod(shape) * np.dtype(graph.cache_type).itemsize
        try:
            memories = [cache_memory(num_bytes, num_bytes * len(graph.past)) for _ in graph.past]
            return [np.frombuffer(memory, graph.cache_type).reshape(shape) for memory in memories]
        except CapacityError as error:
            raise CannotBeRaggedError(f"there is no room for caches of {self._capacity} positions: {error}") from error
