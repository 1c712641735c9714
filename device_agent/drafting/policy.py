"""What a drafting policy is: who grows in the next draft step, and when what has grown is sent. Pure.

A policy sees the device's own tree, its confidences, and times that it measured; never what the full model will choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.drafting.branches import Branch, Branches

SMOOTHING = 0.1
"""Weight of the newest comparison in what was lately."""

SLOW_SMOOTHING = 0.02
"""Its weight in what is usual: some fifty comparisons count."""

TRUST = 4.0
"""Comparisons that a draft which nobody has compared is worth: until verdicts tell otherwise it is taken to be right."""


@dataclass(slots=True)
class Pace:
    """How often one stream's drafts agreed: ``acceptance`` lately, ``usual_acceptance`` over a longer time; None until one was
    compared."""

    acceptance: float | None = None
    usual_acceptance: float | None = None
    _agreed: float = 0.0
    _compared: float = 0.0

    def compared(self, num_agreed: int, is_contradicted: bool) -> None:
        """Drafts that met final tokens: so many agreed, and the one behind them perhaps did not."""
        for outcome in (*[1.0] * num_agreed, *[0.0] * is_contradicted):
            self.acceptance = outcome if self.acceptance is None else _smoothed(self.acceptance, outcome, SMOOTHING)
            self._agreed = (1 - SLOW_SMOOTHING) * self._agreed + outcome
            self._compared = (1 - SLOW_SMOOTHING) * self._compared + 1
            self.usual_acceptance = (self._agreed + TRUST) / (self._compared + TRUST)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy decides from.

    ``depth`` bounds the drafts on a path, ``room`` the nodes that may still be drafted. ``grown``: drafts made since nothing
    was in flight. ``last_position`` is that of the last token that may be generated: nothing grows behind it. Measured, and
    None until something was: ``acceptance`` and ``usual_acceptance`` (``Pace``); ``step_s``, what a draft step takes;
    ``pass_s``, what a pass of the full model takes, as the verdicts show it; ``lag``, how many passes begin between one that
    ends and the arrival of the first draft made with its verdict at hand (``Schedule.lag``). ``burst``: steps that a single
    leaf may take in one job, over 1 where a step is shorter than its hand-over between threads.
    """

    branches: Branches
    depth: int
    room: int = 2**31
    is_alone: bool = False
    grown: int = 0
    end_token_ids: frozenset[int] = frozenset()
    last_position: int = 2**31
    acceptance: float | None = None
    usual_acceptance: float | None = None
    step_s: float | None = None
    pass_s: float | None = None
    lag: int | None = None
    burst: int = 1

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

    @property
    def pass_floor(self) -> float:
        """The main branch's chance below which the verifier is told to wait no longer, while drafting goes on; 0: never."""

    def select(self, view: View) -> Sequence[Branch]:
        """The leaves to extend in one step, at most ``width``; none: wait for a verdict."""

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        """How many steps those leaves may take before the policy is asked again, where steps are very short."""


def _smoothed(old: float, new: float, weight: float) -> float:
    return (1 - weight) * old + weight * new
