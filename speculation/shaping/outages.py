"""Times at which a network carries nothing, planned or drawn by chance. Pure.

In an outage nothing moves, then everything: what was being sent goes on at its end, what was under way arrives at its end.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from speculation.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Outage:
    """From ``start_s`` on, and before ``end_s``; in seconds since the network began."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s < math.inf:
            raise ConfigurationError(
                f"an outage begins at 0 s or later and ends after that, not {self.start_s:g} to {self.end_s:g} s"
            )


_NEVER = (math.inf, math.inf)


class Outages:
    """The outages of one network, shared by both of its directions. ``origin_s`` is when the network began.

    ``plan`` in any order; overlapping ones become one. Where ``between_s`` is finite, outages of a mean length ``lasting_s``
    follow each other after a mean time ``between_s``, both drawn from exponential distributions: a Poisson process that waits
    for the end of each.
    """

    def __init__(
        self,
        plan: Iterable[Outage] = (),
        *,
        between_s: float = math.inf,
        lasting_s: float = 0.0,
        seed: int = 0,
        origin_s: float = 0.0,
    ) -> None:
        self._between_s = between_s
        self._lasting_s = lasting_s
        self._random = random.Random(f"outages {seed}")
        self._planned = _joined((origin_s + outage.start_s, origin_s + outage.end_s) for outage in plan)
        self._drawn: list[tuple[float, float]] = []
        self._drawn_until_s = origin_s

    def open_at(self, time_s: float) -> float:
        """``time_s``, or the end of the outages that it lies in."""
        while (outage := self._next(time_s))[0] <= time_s:
            time_s = outage[1]
        return time_s

    def done_at(self, start_s: float, work_s: float) -> float:
        """When so many seconds of work are done that begin at ``start_s`` and rest in outages."""
        time_s = self.open_at(start_s)
        while (outage := self._next(time_s))[0] < time_s + work_s:
            work_s -= outage[0] - time_s
            time_s = self.open_at(outage[1])
        return time_s + work_s

    def _next(self, time_s: float) -> tuple[float, float]:
        """The outage that lies around ``time_s``, else the next one."""
        self._draw(time_s)
        return min(_first_ending_after(self._planned, time_s), _first_ending_after(self._drawn, time_s))

    def _draw(self, time_s: float) -> None:
        """Outages until one of them ends after ``time_s``."""
        if not (self._between_s < math.inf and self._lasting_s > 0):
            return
        while self._drawn_until_s <= time_s:
            start_s = self._drawn_until_s + self._random.expovariate(1 / self._between_s)
            self._drawn_until_s = start_s + self._random.expovariate(1 / self._lasting_s)
            self._drawn.append((start_s, self._drawn_until_s))


def _first_ending_after(outages: list[tuple[float, float]], time_s: float) -> tuple[float, float]:
    index = bisect_right(outages, time_s, key=lambda outage: outage[1])
    return outages[index] if index < len(outages) else _NEVER


def _joined(outages: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted(outages):
        if joined and start_s <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end_s, joined[-1][1]))
        else:
            joined.append((start_s, end_s))
    return joined
