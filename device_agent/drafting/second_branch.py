"""Second branches where the draft is unsure: each step extends the likeliest leaves of the whole tree. Pure.

A phone's decode is bound by reading its weights, so extending a few branches in one step costs little more than one; when the
full model takes the second choice, what follows it is already drafted and sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.policy import View


@dataclass(frozen=True, slots=True)
class SecondBranch:
    """The ``width`` likeliest leaves a step."""

    width: int
    gather: int = 1
    says_pass: bool = False
    pass_floor: float = 0.0

    def select(self, view: View) -> Sequence[Branch]:
        return likeliest(view, self.width)

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        return view.depth if self.width == 1 else 1


def likeliest(view: View, width: int) -> list[Branch]:
    """At most ``width`` leaves that may grow, the likeliest to be reached first."""
    if width == 1:
        return view.tip()
    able = [leaf for leaf in view.branches.leaves if view.may_grow(leaf)]
    return heapq.nlargest(width, able, key=lambda leaf: leaf.log_chance)
