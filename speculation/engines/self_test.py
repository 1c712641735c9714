"""Start-up check that an engine's logits do not depend, bit for bit, on how the work is cut and who shares a pass.

A reference is computed one token at a time. Then the same tokens are fed in pieces, again after a cut, in a batch with
neighbours that come, go and roll back, and from a fork; every row of logits must equal the reference's, all bits of it. Where
one does not, shared-noise choices could differ at near-ties, so a verifier must lower its claim aloud.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, CanGroupHeads, CanPairRows, CanRunSingly, Chunk, Engine, Forkable

LONGEST_ROWS = 513
COMMON_HEAD_SIZE = 64
FEW_ROWS = 16
BATCH = 4
FINGERPRINT_DIGITS = 16
TOKENS_FROM = 2654435761
"""Knuth's multiplicative hash (The Art of Computer Programming 3, 6.4): spreads token ids over any vocabulary."""

_log = logging.getLogger(__name__)


@runtime_checkable
class HasHeadSize(Protocol):
    """Engines that know the size of an attention head; attention kernels change their ways at multiples of it."""

    @property
    def head_size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SelfTest:
    """``fingerprint`` is the start of the SHA-256 over the reference logits; ``details`` has one line a way of cutting."""

    is_exact: bool
    fingerprint: str
    seconds: float
    details: tuple[str, ...]


def run(engine: Engine) -> SelfTest:
    """Test a loaded engine; it must have at least one free slot, and is left as it was found. Raises what the engine raises."""
    began = time.monotonic()
    test = _Test(engine)
    with_names = [("pieces", test.pieces()), ("refilled", test.refilled()), ("few", test.few()), ("batch", test.batch())]
    if isinstance(engine, Forkable) and engine.description.num_slots > 1:
        with_names.append(("fork", test.fork(engine)))
    counted = [(name, list(differences)) for name, differences in with_names]
    details = tuple(f"{name}: {sum(found)} of {len(found)} rows differ" for name, found in counted)
    is_exact = not any(any(found) for _, found in counted)
    return SelfTest(is_exact, test.fingerprint, time.monotonic() - began, details)


def make_exact(engine: Engine) -> SelfTest:
    """Test an engine; one that is not exact, but can be by even numbers of rows, by keys for each head alone, or by running
    singly, does so from now on, and is tested again.

    One that stays inexact is used all the same, and the log says so.
    """
    tested = run(engine)
    if tested.is_exact:
        return tested
    was_grouping = isinstance(engine, CanGroupHeads) and engine.is_grouping
    said = f"{engine.description.name}: rows depend on what shares their pass ({'; '.join(tested.details)})"
    for pairs, groups, what in _ways_of(engine, was_grouping):
        _use(engine, pairs, groups)
        mended = run(engine)
        if mended.is_exact:
            _log.warning("%s, so that %s", said, what)
            return mended
    _use(engine, pairs=False, groups=was_grouping)
    if not isinstance(engine, CanRunSingly):
        _log.warning("%s, and nothing here can mend it: a near tie may give another text, which devices are told", said)
        return tested
    _log.warning("%s, so that each token is run alone: exact, and slower", said)
    engine.run_singly()
    return run(engine)


def _ways_of(engine: Engine, was_grouping: bool) -> list[tuple[bool, bool, str]]:
    """What an engine can do otherwise: whether rows are paired, whether heads are grouped, and what the log says of it."""
    paired, alone = "odd numbers of rows get one more", "each query head reads keys of its own"
    can_pair = isinstance(engine, CanPairRows)
    ways: list[tuple[bool, bool, bool, str]] = [
        (can_pair, True, was_grouping, f"{paired}: exact, and slower for one row"),
        (was_grouping, False, False, f"{alone}: exact, and slower for few rows"),
        (can_pair and was_grouping, True, False, f"{paired}, and {alone}: exact, and slower"),
    ]
    return [(pairs, groups, said) for is_possible, pairs, groups, said in ways if is_possible]


def _use(engine: Engine, pairs: bool, groups: bool) -> None:
    if isinstance(engine, CanPairRows):
        engine.pair_rows(pairs)
    if isinstance(engine, CanGroupHeads):
        engine.group_heads(groups)


def row_counts(head_size: int, context_length: int) -> list[int]:
    """The lengths at which attention kernels were seen to change, within the context."""
    d = head_size
    return sorted({min(rows, context_length) for rows in (1, 2, 2 * d - 1, 2 * d + 1, 2 * d + 2, 4 * d + 1, LONGEST_ROWS)})


