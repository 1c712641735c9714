"""Who shares the next draft step, as an operating system would have it: priorities, deadlines, promised rates, and no starving.

A step reads the weights once for all that share it, so company is nearly free: nobody waits while there is room beside the
others. What is bounded is how much longer the step takes for those who need it. Pure: times and costs are arguments.

The rule. A first word that matters more than all else, and is near, is written as if it were alone. Else *needed* are the
streams whose promised tokens would come late otherwise; where there are none, all of the highest priority that waits. And in
any case the one that waited longest of those that waited ``STARVED_S``. The others join in order (priority, then the nearest
due time, then who came first) while the step stays within ``SLOWDOWN`` of what it takes for the needed ones alone, or ends
before the first promised token is due. A text that is still to be read is cut into pieces that fit beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from speculation.shaping.costs import Work

SLOWDOWN = 0.1
"""Who needs a step gets it at most so much later for those who join it."""

STARVED_S = 0.5
"""Who waited so long is needed, whatever its priority: one at a time, the one that waited longest first."""

UNPACED_S = 0.1
"""When the next token is due of a stream that has no pace of its own: so long after it asks."""

FIRST_WORD_S = 0.1
"""A first word that needs no more of the phone than this is near. What others add to its steps, a tenth, would be more where it
reaches into one more interrupt of the rest of the phone; they wait no longer for it than for a token without a pace."""

SHORT_WAIT = 0.05
"""Such a first word waits for a step that runs no longer than this share of its own time; else the step is taken back."""

LEAST_CUT = 16
"""A feed of no more tokens than this is taken whole."""

StepCost = Callable[[Sequence[Work]], float]
"""Seconds of a step over these caches."""


class Order(StrEnum):
    """How streams share: by the rule above, or all at once as they come, texts read whole."""

    FAIR = "fair"
    FIRST_COME = "first-come"


@dataclass(frozen=True, slots=True)
class Claim:
    """One stream that waits for a step.

    ``due_s``: when its next token should be there, None where it has no pace. ``is_promised``: that moment was promised.
    ``is_first``: its first word is awaited; a promise counts from there on. ``works``: one for each branch that is to grow.
    """

    priority: int
    since_s: float
    works: tuple[Work, ...]
    due_s: float | None = None
    is_promised: bool = False
    is_first: bool = False

    @property
    def wanted_s(self) -> float:
        return self.since_s + UNPACED_S if self.due_s is None else self.due_s

    @property
    def can_be_cut(self) -> bool:
        """Whether it has a text to read that may be read in pieces."""
        return len(self.works) == 1 and self.works[0].new_tokens > LEAST_CUT


@dataclass(frozen=True, slots=True)
class Grant:
    """Who is in the step: the index of its claim, and for one that is cut how many tokens it reads now (None: all)."""

    index: int
    rows: int | None = None


def first_come(claims: Sequence[Claim]) -> list[Grant]:
    """All at once, whole."""
    return [Grant(index) for index in range(len(claims))]


def fair(claims: Sequence[Claim], now_s: float, step_s: StepCost) -> list[Grant]:
    """Who shares the next step; somebody does where anybody waits."""
    if len(claims) == 1:
        return [Grant(0, _even_piece(claims[0], step_s))]
    if _nothing_to_weigh(claims):
        return first_come(claims)
    late = _late(claims, now_s, step_s)
    order = sorted(range(len(claims)), key=lambda index: _rank(claims[index], index in late))
    highest = max(claim.priority for claim in claims)
    needed = (late or {index for index in order if claims[index].priority == highest}) | _starved(claims, now_s)
    if len(needed) == 1 and _is_near(claims[order[0]], step_s):
        return [Grant(order[0], _even_piece(claims[order[0]], step_s))]
    step = _Step(claims, step_s)
    for index in order:
        if index in needed:
            step.add(index)
    limit_s = max((1 + SLOWDOWN) * step.takes_s, min((claims[index].wanted_s for index in late), default=now_s) - now_s)
    for index in order:  # texts first that somebody needs read, then whoever else finds room
        if index in needed:
            step.read_on(index, limit_s)
    for index in order:
        if index not in needed and step.has_room(index, limit_s):
            step.add(index)
            step.read_on(index, limit_s)
    return step.grants()


def _nothing_to_weigh(claims: Sequence[Claim]) -> bool:
    """All are alike, and nobody reads a text: the usual case, and the rule would let all of them in."""
    first = claims[0].priority
    return all(claim.priority == first and not claim.is_promised and not claim.can_be_cut for claim in claims)


def _is_near(claim: Claim, step_s: StepCost) -> bool:
    """Whether a first word needs little of the phone, its text included."""
    return claim.is_first and step_s(claim.works) <= FIRST_WORD_S


def _rank(claim: Claim, is_late: bool) -> tuple[bool, int, float, float]:
    return not is_late, -claim.priority, claim.wanted_s, claim.since_s


def _late(claims: Sequence[Claim], now_s: float, step_s: StepCost) -> set[int]:
    """Whose promised token would be late if it had to wait for the step behind the next."""
    if not any(claim.is_promised for claim in claims):
        return set()
    until_s = now_s + 2 * step_s([work for claim in claims for work in _least(claim)])
    return {index for index, claim in enumerate(claims) if claim.is_promised and claim.wanted_s < until_s}


def _starved(claims: Sequence[Claim], now_s: float) -> set[int]:
    """Whoever waited longest, where that is too long."""
    first = min(range(len(claims)), key=lambda index: claims[index].since_s)
    return {first} if now_s - claims[first].since_s >= STARVED_S else set()


def _least(claim: Claim) -> tuple[Work, ...]:
    """What it brings at least into a step that it shares."""
    return (_piece(claim, 1),) if claim.can_be_cut else claim.works


def _piece(claim: Claim, rows: int) -> Work:
    return Work(claim.works[0].past_tokens, rows)


def _even_piece(claim: Claim, step_s: StepCost) -> int | None:
    """How much of its text a stream reads at once that nobody else shares the phone with: about what the phone computes while
    it reads the weights once, so that a newcomer waits no longer, and evenly, so that no small rest costs another read."""
    if not claim.can_be_cut:
        return None
    total = claim.works[0].new_tokens
    free = _most_rows(lambda rows: step_s([_piece(claim, rows)]), (1 + SLOWDOWN) * step_s([_piece(claim, 1)]), total)
    return math.ceil(total / max(1, total // free)) if total >= 2 * free else None


def _most_rows(takes_s: Callable[[int], float], limit_s: float, most: int) -> int:
    """The most rows, at least one, of a step that stays within a limit."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if takes_s(middle) <= limit_s else (low, middle - 1)
    return low


