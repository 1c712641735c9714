"""The machine that a running verifier plays, and its patience, changed while it runs by who runs it in this process."""

from __future__ import annotations

from collections.abc import Callable

from cloud_verifier.config import read_patience
from cloud_verifier.costs import PassCosts, RooflineCosts
from cloud_verifier.engine import FullModel
from cloud_verifier.patience import PatienceSetting
from cloud_verifier.verification import Verifier
from speculation.shaping.engine import CloudCost, ShapedEngine
from speculation.shaping.profiles import CloudProfile


def changeable(model: FullModel, verifier: Verifier) -> LiveMachine | None:
    """A handle on the machine of a verifier that runs ``model``; None where it stays as it is: its engine came from elsewhere,
    or two full models share the machine."""
    engine, draft = model.engine, model.draft
    if model.previous is not None or not isinstance(engine, ShapedEngine):
        return None
    if draft is not None and not isinstance(draft, ShapedEngine):
        return None
    return LiveMachine(verifier, engine, draft)


class LiveMachine:
    """``prepare`` a change and make it, on the verifier's event loop. What passes cost is by the machine that is played; where
    none is, it is as it was measured at the start, or, where nothing was, every draft is run."""

    def __init__(self, verifier: Verifier, engine: ShapedEngine, draft: ShapedEngine | None = None) -> None:
        self._verifier = verifier
        self._engines = [engine] if draft is None else [engine, draft]
        self._full = engine.cost.model
        self._prices_drafts = verifier.rounds.costs is not None
        self._measured = None if engine.cost.is_shaped else verifier.rounds.costs

    @property
    def patience(self) -> PatienceSetting:
        """``auto``, ``never``, or milliseconds."""
        return self._verifier.policy.setting

    def prepare(self, cloud: CloudProfile | None, patience: object | None) -> Callable[[], None]:
        """What makes the change, from the next pass on, once it is called; None stays as it is. It cannot fail.

        Raises ``CapacityError`` for a machine without room for the model, and ``ConfigurationError`` for a patience that is
        none. Nothing has changed then.
        """
        setting = None if patience is None else read_patience(patience)
        costs = [] if cloud is None else [(engine, CloudCost(cloud, engine.cost.model)) for engine in self._engines]
        for engine, cost in costs:
            engine.check(cost)

        def change() -> None:
            for engine, cost in costs:
                engine.reshape(cost)
            if costs:
                self._verifier.rounds.costs = self._costs(costs[0][1])
            if setting is not None:
                self._verifier.policy.change(setting)
                for live in self._verifier.seats.running:
                    live.wake()

        return change

    def _costs(self, cost: CloudCost) -> PassCosts | None:
        if not self._prices_drafts:
            return None
        return RooflineCosts(cost.machine, self._full) if cost.is_shaped else self._measured
