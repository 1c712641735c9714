"""A decoder's weights on PyTorch, many sessions in one pass: what runs a full model on a GPU.

A pass is cut into steps of always the same number of rows (``torch_decoder.py``); rows that are not needed count for nothing.
So which rows share a step, and where each stands in it, changes no kernel, and attention, the one place where a row meets
others, is computed for each row alone. Where weights have to be read from memory a step costs the same with one row or all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.checkpoint import Checkpoint, CheckpointFacts
from speculation.engines.handover import computing
from speculation.engines.kv_pages import KvPages, pages_of
from speculation.engines.packing import concatenated
from speculation.engines.providers import Provider
from speculation.engines.slots import Slot, Slots
from speculation.engines.torch_decoder import TorchDecoder
from speculation.errors import CapacityError, ConfigurationError, EngineError

ROWS = {Provider.CPU: 8, Provider.CUDA: 128}
"""Rows of a step. On an H100 one of 128 takes 5 % longer than one of 64 where a model has 8 billion parameters in bfloat16."""


class TorchEngine:
    """An ``Engine``, ``Forkable`` and ``Pooled`` over a checkpoint of a family that ``architecture.py`` knows. Not for use by
    two threads at once. Raises as ``TorchDecoder`` does, and ``ConfigurationError`` for numbers that cannot work."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        facts: CheckpointFacts,
        num_slots: int = 8,
        threads: int = 1,
        provider: Provider = Provider.CPU,
    ) -> None:
        if num_slots < 1 or threads < 1:
            raise ConfigurationError(f"an engine needs at least 1 slot and 1 thread, not {num_slots} and {threads}")
        self._num_rows = ROWS[provider]
        self._decoder = TorchDecoder(checkpoint, facts.context_length, num_slots, self._num_rows, provider, threads)
        shape = self._decoder.architecture
        self.head_size = shape.head_size
        self._description = EngineDescription(
            name=facts.name,
            vocabulary_size=facts.vocabulary_size,
            context_length=facts.context_length,
            num_slots=num_slots,
            num_parameters=facts.num_parameters,
            weight_bytes=self._decoder.weight_bytes,
            kv_bytes_per_token=self._decoder.token_bytes,
            rows_a_step=self._num_rows,
        )
        self._slots = Slots(self._description)
        self._pages = KvPages(num_slots, facts.context_length, self._decoder.num_pages)

    @property
    def description(self) -> EngineDescription:
        return self._description

    @property
    def pool_bytes(self) -> int:
        return self._decoder.num_pages * self._decoder.page_bytes

    def cache_bytes(self, num_tokens: int) -> int:
        return pages_of(num_tokens) * self._decoder.page_bytes

    def open(self) -> CacheId:
        return self._slots.open()

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if not chunks:
            return np.empty((0, self._description.vocabulary_size), np.float32)
        slots = self._slots.of(chunks)
        token_ids = concatenated(chunks)
        self._slots.check_tokens(token_ids)
        ends = [slot.length + len(chunk.token_ids) for slot, chunk in zip(slots, chunks, strict=True)]
        self._pages.grow([(slot.number, end) for slot, end in zip(slots, ends, strict=True)])
        steps = self._steps(token_ids, slots, ends)
        wanted = self._wanted(chunks, len(steps))
        try:
            computing()
            with self._decoder.in_its_mode():
                self._tell_pages()
                logits = self._decoder.run(steps, wanted)
        except Exception as error:
            raise EngineError(f"{self._description.name} could not be run: {error}") from error
        for slot, end in zip(slots, ends, strict=True):
            slot.length = end
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._pages.give_back(self._slots.close(cache).number)

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        try:
            self._pages.grow([(slot.number, slot.length)])
        except CapacityError:
            self._slots.close(child)
            raise
        own = self._pages.held(slot.number)
        with self._decoder.in_its_mode():
            self._tell_pages()
            self._decoder.copy_pages(self._pages.held(parent.number)[: len(own)], own)
        return child

    def _tell_pages(self) -> None:
        for number in self._pages.take_changed():
            self._decoder.set_pages(number, self._pages.held(number))

    def _steps(self, token_ids: NDArray[np.int64], slots: Sequence[Slot], ends: Sequence[int]) -> NDArray[np.int32]:
        """[steps, 3, rows]: token ids, slots and positions, chunk after chunk; at position -1 is what counts for nothing."""
        total = len(token_ids)
        steps = np.zeros((-(-total // self._num_rows) * self._num_rows, 3), np.int32)
        steps[total:, 2] = -1
        steps[:total, 0] = token_ids
        steps[:total, 1] = np.repeat([s.number for s in slots], [end - s.length for s, end in zip(slots, ends, strict=True)])
        steps[:total, 2] = list(chain.from_iterable(range(s.length, end) for s, end in zip(slots, ends, strict=True)))
        return steps.reshape(-1, self._num_rows, 3).transpose(0, 2, 1)

    def _wanted(self, chunks: Sequence[Chunk], num_steps: int) -> list[NDArray[np.int64]]:
        """Of each step the rows whose logits are wanted."""
        ends = np.cumsum([len(chunk.token_ids) for chunk in chunks])
        rows = [np.arange(end - chunk.num_logits, end) for end, chunk in zip(ends, chunks, strict=True)]
        wanted = np.concatenate(rows)
        bounds = np.searchsorted(wanted, np.arange(1, num_steps) * self._num_rows)
        return [part % self._num_rows for part in np.split(wanted, bounds)]
