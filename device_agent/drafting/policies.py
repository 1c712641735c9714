"""Drafting policies by name."""

from __future__ import annotations

from collections.abc import Callable

from device_agent.drafting.adaptive import Adaptive
from device_agent.drafting.linear import Ahead, ConfidenceGate, FixedLength
from device_agent.drafting.policy import Policy
from device_agent.drafting.second_branch import SecondBranch
from speculation.errors import UnknownNameError

ADAPTIVE = "adaptive"


def make_policy(name: str, length: int, width: int, floor: float, pass_floor: float, price: float) -> Policy:
    """``length`` is that of ``fixed-length``, ``width`` bounds branches, ``floor`` is the chance at which
    ``confidence-gate`` stops, ``price`` what drafting costs ``adaptive``,
    ``pass_floor`` the chance below which ``adaptive`` and ``second-branch`` let the verifier wait no longer.

    Raises ``UnknownNameError``, which lists the names.
    """
    makers: dict[str, Callable[[], Policy]] = {
        ADAPTIVE: lambda: Adaptive(width, price, pass_floor=pass_floor),
        "ahead": Ahead,
        "confidence-gate": lambda: ConfidenceGate(floor),
        "fixed-length": lambda: FixedLength(length),
        "second-branch": lambda: SecondBranch(width, pass_floor=pass_floor),
    }
    if name not in makers:
        raise UnknownNameError("drafting policy", name, tuple(makers), "drafting")
    return makers[name]()