class _Test:
    """The ways of cutting; each yields, for every row, whether it differs from the reference."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        described = engine.description
        head_size = engine.head_size if isinstance(engine, HasHeadSize) else COMMON_HEAD_SIZE
        self._counts = row_counts(head_size, described.context_length)
        self._middle = self._counts[max(0, len(self._counts) - 2)]
        rows = np.arange(self._counts[-1], dtype=np.uint64)
        self._token_ids = [int(t) for t in (rows + 1) * TOKENS_FROM % 2**32 % described.vocabulary_size]
        self._reference = self._one_by_one()
        self.fingerprint = hashlib.sha256(self._reference.tobytes()).hexdigest()[:FINGERPRINT_DIGITS]

    def pieces(self) -> Iterator[bool]:
        """Every length at once from an empty cache, and as the second piece behind one odd token."""
        for rows in self._counts:
            yield from self._fed([rows])
        for rows in self._counts[:-1]:
            yield from self._fed([1, min(rows, self._counts[-1] - 1)])

    def refilled(self) -> Iterator[bool]:
        """A cache that is cut in its middle, and filled again with other boundaries, some junk in between."""
        cache = self._engine.open()
        self._feed(cache, 0, self._middle)
        for rows in reversed(self._counts[1:-1]):
            start = rows // 2
            self._engine.truncate(cache, start)
            junk = self._token_ids[-3:][: self._engine.description.context_length - start]
            self._engine.extend([Chunk(cache, junk, 0)])
            self._engine.truncate(cache, start)
            yield from self._feed(cache, start, min(start + rows, len(self._token_ids)))
        self._engine.close(cache)

    def few(self) -> Iterator[bool]:
        """Few rows, of each number, behind a text as long as there is: attention may take those in another way."""
        cache, end = self._engine.open(), len(self._token_ids)
        self._feed(cache, 0, end)
        for rows in range(1, min(FEW_ROWS, end) + 1):
            self._engine.truncate(cache, end - rows)
            yield from self._feed(cache, end - rows, end)
        self._engine.close(cache)

    def batch(self) -> Iterator[bool]:
        """Sessions that advance at different paces in one pass, some idle now and then."""
        number = min(BATCH, self._engine.description.num_slots)
        caches = [self._engine.open() for _ in range(number)]
        for step in range(3 * len(self._counts)):
            ends = {}
            for lane, cache in enumerate(caches):
                start = self._engine.length(cache)
                rows = self._counts[(step + lane) % len(self._counts)] if (step + lane) % 3 else lane + 1
                if (step * number + lane) % 5 and start < self._middle:
                    ends[cache] = min(start + rows, self._middle)
            yield from self._extend_to(ends)
        for cache in caches:
            self._engine.close(cache)

    def fork(self, engine: Forkable) -> Iterator[bool]:
        """A fork made in the middle goes on as the whole does."""
        parent = self._engine.open()
        self._feed(parent, 0, self._middle)
        child = engine.fork(parent, self._middle - 1)
        yield from self._feed(child, self._middle - 1, min(self._middle + 8, len(self._token_ids)))
        self._engine.close(child)
        self._engine.close(parent)

    def _one_by_one(self) -> NDArray[np.float32]:
        cache = self._engine.open()
        rows = [self._engine.extend([Chunk(cache, [token], 1)]) for token in self._token_ids]
        self._engine.close(cache)
        return np.concatenate(rows)

    def _fed(self, counts: Sequence[int]) -> Iterator[bool]:
        """Pieces of ``counts`` rows, from an empty cache."""
        cache, start = self._engine.open(), 0
        for rows in counts:
            yield from self._feed(cache, start, start + rows)
            start += rows
        self._engine.close(cache)

    def _feed(self, cache: CacheId, start: int, end: int) -> list[bool]:
        logits = self._engine.extend([Chunk(cache, self._token_ids[start:end], end - start)])
        return self._differs(logits, start)

    def _extend_to(self, ends: dict[CacheId, int]) -> list[bool]:
        """One pass that brings each cache to its end; whether each of its rows differs."""
        if not ends:
            return []
        starts = {cache: self._engine.length(cache) for cache in ends}
        chunks = [Chunk(c, self._token_ids[starts[c] : end], end - starts[c]) for c, end in ends.items()]
        parts = np.split(self._engine.extend(chunks), np.cumsum([chunk.num_logits for chunk in chunks])[:-1])
        return [d for part, start in zip(parts, starts.values(), strict=True) for d in self._differs(part, start)]

    def _differs(self, logits: NDArray[np.float32], start: int) -> list[bool]:
        """Bits are compared, so that two different zeros count, and a NaN equals itself."""
        wanted = self._reference[start : start + len(logits)]
        return [bool(d) for d in (logits.view(np.uint32) != wanted.view(np.uint32)).any(axis=1)]
