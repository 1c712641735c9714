"""Length and width from what was measured: a step is taken while what it may save is worth what it costs. Pure.

A draft that turns out right saves its reader up to a pass of the full model; a draft step costs the phone its time, and with it
energy and heat. A leaf that is reached with chance ``c`` is worth ``c`` passes, so it grows while ``c * pass_s`` is at least
``price * step_s``. Where memory bandwidth bounds a step, its first leaf pays for reading the weights and the others for little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.policy import View
from device_agent.drafting.second_branch import likeliest

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
        if view.pass_s is None or view.pace.step_s is None or not self.price:
            return leaves
        floor = self.price * view.pace.step_s / max(view.pass_s, 1e-9)
        chances = [view.branches.chance_of(leaf) for leaf in leaves]
        if sum(chances) < floor:
            return []
        return [leaf for leaf, chance in zip(leaves, chances, strict=True) if chance >= LEAF_SHARE * floor]
