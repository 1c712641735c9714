"""Policies of one branch: drafting ahead, stop-and-wait with a fixed length, depth gated by confidence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.drafting.branches import Branch
from device_agent.drafting.policy import View


@dataclass(frozen=True, slots=True)
class Ahead:
    """One branch in flight: never waits for a verdict, only for room."""

    width: int = 1
    gather: int = 1
    says_pass: bool = False
    pass_floor: float = 0.0

    def select(self, view: View) -> Sequence[Branch]:
        return view.tip()

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        return view.depth


@dataclass(frozen=True, slots=True)
class FixedLength:
    """Stop and wait: ``length`` drafts in one message, then nothing until the verdict. The field's usual baseline.

    Meant for a verifier whose patience is ``never``: any other decodes on while it waits for the message.
    """

    length: int
    width: int = 1
    says_pass: bool = True
    pass_floor: float = 0.0

    @property
    def gather(self) -> int:
        return self.length

    def select(self, view: View) -> Sequence[Branch]:
        return view.tip() if view.grown < self.length else []

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        return self.length - view.grown


@dataclass(frozen=True, slots=True)
class ConfidenceGate:
    """One branch, as deep as its path stays likelier than ``floor``."""

    floor: float
    width: int = 1
    gather: int = 1
    says_pass: bool = False
    pass_floor: float = 0.0

    def select(self, view: View) -> Sequence[Branch]:
        tip = view.tip()
        return tip if tip and view.branches.chance_of(tip[0]) >= self.floor else []

    def in_a_row(self, view: View, leaves: Sequence[Branch]) -> int:
        return 1
