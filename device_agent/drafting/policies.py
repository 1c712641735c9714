"""Drafting policies by name."""

from __future__ import annotations

from collections.abc import Callable

from device_agent.drafting.adaptive import Adaptive
from device_agent.drafting.linear import Ahead, ConfidenceGate, FixedLength
from device_agent.drafting.policy import Policy
from device_agent.drafting.second_branch import SecondBranch
from speculation.errors import UnknownNameError

ADAPTIVE = "adaptive"


def make_policy(name: str, length: int, width: int, floor: float, price: float) -> Policy:
    """``length`` is that of ``fixed-length``, ``width`` bounds branches, ``floor`` is the chance at which
    ``confidence-gate`` stops, ``price`` what drafting costs ``adaptive``.

    Raises ``UnknownNameError``, which lists the names.
    """
    makers: dict[str, Callable[[], Policy]] = {
        ADAPTIVE: lambda: Adaptive(width, price),
        "ahead": Ahead,
        "confidence-gate": lambda: ConfidenceGate(floor),
        "fixed-length": lambda: FixedLength(length),
        "second-branch": lambda: SecondBranch(width),
    }
    if name not in makers:
        raise UnknownNameError("drafting policy", name, tuple(makers), "drafting")
    return makers[name]()
