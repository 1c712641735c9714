"""The first-order model of drafting ahead, with one branch or several. Times in milliseconds. Pure.

A draft step extends the likeliest leaves of the tree at once, as many as the width; both choices behind an extended leaf
become leaves where the width is over 1. Drafts are on their way for half a round trip, and so are verdicts. A pass runs the
chain of first choices that has arrived, and makes one token more final; where another branch holds that token, what has arrived
behind it is run by the next pass.

First-order: a step whose outcomes a verdict has all made worthless is given up in mid-flight at no cost, there are no messages
and no credit, and a device that may draft no deeper looks again a draft time later, or when a verdict left nothing of its tree.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from benchmarks.first_order import Figures, Times

DEPTH = 32
"""Drafts behind the final tokens that the device knows, on any one path."""

FIRST, SECOND = 0, 1
LEAST_CHANCE = 1e-300

P = TypeVar("P")
"""A path: some tokens in a row, named in whatever way the process likes."""


class Process(Protocol[P]):
    """Synthetic acceptance. The model asks ``taken`` of the full model's own path only, and drafts by ``chances`` alone."""

    def start(self) -> P:
        """Where the text begins."""

    def chances(self, path: P) -> tuple[float, float]:
        """How likely the draft's first and second choice behind a path are to be taken, given the path."""

    def taken(self, path: P) -> int:
        """Which of the draft's choices the full model takes behind a path: ``FIRST``, ``SECOND``, or another number."""

    def follow(self, path: P, rank: int) -> P:
        """The path and one of those tokens."""


def ahead(process: Process[P], times: Times, num_tokens: int, width: int = 1, depth: int = DEPTH) -> Figures:
    """The device drafts on, the verifier never waits."""
    return _Ahead(process, times, width, depth, is_thrifty=False).run(num_tokens)


def thrifty(process: Process[P], times: Times, num_tokens: int, width: int = 1, depth: int = DEPTH) -> Figures:
    """The device drafts on; a pass runs only once some draft for the next position has arrived."""
    return _Ahead(process, times, width, depth, is_thrifty=True).run(num_tokens)


class Truth(Generic[P]):
    """What the full model takes, position by position, found as it is asked for."""

    def __init__(self, process: Process[P]) -> None:
        self._process = process
        self._paths = [process.start()]
        self._ranks: list[int] = []

    def rank(self, position: int) -> int:
        while len(self._ranks) <= position:
            path = self._paths[-1]
            self._ranks.append(self._process.taken(path))
            self._paths.append(self._process.follow(path, self._ranks[-1]))
        return self._ranks[position]

    def path(self, position: int) -> P:
        """The full model's own tokens up to a position."""
        if position:
            self.rank(position - 1)
        return self._paths[position]

    def hits(self, count: int) -> tuple[bool, ...]:
        """Where the first choice is right."""
        return tuple([self.rank(position) == FIRST for position in range(count)])


@dataclass(frozen=True, slots=True, eq=False)
class _Leaf(Generic[P]):
    """A path that nothing is drafted behind yet, or what a step under way will give.

    ``position`` is that of the token behind it. ``left_at``: where the path leaves the full model's own, None if nowhere.
    """

    path: P
    position: int
    log_chance: float
    left_at: int | None

    def stands(self, final: int) -> bool:
        """Whether the first ``final`` tokens leave it alive."""
        return self.position >= final and (self.left_at is None or self.left_at >= final)


