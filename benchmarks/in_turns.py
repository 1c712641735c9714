"""One engine in several forms, their passes taking turns: CPU time of the middle one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from speculation.engines.base import Chunk
from speculation.engines.onnx import OnnxEngine

PAST, NUM_SLOTS, IN_A_ROW = 64, 16, 3
"""Tokens behind each session, sessions of an engine, and passes of a turn beside the first, which finds the other engine's
weights in the processor's caches and is left out."""

Passes = Mapping[str, tuple[int, int]]
"""Sessions and rows of each pass that is timed."""


class Sessions:
    """An engine whose slots all hold a text of ``past`` tokens."""

    def __init__(self, engine: OnnxEngine, past: int = PAST) -> None:
        self.engine, self._past = engine, past
        self.caches = [engine.open() for _ in range(NUM_SLOTS)]
        self.engine.extend([Chunk(cache, _tokens(past), 0) for cache in self.caches])

    def pass_s(self, num_sessions: int, rows: int) -> float:
        """CPU seconds of one pass, and the way back beside it."""
        chunks = [Chunk(cache, _tokens(rows), rows) for cache in self.caches[:num_sessions]]
        began_s = time.thread_time()
        self.engine.extend(chunks)
        took_s = time.thread_time() - began_s
        for chunk in chunks:
            self.engine.truncate(chunk.cache, self._past)
        return took_s


def middle_ms(stages: Mapping[str, Sessions], passes: Passes, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of the middle pass, by form and pass."""
    took_s: dict[str, dict[str, list[float]]] = {name: {label: [] for label in passes} for name in stages}
    for number in range(rounds):
        for name in _rotated(list(stages), number):
            for label, shape in passes.items():
                took_s[name][label] += [stages[name].pass_s(*shape) for _ in range(1 + IN_A_ROW)][1:]
    return {name: {label: 1000 * median(s) for label, s in found.items()} for name, found in took_s.items()}


def _rotated(names: Sequence[str], by: int) -> Iterator[str]:
    start = by % len(names)
    yield from (*names[start:], *names[:start])


def _tokens(count: int) -> list[int]:
    return [1 + number % 255 for number in range(count)]
