"""The engine seam: a model with one cache per session, run in ragged batches. Synchronous; ``runner.py`` gives it a thread.

Laws (``tests/speculation/engines/test_conformance.py`` holds every engine to them): tokens fed in pieces give the logits of
tokens fed at once; truncate then extend equals fresh; a session in a batch equals the session alone; a fork equals its parent;
a closed cache is a ``CacheClosedError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from speculation.values import value

CacheId = NewType("CacheId", int)


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """What shaping, admission and figures need to know of an engine.

    ``has_whole_rows``: a row of logits has a value for every token; False where most are missing, so that nothing can be said
    of how likely a token is. ``rows_a_step``: a pass is cut into steps of so many rows, each of which costs as much with fewer;
    0 where it has as many rows as are asked for.
    """

    name: str
    vocabulary_size: int
    context_length: int
    num_slots: int
    num_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    has_whole_rows: bool = True
    rows_a_step: int = 0


@value
class Chunk:
    """New tokens of one session, and how many of the last rows' logits are wanted (0 to ``len(token_ids)``)."""

    cache: CacheId
    token_ids: Sequence[int]
    num_logits: int


class Engine(Protocol):
    """A causal language model."""

    @property
    def description(self) -> EngineDescription: ...

    def open(self) -> CacheId:
        """A new, empty cache. Raises ``CapacityError`` when all slots are taken."""

    def length(self, cache: CacheId) -> int:
        """Tokens in the cache."""

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Append each chunk's tokens to its cache, in one forward pass.

        Returns the wanted logits, chunk after chunk: float32 [sum of num_logits, vocabulary]. A cache stands in at most one
        chunk, no chunk is empty. What computes without the interpreter says so first (``handover.computing``).

        Raises ``CacheClosedError``; ``CapacityError`` when a chunk does not fit the context length; ``InvalidRequestError`` for
        chunks that mean nothing (these change no cache); ``EngineError`` when the runtime fails.
        """

    def truncate(self, cache: CacheId, length: int) -> None:
        """Forget the tokens from position ``length`` on; ``length`` is at most the cache's."""

    def close(self, cache: CacheId) -> None:
        """Give the slot back. Closing twice raises ``CacheClosedError``."""


@runtime_checkable
class Forkable(Protocol):
    """Engines that can copy a cache."""

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        """A new cache that holds the first ``length`` tokens of another (all, by default)."""


@runtime_checkable
class CanPairRows(Protocol):
    """Engines whose linear layers can be given even numbers of rows alone, which may make them exact where they are not.

    ONNX Runtime's 4-bit products take rows in twos, and one that is left over in another way, that may differ in the last bits.
    """

    def pair_rows(self, is_wanted: bool) -> None:
        """From now on give them one row more where their number is odd, or no longer. No logits that come back are of it."""


@runtime_checkable
class CanGroupHeads(Protocol):
    """Engines whose attention may take the query heads of a group as rows of one head, where that is sooner."""

    @property
    def is_grouping(self) -> bool:
        """Whether it does so now; never where the model has no groups of several heads."""

    def group_heads(self, is_wanted: bool) -> None:
        """From now on do so, or no longer."""


@runtime_checkable
class CanRunSingly(Protocol):
    """Engines that can be made exact, where they are not, for the price of speed."""

    def run_singly(self) -> None:
        """From now on run one token of one session at a time."""


@runtime_checkable
class GivesBack(Protocol):
    """Engines whose caches can take memory of the system as they grow, and give it back when they are closed."""

    def give_back_memory(self) -> None:
        """Do so from now on. Raises ``ConfigurationError`` where this system cannot, or a cache is open."""

    def cache_bytes(self, num_tokens: int) -> int:
        """The most memory that a cache takes which was never longer than so many tokens."""


@runtime_checkable
class Pooled(Protocol):
    """Engines whose caches share memory that was taken at the start, and may be less than all of them could fill."""

    @property
    def pool_bytes(self) -> int: ...

    def cache_bytes(self, num_tokens: int) -> int:
        """What a cache takes of it that was never longer than so many tokens."""


@runtime_checkable
class Reserves(Protocol):
    """Engines that can take at once what their passes compute with."""

    def reserve(self, num_rows: int) -> None:
        """Have the memory for passes of up to so many rows from now on, beside weights and caches, so that passes of no shape
        take more. Raises ``CapacityError`` where it cannot be had."""


class ForkableEngine(Engine, Forkable, Protocol):
    """An engine that forks: only a type."""


@runtime_checkable
class Charging(Protocol):
    """Engines whose work takes emulated time, or may (see ``speculation.shaping``)."""

    def take_charge_s(self) -> float | None:
        """Emulated seconds of the work done since the last call; None where none is emulated now."""


@runtime_checkable
class Timed(Protocol):
    """Engines whose emulated time depends on when they work: a phone that rested is cooler."""

    def work_begins(self, now_s: float) -> None:
        """A job begins at this time of the loop's clock."""
