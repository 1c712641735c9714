"""A checkpoint on PyTorch, by ``transformers``: each session is run alone, in blocks of rows that are always the same.

A product of another number of rows has other last bits there, and so does attention over another length. So position ``p``
always stands in the run of the positions ``[n * rows, (n + 1) * rows)`` around it, in the same row: tokens of the block that
are in the cache already are run again, and rows behind the last token repeat it. Causal attention keeps them out of every real
row, and the next run cuts them off. All runs that give a position's logits have the same shapes then, however the work was cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.checkpoint import Checkpoint, CheckpointFacts
from speculation.engines.packing import concatenated
from speculation.engines.providers import Provider
from speculation.engines.slots import Slot, Slots
from speculation.engines.torch_model import Past, TorchModel
from speculation.errors import ConfigurationError, EngineError, PackageError

ROWS = {Provider.CPU: 8, Provider.CUDA: 64}
"""Rows of a block: more of them make prompts and drafts cheaper, and each decoded token dearer, which takes a whole block. On
the CPU a token takes up to twice the time of one row; the number for a GPU is a guess."""
OTHER_MODEL = {Provider.CPU: 1e-2, Provider.CUDA: 0.1}
"""Of the largest logit. A forward in pieces is off by 1e-6 of it in float32, which the CPU computes in, and by some hundredths
in 16 bits; one that forgets, or sees what comes, by about all of it."""


@dataclass(slots=True)
class _Session:
    past: Past = ()
    token_ids: list[int] = field(default_factory=list)


class TransformersEngine:
    """An ``Engine`` and ``Forkable`` over a checkpoint. Not for use by two threads at once.

    Raises ``PackageError`` for a model that cannot be loaded, or whose past is no keys and values that can be cut;
    ``ConfigurationError`` for numbers that cannot work, and for a provider that is not there; ``CapacityError`` where the
    weights do not fit the memory.
    """

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
        self._model = TorchModel(checkpoint, provider, threads)
        # A block that reached behind this length with its repeated rows would turn all of its rows as those of a longer text.
        self._rows = math.gcd(ROWS[provider], self._model.turning_length)
        self.head_size, kv_bytes_per_token = self._probed(checkpoint, facts, OTHER_MODEL[provider])
        self._description = EngineDescription(
            name=facts.name,
            vocabulary_size=facts.vocabulary_size,
            context_length=facts.context_length,
            num_slots=num_slots,
            num_parameters=facts.num_parameters,
            weight_bytes=self._model.weight_bytes,
            kv_bytes_per_token=kv_bytes_per_token,
        )
        self._slots = Slots(self._description)
        self._sessions: dict[int, _Session] = {}

    @property
    def description(self) -> EngineDescription:
        return self._description

    def run_singly(self) -> None:
        """From now on each run holds one token: exact also where rows of a run depend on each other."""
        self._rows = 1

    def open(self) -> CacheId:
        cache = self._slots.open()
        self._sessions[self._slots[cache].number] = _Session()
        return cache

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        none = np.empty((0, self._description.vocabulary_size), np.float32)
        if not chunks:
            return none
        slots = self._slots.of(chunks)
        token_ids = concatenated(chunks)
        self._slots.check_tokens(token_ids)
        parts = [part for slot, chunk in zip(slots, chunks, strict=True) for part in self._append(slot, chunk)]
        return np.concatenate([none, *parts])

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        del self._sessions[self._slots.close(cache).number]

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        session = self._sessions[parent.number]
        # A run never writes into the past that it is given, so that both may hold the same one.
        self._sessions[slot.number] = _Session(session.past, session.token_ids[: slot.length])
        return child

    def _append(self, slot: Slot, chunk: Chunk) -> Iterator[NDArray[np.float32]]:
        """The wanted rows of logits, block after block."""
        session = self._sessions[slot.number]
        token_ids = session.token_ids[: slot.length] + [int(token) for token in chunk.token_ids]
        first_wanted, start = len(token_ids) - chunk.num_logits, slot.length - slot.length % self._rows
        while start < len(token_ids):
            block = token_ids[start : start + self._rows]
            end = start + len(block)
            # The last block of the context may be shorter, always by as much: there are no positions behind it.
            rows = min(self._rows, self._description.context_length - start)
            num_wanted = max(0, end - max(first_wanted, start))
            repeated = [block[-1]] * (rows - len(block))
            # All rows from the first that is wanted, and from these the real ones.
            logits, session.past = self._model.run(
                session.past, start, block + repeated, num_wanted + len(repeated) if num_wanted else 0
            )
            session.token_ids, slot.length = token_ids[:end], end
            yield logits[:num_wanted]
            start += self._rows

    def _probed(self, checkpoint: Checkpoint, facts: CheckpointFacts, tolerance: float) -> tuple[int, int]:
        """The size of a head, and the bytes that a token takes in the past, from two runs of as many rows as a block has."""
        rows = min(self._rows, facts.context_length)
        try:
            logits, past = self._model.run((), 0, [0] * rows, rows)
            _, past = self._model.run(past, rows - 1, [0], 1)
        except EngineError as error:
            right = "right is a model that keeps keys and values of each token in every layer"
            raise PackageError(f"{checkpoint.path} cannot be used: {error}; {right}") from error
        if logits.shape != (rows, facts.vocabulary_size):
            wanted = (rows, facts.vocabulary_size)
            raise PackageError(f"{checkpoint.path} gives logits of shape {logits.shape} for {rows} tokens, not {wanted}")
        arrays = [array for layer in past for array in layer if array is not None]
        are_pasts = bool(arrays) and all(array.ndim == 4 and array.shape[2] == rows for array in arrays)
        if not (are_pasts and self._is_one_model(rows, facts.vocabulary_size, tolerance)):
            kind = f"model_type {checkpoint.config.get('model_type')!r}"
            raise PackageError(
                f"{checkpoint.path}: {kind} keeps more, or other, than keys and values of each token, which "
                "cannot be cut back when drafts are wrong, or reads ahead; take a causal model with attention in every layer"
            )
        return int(arrays[0].shape[3]), sum(array.nbytes for array in arrays) // rows

    def _is_one_model(self, rows: int, size: int, tolerance: float) -> bool:
        """Whether a text in two pieces is the text at once. It is not where a layer keeps a state that it does not hand out
        (RecurrentGemma), or where attention looks both ways (BERT); the self-test compares pieces alone and sees neither."""
        text, half = [number % size for number in range(1, rows + 1)], rows // 2
        whole = self._model.run_whole(text)
        first, past = self._model.run((), 0, text[:half], half) if half else (whole[:0], ())
        second, _ = self._model.run(past, half, text[half:], rows - half)
        return bool(np.abs(np.concatenate([first, second]) - whole).max() <= tolerance * np.abs(whole).max())
