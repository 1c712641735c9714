"""Under which names the pair answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.events import Json
from device_agent.pair import PairFacts
from speculation.errors import InvalidRequestError, ModelNotFoundError

ANY = "*"
OWNER = "outrider"


@dataclass(frozen=True, slots=True)
class Names:
    """The full model's name, and ``others`` that were chosen for it (``*``: any). ``created`` is in seconds since 1970."""

    pair: PairFacts
    others: Sequence[str]
    created: int

    def check(self, model: Any) -> None:
        """A request for this model is one for the pair; None is. Raises ``ModelNotFoundError``, ``InvalidRequestError``."""
        if model is None:
            return
        if not isinstance(model, str):
            raise InvalidRequestError("model must be a string", "model")
        if ANY not in self.others and model not in self._listed:
            known = ", ".join(self._listed)
            raise ModelNotFoundError(f"the model {model[:64]!r} does not exist here; this agent serves {known}")

    def one(self, model: str) -> Json:
        """What is known of one. Raises ``ModelNotFoundError``."""
        self.check(model)
        facts = {"root": self.pair.full, "max_model_len": self.pair.context_length}
        return {"id": model, "object": "model", "created": self.created, "owned_by": OWNER} | facts

    def all(self) -> Json:
        return {"object": "list", "data": [self.one(name) for name in self._listed]}

    @property
    def _listed(self) -> list[str]:
        return list(dict.fromkeys([self.pair.full, *(name for name in self.others if name != ANY)]))
