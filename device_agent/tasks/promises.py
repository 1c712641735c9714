"""What a phone may promise: rates of tokens that it can keep all at once, whatever else it is asked to do beside. Pure.

A step reads the weights once for all that take part, and each one's keys and values. So streams that want r_1, r_2 ... tokens a
second need max(r) reads of the weights a second, and r_i of each cache: together less than a second, with the share left that
others may slow a step by (``turns.SLOWDOWN``), and some to catch up with. Beside a verifier a text also comes no faster than
passes, round trips and agreement let it, whatever the phone does: how fast that is is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from device_agent.drafting.turns import SLOWDOWN, StepCost
from speculation.errors import CapacityError, InvalidRequestError
from speculation.shaping.costs import Work

PARAMETER = "tokens_per_s"

CATCH_UP = 0.1
"""The share of steps that is not promised: a text that fell behind while others began has to catch up. With none left, rates at
the limit came a thousandth too slowly, on a phone that is interrupted a twentieth."""

SPARE = (1 - CATCH_UP) / (1 + SLOWDOWN)

LEAST_TOKENS, FADING = 50.0, 0.7
"""Tokens before a pace is known, and what each answer leaves of those before: the last few count."""


@dataclass(frozen=True, slots=True)
class Promise:
    """So many tokens a second, behind up to ``num_tokens`` of cache."""

    tokens_per_s: float
    num_tokens: int


def highest_rate(made: Iterable[Promise], num_tokens: int, step_s: StepCost) -> float:
    """The most tokens a second that can be promised beside what was, behind so many tokens of cache; 0: none."""
    made = list(made)
    weights_s = step_s([Work(0, 1)])
    spare = SPARE - sum(each.tokens_per_s * _cache_s(each.num_tokens, weights_s, step_s) for each in made)
    fastest = max((each.tokens_per_s for each in made), default=0.0)
    cache_s = _cache_s(num_tokens, weights_s, step_s)
    alone = spare / (weights_s + cache_s)  # where it is the fastest, its steps are all there are
    if alone >= fastest:
        return alone
    left = spare - fastest * weights_s
    return max(0.0, min(fastest, left / cache_s if cache_s > 0 else math.copysign(math.inf, left)))


def _cache_s(num_tokens: int, weights_s: float, step_s: StepCost) -> float:
    """What one more in a step adds to it."""
    return max(0.0, step_s([Work(0, 1), Work(num_tokens, 1)]) - weights_s)


class Pace:
    """How fast texts came beside a verifier lately, each by itself: as a rate is counted, from the first token on."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def came(self, num_tokens: int, seconds: float) -> None:
        """An answer of so many tokens behind the first, in that time."""
        self._tokens = FADING * self._tokens + num_tokens
        self._seconds = FADING * self._seconds + seconds

    @property
    def tokens_per_s(self) -> float | None:
        """None as long as it is not known."""
        return self._tokens / self._seconds if self._tokens >= LEAST_TOKENS and self._seconds > 0 else None


class Promises:
    """Those that were made and are still to be kept. ``cost`` gives what steps cost now; None where that is not known: then
    nothing can be refused. ``pace`` is that of texts beside a verifier."""

    def __init__(self, cost: Callable[[], StepCost | None]) -> None:
        self.pace = Pace()
        self._cost = cost
        self._made: list[Promise] = []

    def make(self, tokens_per_s: float | None, num_tokens: int, is_alone: bool = True) -> Promise | None:
        """Promise that rate to a device that is ``is_alone``, or to one beside a verifier; None where none is wanted.

        Raises ``InvalidRequestError`` for one that this phone could not keep for anybody, ``CapacityError`` for one that it
        cannot keep beside what it promised, or beside this verifier; all tell the highest that would do.
        """
        if tokens_per_s is None:
            return None
        if not is_alone:
            self._check_pace(tokens_per_s)
        step_s = self._cost()
        if step_s is not None:
            self.judge(tokens_per_s, num_tokens)
            self._check(tokens_per_s, num_tokens, step_s)
        promise = Promise(tokens_per_s, num_tokens)
        self._made.append(promise)
        return promise

    def end(self, promise: Promise | None) -> None:
        """It needs not be kept any more."""
        if promise is not None:
            self._made.remove(promise)

    def judge(self, tokens_per_s: float | None, num_tokens: int) -> None:
        """Whether the rate could be kept if nothing were promised. Raises ``InvalidRequestError`` as ``make`` does."""
        step_s = self._cost()
        if tokens_per_s is None or step_s is None:
            return
        alone = highest_rate((), num_tokens, step_s)
        if tokens_per_s > alone:
            what = f"this phone can promise at most {_told(alone)} tokens a second behind {num_tokens} tokens"
            raise InvalidRequestError(f"{PARAMETER} must be at most {_told(alone)}, not {tokens_per_s:g}: {what}", PARAMETER)

    def _check_pace(self, tokens_per_s: float) -> None:
        pace = self.pace.tokens_per_s
        if pace is not None and tokens_per_s > SPARE * pace:
            why = f"beside this verifier texts came at {_told(pace)} tokens a second lately"
            advice = f"ask for {_told(SPARE * pace)}, use mode device, or leave it out"
            raise CapacityError(f"{PARAMETER} {tokens_per_s:g} cannot be promised: {why}; {advice}")

    def _check(self, tokens_per_s: float, num_tokens: int, step_s: StepCost) -> None:
        highest = highest_rate(self._made, num_tokens, step_s)
        if tokens_per_s > highest:
            why = f"beside {len(self._made)} that it promised already this phone has {_told(highest)} tokens a second left"
            advice = f"ask for {_told(highest)}" if highest >= 1 else "ask again once one of those answers is over"
            raise CapacityError(f"{PARAMETER} {tokens_per_s:g} cannot be promised: {why}; {advice}, or leave it out")


def _told(tokens_per_s: float) -> str:
    """Rounded down, so that what is told can be had."""
    return f"{math.floor(tokens_per_s * 10) / 10:g}"
