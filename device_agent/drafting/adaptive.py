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
every ``p`` from 0.3 to 0.7, so one share serves all. It is less at either end; but who measures that and stops drafting
measures nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.policy import View
from device_agent.drafting.second_branch import likeliest

UNLIKELY = 0.1
"""Steps in a row end at a path that is less likely than this."""

LEAF_SHARE = 0.1
"""What a further leaf of a step costs, as a share of the first."""

SAVED_PASSES = 0.3
"""What a draft that turns out right saves, in passes: ``p (1 - p) / a`` at the middle of its range."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """At most ``width`` leaves a step. ``price``: seconds of waiting that a second of drafting is worth; 0 drafts always."""

    width: int
    price: float
    gather: int = 1
    says_pass: bool = False
    pass_floor: float = 0.0

    def select(self, view: View) -> Sequence[Branch]:
        chosen: list[Branch] = []
        total = 0.0
        for leaf in likeliest(view, self.width):
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

    def _floor(self, view: View) -> float:
        """The chance from which on a step pays. At the log's end it always does: else nothing would be measured again."""
        if view.pass_s is None or view.step_s is None:
            return 0.0
        return min(1.0, self.price * view.step_s / max(SAVED_PASSES * view.pass_s, 1e-9))
