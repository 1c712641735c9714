"""How far a text is from the one it should be, in tokens; and what a choice of prompts could gain at best. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


def agreement(text: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of positions that hold the same token; a text that ends early, or late, differs there."""
    longest = max(len(text), len(wanted))
    return sum(ours == theirs for ours, theirs in zip(text, wanted, strict=False)) / longest if longest else 1.0


def distance(text: Sequence[int], wanted: Sequence[int]) -> float:
    """Levenshtein's distance in tokens, over the length of the longer: 0 is the same text, 1 has nothing in common."""
    before = list(range(len(wanted) + 1))
    for row, ours in enumerate(text, 1):
        here = [row]
        for column, theirs in enumerate(wanted, 1):
            here.append(min(before[column] + 1, here[-1] + 1, before[column - 1] + (ours != theirs)))
        before = here
    longest = max(len(text), len(wanted))
    return before[-1] / longest if longest else 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """What a way of routing gets: mean agreement, at so many passes of the full model, as a share of those without routing."""

    passes: float
    agreement: float


def area(points: Sequence[Point]) -> float:
    """Under the curve of agreement over passes, from 0 to 1, by trapezoids; the points need no order."""
    ordered = sorted(points, key=lambda point: (point.passes, point.agreement))
    return sum((b.passes - a.passes) * (a.agreement + b.agreement) / 2 for a, b in itertools.pairwise(ordered))


def best(agreements: Sequence[float], passes: Sequence[int]) -> list[Point]:
    """The curve of somebody who knows beforehand what each prompt's draft is worth, and sends first what gains most a pass."""
    order = sorted(range(len(passes)), key=lambda index: (agreements[index] - 1) / passes[index])
    agreed, spent, points = sum(agreements), 0, []
    for index in [None, *order]:
        if index is not None:
            agreed, spent = agreed + 1 - agreements[index], spent + passes[index]
        points.append(Point(spent / sum(passes), agreed / len(passes)))
    return points


def skill(points: Sequence[Point], ideal: Sequence[Point]) -> float | None:
    """Of the area between routing by lot and routing by knowledge, the share that this has; None where there is none.

    A draft that began alone may cost a pass more than one that did not: what is over all passes counts as all of them.
    """
    lot = area([ideal[0], ideal[-1]])
    room = area(ideal) - lot
    bounded = [Point(min(1.0, point.passes), point.agreement) for point in points]
    return (area([ideal[0], *bounded, ideal[-1]]) - lot) / room if room > 0 else None