class _Ahead(Generic[P]):
    """Device and verifier, each with what it knows, and the events between them."""

    def __init__(self, process: Process[P], times: Times, width: int, depth: int, is_thrifty: bool) -> None:
        self._process, self._times, self._width, self._depth = process, times, width, depth
        self._truth = Truth(process)
        self._is_thrifty = is_thrifty
        self._half_ms = times.round_trip_ms / 2
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now_ms = self._last_pass_ms = 0.0
        # The device.
        self._known = self._turn = 0
        self._leaves = [self._fresh(0)]
        self._growing: Sequence[_Leaf[P]] = ()
        # The verifier: positions whose right token came as a first choice, and those that any draft on the right path came for.
        self._arrived: set[int] = set()
        self._tried: set[int] = set()
        self._final = self._passes = 0
        self._is_busy = False

    def run(self, num_tokens: int) -> Figures:
        self._in(0.0, lambda: self._draft(0))
        self._in(self._half_ms, self._start_pass)
        while self._final < num_tokens:
            self._now_ms, _, act = heapq.heappop(self._agenda)
            act()
        return Figures(1000 * self._final / self._last_pass_ms, self._passes / self._final)

    def _in(self, delay_ms: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self._now_ms + delay_ms, next(self._order), act))

    def _fresh(self, position: int) -> _Leaf[P]:
        return _Leaf(self._truth.path(position), position, 0.0, None)

    def _draft(self, turn: int) -> None:
        """Begin a step; ``turn`` is outdated where a verdict has set the device back since."""
        if turn != self._turn:
            return
        # Leaves are kept with the likeliest first.
        chosen = [leaf for leaf in self._leaves if leaf.position - self._known < self._depth][: self._width]
        self._growing = [child for leaf in chosen for child in self._children(leaf)]
        others = [leaf for leaf in self._leaves if leaf not in chosen]
        self._leaves = heapq.nlargest(4 * self._width + 4, [*others, *self._growing], key=_log_chance)
        if chosen:
            tried = [leaf.position for leaf in chosen if leaf.left_at is None]
            hits = [position for position in tried if self._truth.rank(position) == FIRST]
            self._in(self._times.draft_ms + self._half_ms, lambda: self._arrive(hits, tried))
        self._in(self._times.draft_ms, lambda: self._draft(turn))

    def _children(self, leaf: _Leaf[P]) -> list[_Leaf[P]]:
        ranks = (FIRST, SECOND) if self._width > 1 else (FIRST,)
        chances = self._process.chances(leaf.path)
        return [self._child(leaf, rank, chances[rank]) for rank in ranks]

    def _child(self, leaf: _Leaf[P], rank: int, chance: float) -> _Leaf[P]:
        left_at = leaf.left_at
        if left_at is None and self._truth.rank(leaf.position) != rank:
            left_at = leaf.position
        log_chance = leaf.log_chance + math.log(max(chance, LEAST_CHANCE))
        return _Leaf(self._process.follow(leaf.path, rank), leaf.position + 1, log_chance, left_at)

    def _arrive(self, hits: Sequence[int], tried: Sequence[int]) -> None:
        self._arrived.update(hits)
        self._tried.update(tried)
        if self._is_thrifty:
            self._start_pass()

    def _start_pass(self) -> None:
        if self._is_busy or (self._is_thrifty and self._final not in self._tried):
            return
        self._is_busy = True
        run = next(m for m in itertools.count() if self._final + m not in self._arrived)
        self._in(self._times.pass_ms, lambda: self._end_pass(run))

    def _end_pass(self, run: int) -> None:
        self._is_busy = False
        self._passes += 1
        self._final += run + 1
        self._last_pass_ms = self._now_ms
        final = self._final
        self._in(self._half_ms, lambda: self._learn(final))
        self._in(0.0, self._start_pass)

    def _learn(self, final: int) -> None:
        """A verdict: what contradicts it is forgotten, and a step that works on nothing else is given up."""
        self._known = final
        self._leaves = [leaf for leaf in self._leaves if leaf.stands(final)]
        is_lost = not self._leaves
        if is_lost:
            self._leaves = [self._fresh(final)]
        if is_lost or (self._growing and not any(leaf.stands(final) for leaf in self._growing)):
            self._turn += 1
            turn = self._turn
            self._in(0.0, lambda: self._draft(turn))


def _log_chance(leaf: _Leaf[P]) -> float:
    return leaf.log_chance
