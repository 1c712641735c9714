"""What a device drafts in a load test: the pair's recorded proposals, which cost nothing, or what the text itself suggests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from benchmarks.trace_file import FIRST, Trace
from speculation.engines.lookup import guess, repeats_of


class Drafter(Protocol):
    """Says one token at a time."""

    def next(self, generated: Sequence[int], path: Sequence[int]) -> int | None:
        """What may follow the final tokens and the drafts behind them; None where there is nothing to say."""
        ...


class Recorded:
    """The draft model's own proposals, recorded behind every true prefix, and behind its first choices that were wrong."""

    def __init__(self, trace: Trace) -> None:
        self._true: list[int] = trace.token_ids.tolist()
        self._said: list[int] = trace.said.token_ids[:, FIRST].tolist()
        wrong = [branch for branch in trace.branches if branch.rank == FIRST]
        self._branches: dict[int, list[int]] = {branch.offset: branch.said.token_ids[:, FIRST].tolist() for branch in wrong}

    def next(self, generated: Sequence[int], path: Sequence[int]) -> int | None:
        text = [*generated, *path]
        wrong: int = next((at for at, pair in enumerate(zip(text, self._true, strict=False)) if pair[0] != pair[1]), len(text))
        if wrong == len(text):
            return self._said[wrong] if wrong < len(self._said) else None
        return self._beside(wrong, text[wrong:])

    def _beside(self, offset: int, text: Sequence[int]) -> int | None:
        """What was said behind a wrong first choice, along the draft's own way."""
        said: list[int] = [self._said[offset], *self._branches.get(offset, ())]
        if len(text) >= len(said) or list(text) != said[: len(text)]:
            return None
        return said[len(text)]


class FromText:
    """What followed where the text last read like this, prompt included."""

    def __init__(self, prompt: Sequence[int], vocabulary_size: int) -> None:
        self._prompt = list(prompt)
        self._vocabulary_size = vocabulary_size

    def next(self, generated: Sequence[int], path: Sequence[int]) -> int | None:
        text = np.array([*self._prompt, *generated, *path], np.int64)
        found = guess(text, repeats_of(text), self._vocabulary_size)
        return int(found.token_ids[np.argmax(found.chances)])


class Nonsense:
    """Any token at all: drafts that cost the verifier the most."""

    def __init__(self, vocabulary_size: int, chance: random.Random) -> None:
        self._vocabulary_size = vocabulary_size
        self._chance = chance

    def next(self, generated: Sequence[int], path: Sequence[int]) -> int | None:
        return self._chance.randrange(self._vocabulary_size)