class _Step:
    """A step as it is put together."""

    def __init__(self, claims: Sequence[Claim], step_s: StepCost) -> None:
        self._claims = claims
        self._step_s = step_s
        self._works: dict[int, tuple[Work, ...]] = {}

    @property
    def takes_s(self) -> float:
        return self._takes_s(self._works)

    def add(self, index: int) -> None:
        """Into the step, with a single row of a text that can be cut."""
        self._works[index] = _least(self._claims[index])

    def has_room(self, index: int, limit_s: float) -> bool:
        return self._takes_s(self._works | {index: _least(self._claims[index])}) <= limit_s

    def read_on(self, index: int, limit_s: float) -> None:
        """As much of its text as fits the limit."""
        claim = self._claims[index]
        if claim.can_be_cut:
            rows = _most_rows(
                lambda rows: self._takes_s(self._works | {index: (_piece(claim, rows),)}), limit_s, claim.works[0].new_tokens
            )
            self._works[index] = (_piece(claim, rows),)

    def grants(self) -> list[Grant]:
        return [Grant(index, self._rows(index)) for index in sorted(self._works)]

    def _rows(self, index: int) -> int | None:
        claim, (first, *_) = self._claims[index], self._works[index]
        return first.new_tokens if claim.can_be_cut and first.new_tokens < claim.works[0].new_tokens else None

    def _takes_s(self, works: dict[int, tuple[Work, ...]]) -> float:
        return self._step_s([work for of_one in works.values() for work in of_one])
