"""What a drafting policy is: who grows in the next draft step, and when what has grown is sent. Pure.

A policy sees the device's own tree, its confidences, and times that it measured; never what the full model will choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from device_agent.drafting.branches import Branch, Branches

SMOOTHING = 0.1
"""Weight of the newest measurement."""


@dataclass(slots=True)
class Pace:
    """What one stream measured of itself; None until something was measured. Times in seconds of the loop's clock."""

    step_s: float | None = None
    acceptance: float | None = None

    def stepped(self, seconds: float) -> None:
        self.step_s = _smoothed(self.step_s, seconds)

    def compared(self, num_agreed: int, is_contradicted: bool) -> None:
        """Drafts that met final tokens: so many agreed, and the one behind them perhaps did not."""
        for _ in range(num_agreed):
            self.acceptance = _smoothed(self.acceptance, 1.0)
        if is_contradicted:
            self.acceptance = _smoothed(self.acceptance, 0.0)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy decides from. ``grown``: drafts made since the last verdict. ``depth`` bounds the drafts on a path."""

    branches: Branches
    depth: int
    grown: int = 0
    end_token_ids: frozenset[int] = frozenset()
    last_position: int = 2**31
    """Of the last token that may be generated: nothing grows behind it."""
    pace: Pace = field(default_factory=Pace)
    pass_s: float | None = None
    """What a pass of the full model takes, as the verdicts show it; None before two of them."""

    def may_grow(self, branch: Branch) -> bool:
        """Whether a token may follow: no end of the text, and no deeper than allowed."""
        branches = self.branches
        if branch.position >= self.last_position or branch.position - branches.root.position >= self.depth:
            return False
        return branch is branches.root or branch.token_id not in self.end_token_ids

    def tip(self) -> list[Branch]:
        """The end of the main branch, where it may grow and nobody is at it."""
        tip = self.branches.tip
        return [] if tip.is_growing or not self.may_grow(tip) else [tip]


class Policy(Protocol):
    """Chosen by name (``policies.py``). ``width`` bounds the leaves of one step, and so the caches of a stream."""

    @property
    def width(self) -> int: ...

    @property
    def gather(self) -> int:
        """Nodes that are sent together; fewer only where the device pauses."""

    @property
    def says_pass(self) -> bool:
        """Whether a device that pauses tells the verifier that nothing more will come before the next verdict."""

    def select(self, view: View) -> Sequence[Branch]:
        """The leaves to extend in one step, at most ``width``; none: wait for a verdict."""


def _smoothed(old: float | None, new: float) -> float:
    return new if old is None else (1 - SMOOTHING) * old + SMOOTHING * new
