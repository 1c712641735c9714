"""Length and width from what was measured: a step is taken while what it may save is worth what it costs. Pure.

The cost model: an answer costs its time, and ``price`` seconds for each second of drafting. Let ``J`` be what a token costs on
average. A draft that turns out right makes a pass give one token more, so it saves ``J``; a leaf that is reached with chance
``c`` saves ``c J`` (the marginal rule of renewal-reward processes: go on while a gain is worth the average). A step over leaves
``i`` takes ``step_s`` times ``1 + LEAF_SHARE (n - 1)``, so it pays where

    sum(c_i) J  >=  price step_s (1 + LEAF_SHARE (n - 1)).

Where memory bandwidth bounds a step, its first leaf pays for reading the weights and the others for little. A leaf more is
worth its share of the step while it lifts the chances that a second of drafting brings: ``c_i >= LEAF_SHARE sum(c_j)`` over
those before it. A leaf left out is there again in the next step. The cost is that of finding the likeliest leaves.

``J`` is a share of a pass. Where a token takes ``p`` passes, it costs ``J = p`` passes. Of the drafts that are right, which are
a share ``a`` of the tokens, those that came in time are the tokens that needed no pass, ``1 - p``. So a right draft saves
``p (1 - p) / a`` passes: with few passes a token is cheap, with many a draft is late. For ``a`` = 0.8 that is 0.26 to 0.31 for
every ``p`` from 0.3 to 0.7, and for 0.6 0.35 to 0.42, so one share serves all. It is less at either end.

Where ``p`` comes near 1 the device is late, and the question is another: can it get ahead at all? When a draft was wrong it is
``lag`` passes behind, and each of them brings a token without it. In a pass it drafts ``1 / s`` tokens, ``s`` being a step in
passes, so it draws level after ``m = lag / (1 - s)`` drafts that must all be right, and from then on each saves ``1 - s``
passes. With an acceptance ``a`` there are ``a^m / (1 - a)`` of those until one is wrong again; of that the device hears ``lag``
passes later, and has taken ``1 / (1 - a) + lag / s`` steps. Running ahead pays where what it saves is a fair part of its cost:

    a^m (1 - s)  >=  FAIR_PART price s (1 + (1 - a) lag / s).

Where it does not, the device waits for verdicts, but for one stretch of the text in so many: else nothing would be measured
again, neither an acceptance nor a way that could bring it back.

Beside passes of a few milliseconds a step is mostly its hand-over between threads. There one branch goes on alone: several of
its steps share a hand-over, and a second branch would come too late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.gathering import SHORTEST_PASS_S
from device_agent.drafting.policy import View
from device_agent.drafting.second_branch import likeliest

UNLIKELY = 0.1
"""Steps in a row end at a path that is less likely than this."""

LEAF_SHARE = 0.1
"""What a further leaf of a step costs, as a share of the first."""

SAVED_PASSES = 0.4
"""What a draft that turns out right saves, in passes: rather much for ``p (1 - p) / a``, which counts those that are late, and
most of them are not made. From 0.35 to 0.5 the cells of ``python -m benchmarks.adaptive`` hardly change."""

FAIR_PART = 0.05
"""Far below 1, since the estimate knows nothing of second branches, nor of steps that are not taken because they would not pay.
In the cells of ``python -m benchmarks.adaptive`` running ahead broke even where it said 0.1 to 0.2."""

STRETCH, STRETCH_PERIOD = 8, 40
"""Where running ahead does not pay it is done all the same in the first tokens of every period: positions, and positions."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """At most ``width`` leaves a step. ``price``: seconds of waiting that a second of drafting is worth; 0 drafts always."""

    width: int
    price: float
    gather: int = 1
    says_pass: bool = False
    pass_floor: float = 0.0

    def select(self, view: View) -> Sequence[Branch]:
        if view.branches.root.position % STRETCH_PERIOD >= STRETCH and not self._may_get_ahead(view):
            return []
        chosen: list[Branch] = []
        total = 0.0
        for leaf in likeliest(view, 1 if _is_hurried(view) else self.width):
            chance = view.branches.chance_of(leaf)
            if chosen and chance < LEAF_SHARE * total:
                break
            chosen.append(leaf)
            total += chance
        takes_steps = 1 + LEAF_SHARE * (len(chosen) - 1)
        return chosen if total >= takes_steps * self._floor(view) else []

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        """As far as the path of the likeliest may still be right, by the acceptance that was measured."""
        chance = view.branches.chance_of(leaves[0])
        if view.acceptance is None or chance <= UNLIKELY:
            return 1
        if view.acceptance >= 1:
            return view.depth
        return 1 + int(math.log(UNLIKELY / chance) / math.log(max(view.acceptance, UNLIKELY)))

    def _may_get_ahead(self, view: View) -> bool:
        """Whether running ahead of the verifier pays a fair part of its cost, as far as is known."""
        acceptance, lag = view.usual_acceptance, view.lag
        if not self.price or not lag or acceptance is None or not view.step_s or not view.pass_s:
            return True
        step = view.step_s / view.pass_s
        if step >= 1:
            return False
        saved: float = acceptance ** (lag / (1 - step)) * (1 - step)
        return saved >= FAIR_PART * self.price * step * (1 + (1 - acceptance) * lag / step)

    def _floor(self, view: View) -> float:
        """The chance from which on a step pays, at most that of the log's end: behind that a draft is always worth it."""
        if view.pass_s is None or view.step_s is None:
            return 0.0
        return min(1.0, self.price * view.step_s / max(SAVED_PASSES * view.pass_s, 1e-9))


def _is_hurried(view: View) -> bool:
    """Whether there is no time for branches: a single leaf takes several steps in the time of one with company."""
    return view.burst > 1 and view.pass_s is not None and view.pass_s < SHORTEST_PASS_S
