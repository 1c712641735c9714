"""The first-order model of drafting across a round trip, to hold the production code against. Times in milliseconds. Pure.

It knows positions and not tokens: ``hits`` says of each position whether the draft's first choice is the full model's token. A
draft is on its way for half a round trip, so is a verdict; a step and a pass take fixed times. The request is made at time 0,
and rates count to the end of the last pass. First-order: it gives up a draft step in mid-flight at no cost when a verdict
contradicts it, and a device without room looks again a draft time later.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

DEPTH = 32
LONGEST_SYNC = 16


@dataclass(frozen=True, slots=True)
class Times:
    """A draft step, a pass of the full model, a round trip."""

    draft_ms: float
    pass_ms: float
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy reaches."""

    tokens_per_s: float
    passes_per_token: float


def cloud(times: Times) -> Figures:
    """The full model alone."""
    return Figures(1000 / times.pass_ms, 1.0)


def sync(hits: Sequence[bool], times: Times, num_tokens: int, length: int) -> Figures:
    """Stop and wait: draft ``length`` tokens, send them, wait for the verdict."""
    position = rounds = 0
    while position < num_tokens:
        run = itertools.takewhile(bool, hits[position : position + length])
        position += sum(run) + 1
        rounds += 1
    round_ms = length * times.draft_ms + times.round_trip_ms + times.pass_ms
    return Figures(1000 * position / (rounds * round_ms), rounds / position)


def best_sync(draws: Sequence[Sequence[bool]], times: Times, num_tokens: int) -> tuple[Figures, int]:
    """Stop and wait with the fixed length that serves all these draws best."""
    lengths = range(1, LONGEST_SYNC + 1)
    tried = [(mean_of([sync(hits, times, num_tokens, length) for hits in draws]), length) for length in lengths]
    return max(tried, key=lambda pair: pair[0].tokens_per_s)


def mean_of(figures: Sequence[Figures]) -> Figures:
    """Over several draws of one process."""
    return Figures(mean(f.tokens_per_s for f in figures), mean(f.passes_per_token for f in figures))


def ahead(hits: Sequence[bool], times: Times, num_tokens: int, depth: int = DEPTH) -> Figures:
    """One branch in flight: the device drafts on, the verifier never waits. ``depth`` bounds the drafts ahead."""
    return _Ahead(hits, times, depth).run(num_tokens)


class _Ahead:
    """Device and verifier, each with what it knows, and the events between them."""

    def __init__(self, hits: Sequence[bool], times: Times, depth: int) -> None:
        self._hits, self._times, self._depth = hits, times, depth
        self._half_ms = times.round_trip_ms / 2
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now_ms = self._last_pass_ms = 0.0
        self._known = self._tip = self._turn = 0
        self._left_at: int | None = None
        self._arrived: set[int] = set()
        self._final = self._passes = 0

    def run(self, num_tokens: int) -> Figures:
        self._in(0.0, lambda: self._draft(0))
        self._in(self._half_ms, self._start_pass)
        while self._final < num_tokens:
            self._now_ms, _, act = heapq.heappop(self._agenda)
            act()
        return Figures(1000 * self._final / self._last_pass_ms, self._passes / self._final)

    def _in(self, delay_ms: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self._now_ms + delay_ms, next(self._order), act))

    def _draft(self, turn: int) -> None:
        """Begin a step; ``turn`` is outdated where a verdict has set the device back since."""
        if turn != self._turn:
            return
        if self._tip - self._known < self._depth and self._tip < len(self._hits):
            self._draft_at(self._tip)
            self._tip += 1
        self._in(self._times.draft_ms, lambda: self._draft(turn))

    def _draft_at(self, position: int) -> None:
        if self._left_at is None and self._hits[position]:
            self._in(self._times.draft_ms + self._half_ms, lambda: self._arrived.add(position))
        elif self._left_at is None:
            self._left_at = position

    def _start_pass(self) -> None:
        run = next(m for m in itertools.count() if self._final + m not in self._arrived)
        self._in(self._times.pass_ms, lambda: self._end_pass(run))

    def _end_pass(self, run: int) -> None:
        self._passes += 1
        self._final += run + 1
        self._last_pass_ms = self._now_ms
        final = self._final
        self._in(self._half_ms, lambda: self._learn(final))
        self._in(0.0, self._start_pass)

    def _learn(self, final: int) -> None:
        """A verdict: what left the true path below it is given up, and so is a device that was overtaken."""
        self._known = final
        if self._tip >= final and (self._left_at is None or self._left_at >= final):
            return
        self._turn += 1
        self._tip, self._left_at = final, None
        turn = self._turn
        self._in(0.0, lambda: self._draft(turn))
