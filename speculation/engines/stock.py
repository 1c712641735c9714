"""A graph as it was exported, on ONNX Runtime: each session is run alone, and its cache goes in and comes out whole.

That is the slower way, and it is exact. A run of one row takes other kernels than a run of several, and so do some rows left
over behind a tile of them; both change the last bits. So every run has an even number of rows: where the count is odd, the last
token of the cache is fed once more in front, or, with nothing in the cache, the only token once more behind. Where a graph
takes one token a run, or its rows see what stands behind them, every run has one row: alike as well, and slower. Where a graph
turns longer texts in another way, no run reaches over that length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.exported_graph import ExportedGraph
from speculation.engines.files import read_graph
from speculation.engines.handover import computing
from speculation.engines.large_pages import in_large_pages
from speculation.engines.packing import concatenated
from speculation.engines.pointwise import FOLDER_OF_WEIGHTS, PADDED, Convolved, convolved
from speculation.engines.providers import Provider, execution_provider
from speculation.engines.slots import Slot, Slots
from speculation.errors import ConfigurationError, EngineError, PackageError

RUN_ROWS = 128
"""Rows of a run at most: a run gives the logits of all its rows, wanted or not, and a long prompt has many."""


@dataclass(slots=True)
class _Past:
    """A session's cache: its tokens, and arrays [1, key-value heads, at least so many, head size]."""

    arrays: list[NDArray[Any]]
    token_ids: list[int] = field(default_factory=list)


