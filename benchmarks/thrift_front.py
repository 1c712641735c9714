"""Fronts of rate against passes a token, and two of them held against each other. Pure.

A server that has only so many passes to give a token takes, of all settings that need no more, the fastest. Between two
settings it can mix: some answers with one, the others with the next. Both the passes and the seconds of a mix are linear in the
share of tokens, so between two points of a front the seconds a token are linear in the passes a token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.first_order import Figures

BUDGET = 0.42
"""Passes a token at which the fronts are compared, where both reach it."""

LEAST_RATIO = 1.3


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting reaches."""

    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Reached:
    """The rate that a front gives for so many passes a token, and the one or two settings that give it."""

    tokens_per_s: float
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two fronts at ``passes_per_token``; ``bound_by`` names the front that does not go down to the budget, if one."""

    passes_per_token: float
    bound_by: str | None
    ours: Reached
    theirs: Reached

    @property
    def ratio(self) -> float:
        return self.ours.tokens_per_s / self.theirs.tokens_per_s

    @property
    def is_missed(self) -> bool:
        return self.ratio < LEAST_RATIO


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in one of the two without losing in the other; fewest passes first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.figures.passes_per_token, -p.figures.tokens_per_s)):
        if not kept or point.figures.tokens_per_s > kept[-1].figures.tokens_per_s:
            kept.append(point)
    return kept


def shortlist(points: Sequence[Point], slack: float) -> list[Point]:
    """The points that might be on the front, were they measured again: none is faster by ``slack`` with no more passes."""
    ceiling = front(points)
    return [point for point in points if point.figures.tokens_per_s * (1 + slack) >= _best_within(ceiling, point)]


def reached(front_points: Sequence[Point], passes_per_token: float) -> Reached:
    """The rate for at most so many passes a token. Raises ``ValueError`` where the front needs more."""
    if passes_per_token < fewest(front_points):
        raise ValueError(f"the front begins at {fewest(front_points):.3f} passes a token, not at {passes_per_token:.3f}")
    for lower, upper in itertools.pairwise(front_points):
        if passes_per_token < upper.figures.passes_per_token:
            return _mixed(lower, upper, passes_per_token)
    return Reached(front_points[-1].figures.tokens_per_s, (front_points[-1].name,))


def fewest(front_points: Sequence[Point]) -> float:
    """Passes a token at which a front begins."""
    return front_points[0].figures.passes_per_token


def compare(ours: Sequence[Point], theirs: Sequence[Point], budget: float = BUDGET) -> Comparison:
    """Two fronts at the budget, or at the fewest passes that both reach where that is more."""
    least = {"ours": fewest(ours), "stop-and-wait": fewest(theirs)}
    latest = max(least, key=lambda name: least[name])
    bound_by = latest if least[latest] > budget else None
    at = max(budget, least[latest])
    return Comparison(at, bound_by, reached(ours, at), reached(theirs, at))


def _mixed(lower: Point, upper: Point, passes_per_token: float) -> Reached:
    few, many = lower.figures, upper.figures
    share = (passes_per_token - few.passes_per_token) / (many.passes_per_token - few.passes_per_token)
    if share == 0:
        return Reached(few.tokens_per_s, (lower.name,))
    seconds_per_token = (1 - share) / few.tokens_per_s + share / many.tokens_per_s
    return Reached(1 / seconds_per_token, (lower.name, upper.name))


def _best_within(front_points: Sequence[Point], point: Point) -> float:
    """The best rate of a front with no more passes than a point needs."""
    within = [p for p in front_points if p.figures.passes_per_token <= point.figures.passes_per_token]
    return within[-1].figures.tokens_per_s
