"""A model that knows nothing: its logits are a hash of (seed, prefix). A worst draft, and a cheap stand-in in tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.handover import computing
from speculation.errors import CacheClosedError, CapacityError, InvalidRequestError

MAX_LOGIT = 8.0


class RandomEngine:
    """An ``Engine`` and ``Forkable`` whose logits are uniform in [0, ``MAX_LOGIT``) and depend on nothing but (seed, prefix).

    Raises ``InvalidRequestError`` for chunks that mean nothing, besides what ``Engine`` says.
    """

    def __init__(self, vocabulary_size: int, context_length: int, seed: int, num_slots: int = 8) -> None:
        self._root = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=16).digest()
        self._prefixes: dict[CacheId, list[bytes]] = {}
        self._bits = np.random.Philox(key=0)
        self._state = self._bits.state
        self._opened = 0
        self._description = EngineDescription(
            name="random",
            vocabulary_size=vocabulary_size,
            context_length=context_length,
            num_slots=num_slots,
            num_parameters=0,
            weight_bytes=0,
            kv_bytes_per_token=0,
        )

    @property
    def description(self) -> EngineDescription:
        return self._description

    def open(self) -> CacheId:
        if len(self._prefixes) == self._description.num_slots:
            raise CapacityError(f"all {self._description.num_slots} cache slots are taken; close one first")
        self._opened += 1
        cache = CacheId(self._opened)
        self._prefixes[cache] = []
        return cache

    def length(self, cache: CacheId) -> int:
        return len(self._prefix(cache))

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        computing()  # as a model's engine would, beside whose work a loop goes on
        self._check(chunks)
        rows = [row for chunk in chunks for row in self._append(chunk)]
        return np.array(rows, np.float32).reshape(len(rows), self._description.vocabulary_size)

    def truncate(self, cache: CacheId, length: int) -> None:
        prefix = self._prefix(cache)
        if not 0 <= length <= len(prefix):
            raise InvalidRequestError(f"a cache of {len(prefix)} tokens can be cut to 0 ... {len(prefix)}, not to {length}")
        del prefix[length:]

    def close(self, cache: CacheId) -> None:
        self._prefix(cache)
        del self._prefixes[cache]

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        parent = self._prefix(cache)
        length = len(parent) if length is None else length
        if not 0 <= length <= len(parent):
            raise InvalidRequestError(f"a fork of a cache of {len(parent)} tokens holds 0 ... {len(parent)}, not {length}")
        child = self.open()
        self._prefixes[child] = parent[:length]
        return child

    def _prefix(self, cache: CacheId) -> list[bytes]:
        """One digest a position: that of all tokens up to it."""
        try:
            return self._prefixes[cache]
        except KeyError:
            raise CacheClosedError(f"cache {cache} is closed, or was never opened") from None

    def _append(self, chunk: Chunk) -> list[NDArray[np.float32]]:
        digests = self._prefixes[chunk.cache]
        for token in chunk.token_ids:
            before = digests[-1] if digests else self._root
            digests.append(hashlib.blake2b(before + int(token).to_bytes(8, "little"), digest_size=16).digest())
        return [self._row(digest) for digest in digests[len(digests) - chunk.num_logits :]]

    def _row(self, digest: bytes) -> NDArray[np.float32]:
        """The raw bits are fixed by the Philox algorithm, so rows do not change with the version of numpy."""
        self._state["state"]["key"] = np.frombuffer(digest, "<u8")
        self._bits.state = self._state  # a third of what a generator of its own takes, which draws a seed in vain
        bits = self._bits.random_raw(self._description.vocabulary_size)
        return ((bits >> np.uint64(40)) * (MAX_LOGIT / 2**24)).astype(np.float32)

    def _check(self, chunks: Sequence[Chunk]) -> None:
        size, context_length = self._description.vocabulary_size, self._description.context_length
        if len({chunk.cache for chunk in chunks}) < len(chunks):
            raise InvalidRequestError("a cache may stand in one chunk of a pass only")
        for chunk in chunks:
            count, left = len(chunk.token_ids), context_length - len(self._prefix(chunk.cache))
            if not 0 <= chunk.num_logits <= count or count == 0:
                raise InvalidRequestError(f"a chunk of {count} tokens cannot give {chunk.num_logits} rows of logits")
            if count > left:
                raise CapacityError(f"{count} tokens do not fit: {left} of {context_length} positions are left")
            if not all(0 <= token < size for token in chunk.token_ids):
                raise InvalidRequestError(f"token ids must be from 0 to {size - 1}", "token_ids")