class StockEngine:
    """An ``Engine`` and ``Forkable`` over an exported graph with caches that grow. Not for use by two threads at once.

    Raises ``PackageError`` when ONNX Runtime cannot load the graph, or the graph does not do what its form promises.
    """

    _rows_multiple: ClassVar[int] = 2

    def __init__(
        self, graph: ExportedGraph, description: EngineDescription, threads: int = 1, provider: Provider = Provider.CPU
    ) -> None:
        self.head_size = graph.head_size
        self._description, self._graph = description, graph.without_model()
        self._outputs = [graph.names.logits, *graph.present]
        self._slots = Slots(description)
        self._pasts: dict[int, _Past] = {}
        self._run_rows, self._multiple = RUN_ROWS, self._rows_multiple
        self._matrices: Convolved | None = None
        made = convolved(graph.path, read_graph(graph.path), PADDED) if provider is Provider.CPU else None
        if made is None or not self._begins_with(made, threads):
            self._session = load_session(str(graph.path), graph.path.parent, threads, provider)
            self._probe()
        self.one_row_since = self._one_row_since()
        if self.one_row_since:
            self._run_rows = self._multiple = 1

    @property
    def description(self) -> EngineDescription:
        return self._description

    @property
    def is_convolved(self) -> bool:
        """Whether its matrices are multiplied as convolutions (``pointwise.py``)."""
        return self._matrices is not None

    def run_singly(self) -> None:
        """From now on each run holds one token: exact whatever the graph does with several, and slower by their number."""
        self._run_rows = 1

    def open(self) -> CacheId:
        cache = self._slots.open()
        self._pasts[self._slots[cache].number] = self._empty()
        return cache

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if not chunks:
            return self._no_rows()
        slots = self._slots.of(chunks)
        token_ids = concatenated(chunks)
        self._slots.check_tokens(token_ids)
        parts = [part for slot, chunk in zip(slots, chunks, strict=True) for part in self._append(slot, chunk)]
        return np.concatenate([self._no_rows(), *parts])

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        del self._pasts[self._slots.close(cache).number]

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        past = self._pasts[parent.number]
        # A run never writes into the arrays that it is given, so that both may hold the same ones.
        self._pasts[slot.number] = _Past(list(past.arrays), past.token_ids[: slot.length])
        return child

    def _append(self, slot: Slot, chunk: Chunk) -> Iterator[NDArray[np.float32]]:
        """The wanted rows of logits, run after run."""
        start, count = 0, len(chunk.token_ids)
        first_wanted = count - chunk.num_logits
        while start < count:
            end = start + self._rows_of_run(slot.length, count - start)
            logits = self._run(slot, [int(token) for token in chunk.token_ids[start:end]])
            yield logits[max(0, first_wanted - start) :]
            start = end

    def _rows_of_run(self, length: int, count: int) -> int:
        """How many of ``count`` tokens behind ``length`` are run next: none beyond the turning length with any before it."""
        rows, turning_length = min(self._run_rows, count), self._graph.turning_length
        if length < turning_length:
            rows = min(rows, turning_length - length)
        # Where no row can be fed again, the one that makes the count even stands behind, and would reach too far there: beyond
        # the turning length, or the context.
        has_no_room = turning_length > 0 and (length == turning_length or rows == turning_length)
        return rows - rows % self._multiple if has_no_room and rows > 1 else rows

    def _run(self, slot: Slot, token_ids: list[int]) -> NDArray[np.float32]:
        """Append tokens to one session; the logits of each."""
        past = self._pasts[slot.number]
        del past.token_ids[slot.length :]
        is_odd = len(token_ids) % self._multiple > 0
        # The token before the turning length keeps its key as it was turned: fed again, it would be turned as those behind.
        again = past.token_ids[-1:] if is_odd and slot.length != self._graph.turning_length else []
        behind = token_ids[-1:] if is_odd and not again else []
        logits, present = self._forward(past, slot.length - len(again), [*again, *token_ids, *behind])
        past.arrays = present
        past.token_ids += token_ids
        slot.length += len(token_ids)
        return logits[len(again) : len(again) + len(token_ids)]

    def _forward(self, past: _Past, length: int, token_ids: list[int]) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """One run behind the first ``length`` tokens of a cache."""
        graph, end = self._graph, length + len(token_ids)
        values = {graph.names.input_ids: token_ids, graph.names.attention_mask: [1] * end}
        values[graph.names.position_ids] = list(range(length, end))
        feeds: dict[str, NDArray[Any]] = dict(graph.fixed_inputs)
        feeds |= {name: np.array([values[name]], kind) for name, kind in graph.small_inputs.items() if name in values}
        if graph.has_branches:
            feeds[graph.names.use_cache_branch] = np.array([length > 0])
        arrays = [np.ascontiguousarray(array[:, :, :length]) for array in past.arrays]
        try:
            feeds |= dict(zip(graph.past, arrays, strict=True))
            computing()
            logits, *present = self._session.run(self._outputs, feeds)
        except Exception as error:
            raise EngineError(f"{self._description.name} could not be run: {error}") from error
        return np.asarray(logits[0], np.float32), present

    def _begins_with(self, made: Convolved, threads: int) -> bool:
        """Whether the graph does with convolutions what its form promises. Where it does not, it may without."""
        try:
            self._session = load_session(made, self._graph.path.parent, threads)
            self._probe()
        except PackageError:
            return False
        self._matrices = made
        return True

    def _probe(self) -> None:
        """Two tokens give two rows of logits and a cache of two, and two more behind them a cache of four; or one and one."""
        past, graph = self._empty(), self._graph
        count, named = (1, "one token") if graph.takes_one_token else (2, "two tokens")
        for length in (0, count):
            behind = f"{named} behind {length}" if length else named
            try:
                logits, past.arrays = self._forward(past, length, [0] * count)
            except EngineError as error:
                right = "" if length else "; right is a graph that runs with caches of no tokens"
                raise PackageError(f"{graph.path} cannot be used for {behind}: {error}{right}") from error
            shapes = {logits.shape, *(array.shape for array in past.arrays)}
            cache = (1, graph.num_kv_heads, length + count, graph.head_size)
            if shapes != {(count, self._description.vocabulary_size), cache}:
                wanted = f"logits {(count, self._description.vocabulary_size)} and caches {cache}"
                raise PackageError(f"{graph.path} gives arrays of shapes {sorted(shapes)} for {behind}, not {wanted}")

    def _one_row_since(self) -> str:
        """Why every run has one row; empty where it may have several.

        Exporters that try a graph with one token may leave the mask out that keeps a row from what stands behind it: then
        another token there changes the row.
        """
        if self._graph.takes_one_token:
            return "its graph takes one token a run"
        if not self._graph.is_second_half:
            return ""
        past = self._empty()
        for length in (0, 2):
            runs = [self._forward(past, length, [0, token]) for token in (0, 1)]
            if len({logits[0].tobytes() for logits, _ in runs}) > 1:
                return "rows of its graph see what stands behind them"
            past.arrays = runs[0][1]
        return ""

    def _empty(self) -> _Past:
        shape = (1, self._graph.num_kv_heads, 0, self._graph.head_size)
        return _Past([np.zeros(shape, self._graph.cache_type)] * len(self._graph.past))

    def _no_rows(self) -> NDArray[np.float32]:
        return np.empty((0, self._description.vocabulary_size), np.float32)


def load_session(graph: str | bytes | Convolved, folder: Path, threads: int, provider: Provider = Provider.CPU) -> Any:
    """A session of ONNX Runtime, over a file or over a graph whose weights may lie in ``folder``. What was ``convolved`` has to
    live as long.

    Raises ``PackageError`` when the runtime refuses the graph, ``ConfigurationError`` when it has no such provider.
    """
    wanted = execution_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if isinstance(graph, Convolved):
        graph.tell(options, folder)
    elif isinstance(graph, bytes):
        options.add_session_config_entry(FOLDER_OF_WEIGHTS, str(folder))
    try:
        with in_large_pages():
            loaded = graph.graph if isinstance(graph, Convolved) else graph
            session = onnxruntime.InferenceSession(loaded, options, providers=[wanted])
    except Exception as error:
        name = graph if isinstance(graph, str) else f"the graph in {folder}"
        raise PackageError(f"{name} cannot be loaded by ONNX Runtime: {error}") from error
    # Where a provider cannot start (no driver, other libraries), the runtime goes on with the CPU and says so in its log only.
    if wanted not in session.get_providers():
        found = ", ".join(session.get_providers())
        raise ConfigurationError(f"provider {provider}: ONNX Runtime could not start {wanted}, and runs {found} instead")
    return session
