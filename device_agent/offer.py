"""Which pair this agent has, and which is the newest that a verifier told of: so that somebody hears of it."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger(__name__)


class PairOffer:
    """Counters of pairs. ``have`` is the agent's own, 0 where its pair has none; ``offered`` the last that was told, None
    before. The log hears of each newer one once."""

    def __init__(self, have: int) -> None:
        self.have = have
        self.offered: int | None = None
        self._newest_logged = have

    def told(self, newest: int) -> None:
        """A verifier says so of itself; 0 is one that does not tell."""
        if not newest:
            return
        self.offered = newest
        if self.have and newest > self._newest_logged:
            self._newest_logged = newest
            _log.warning("a verifier serves pair %d, and this agent has pair %d: bring it the newer one", newest, self.have)

    def to_json(self) -> dict[str, Any]:
        """For ``GET /health``; null is what is not known."""
        return {"have": self.have or None, "offered": self.offered}
