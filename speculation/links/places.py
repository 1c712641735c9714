"""Where a verifier is, how many of this device's streams are there, and how soon it may be tried again. Pure; times in s."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from speculation.links.base import Connector

FIRST_AVOIDED_S, LONGEST_AVOIDED_S = 1.0, 30.0
"""How long a verifier that failed is passed over where there is another: doubled each time it fails again."""


@dataclass(slots=True, eq=False)
class Place:
    """A verifier, by its target (``host:port``). It is avoided until ``avoided_until_s``, by the loop's clock."""

    target: str
    connector: Connector
    num_streams: int = 0
    num_failures: int = 0
    avoided_until_s: float = -math.inf
    is_on_trial: bool = False

    def is_well(self, now_s: float) -> bool:
        return self.avoided_until_s <= now_s

    def tried(self, now_s: float) -> None:
        """A stream begins. One that failed before is avoided again by others, until this stream tells how it is."""
        if self.num_failures:
            self.is_on_trial = True
            self._avoid(now_s)

    def served(self) -> None:
        """It took a session: what was before counts no more."""
        self.num_failures, self.avoided_until_s, self.is_on_trial = 0, -math.inf, False

    def failed(self, now_s: float) -> None:
        """A stream to it broke, or none came about. What breaks together is one failure."""
        if self.is_on_trial or self.is_well(now_s) or not self.num_failures:
            self.num_failures += 1
        self.is_on_trial = False
        self._avoid(now_s)

    def refused(self, now_s: float, wait_s: float | None) -> None:
        """It has no room now; ``wait_s`` is what it says itself, in seconds, where that is a time."""
        self.avoided_until_s = max(self.avoided_until_s, now_s + (wait_s if wait_s and wait_s > 0 else FIRST_AVOIDED_S))

    def _avoid(self, now_s: float) -> None:
        wait_s = min(FIRST_AVOIDED_S * 2.0 ** min(self.num_failures - 1, 10), LONGEST_AVOIDED_S)
        self.avoided_until_s = max(self.avoided_until_s, now_s + wait_s)


def pick(places: Iterable[Place], session_id: str, now_s: float) -> Place | None:
    """Where a session goes: of the verifiers that are well the one with the fewest of this device's streams, of those with
    as few one by chance, which the session's id decides (rendezvous hashing; Thaler and Ravishankar, 1998). Where none is well,
    the one that is avoided for the shortest time. None where there is no place at all.
    """
    return min(places, key=lambda place: _order(place, session_id, now_s), default=None)


def _order(place: Place, session_id: str, now_s: float) -> tuple[float, int, bytes]:
    chance = hashlib.blake2b(f"{session_id} {place.target}".encode(), digest_size=8).digest()
    return max(0.0, place.avoided_until_s - now_s), place.num_streams, chance
