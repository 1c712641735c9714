"""Length and width from what was measured: a step is taken while what it may save is worth what it costs. Pure.

A draft that turns out right saves its reader up to a pass of the full model; a draft step costs the phone its time, and with it
energy and heat. A leaf that is reached with chance ``c`` is worth ``c`` passes, so it grows while ``c * pass_s`` is at least
``price * step_s``. Where memory bandwidth bounds a step, its first leaf pays for reading the weights and the others for little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.policy import View
from device_agent.drafting.second_branch import likeliest

EVEN = 0.5
"""Even odds."""

LEAF_SHARE = 0.1
"""What a further leaf of a step costs, as a share of the first."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """At most ``width`` leaves a step. ``price``: seconds of waiting that a second of drafting is worth; 0 drafts always."""

    width: int
    price: float
    gather: int = 1
    says_pass: bool = False

    def select(self, view: View) -> Sequence[Branch]:
        leaves = likeliest(view, self.width)
        floor = self._floor(view)
        chances = [view.branches.chance_of(leaf) for leaf in leaves]
        if sum(chances) < floor:
            return []
        return [leaf for leaf, chance in zip(leaves, chances, strict=True) if chance >= LEAF_SHARE * floor]

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        """As far as the likeliest of them stays more likely right than wrong, by the acceptance that was measured."""
        chance = view.branches.chance_of(leaves[0])
        if view.acceptance is None or chance <= EVEN:
            return 1
        if view.acceptance >= 1:
            return view.depth
        return 1 + int(math.log(EVEN / chance) / math.log(max(view.acceptance, EVEN)))

    def _floor(self, view: View) -> float:
        """The chance from which on a step pays. At the log's end it always does: else nothing would be measured again."""
        if view.pass_s is None or view.step_s is None:
            return 0.0
        return min(1.0, self.price * view.step_s / max(view.pass_s, 1e-9))
