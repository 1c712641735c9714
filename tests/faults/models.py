"""The seam between scenes and the pairs that they are played with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.pair import PairFacts
from device_agent.request import StreamRequest
from tests.faults.tables import Tracked


@dataclass(frozen=True, slots=True)
class Models:
    """A pair, and what plain decoding of its full model writes for a request. ``companion`` drafts inside a verifier."""

    facts: PairFacts
    draft: Callable[[], Tracked]
    full: Callable[[], Tracked]
    companion: Callable[[], Tracked]
    plain: Callable[[StreamRequest], Sequence[int]]


class Pair(Protocol):
    """Where scenes take their models and prompts from."""

    def models(self, seed: int, rng: random.Random, num_streams: int) -> Models: ...

    def prompt(self, rng: random.Random) -> str: ...

    def max_tokens(self, rng: random.Random) -> int: ...
