"""The phone that a draft engine plays, whatever decorates it: its gauges, and what a step costs on it as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from speculation.engines.base import Engine
from speculation.shaping.costs import Work
from speculation.shaping.engine import ShapedEngine
from speculation.shaping.os_load import LoadedEngine
from speculation.shaping.phone_state import PhoneState

ROWS_A_STEP = 64
"""Tokens that a machine of which nothing is known is taken to compute while it reads the weights once."""

FIRST_STEP_S = 1e-3
"""What a step is taken to last on such a machine before one was measured."""


class Phone:
    """Reads what an engine's owner writes; an emulated phone may become another at any time."""

    def __init__(self, engine: Engine) -> None:
        self._load = engine.load if isinstance(engine, LoadedEngine) else None
        inner = engine.inner if isinstance(engine, LoadedEngine) else engine
        self._shaped = inner if isinstance(inner, ShapedEngine) else None

    @property
    def state(self) -> PhoneState | None:
        """The gauges; None where no phone is emulated, and none can be."""
        return None if self._shaped is None else self._shaped.phone

    @property
    def is_known(self) -> bool:
        """Whether a machine is emulated whose costs are known."""
        return self._shaped is not None and self._shaped.cost.is_shaped

    @property
    def speed(self) -> float:
        """What heat and the rest of the phone leave of the draft's full speed, as a share."""
        heat = None if self.state is None else self.state.heat
        return (1.0 if heat is None else heat.state.speed) * (1.0 if self._load is None else self._load.mean_speed)

    def step_s(self, works: Sequence[Work], usual_s: float | None) -> float:
        """Seconds of a step over these caches; by what steps usually take where no machine is emulated."""
        if self._shaped is not None and self._shaped.cost.is_shaped:
            return self._shaped.cost.step_s(works) / self.speed
        rows = sum(work.new_tokens for work in works)
        return (usual_s or FIRST_STEP_S) * max(1.0, rows / ROWS_A_STEP)
