"""How many answers an agent writes at once where its settings do not say: as many as its draft's caches leave room for."""

from __future__ import annotations

import math

from device_agent.config import DEFAULT_PLACES
from speculation.shaping.engine import PhoneCost

MOST_PLACES = 16
"""A verifier has as many sessions, by its own default."""

CACHES_BYTES = 256 * 2**20
"""What the caches of all answers may take, where there are more than ``DEFAULT_PLACES``."""


def places(kv_bytes_per_token: int | None, tokens_per_answer: int, cost: PhoneCost) -> int:
    """From ``DEFAULT_PLACES`` to ``MOST_PLACES``: those whose caches, all full, stay within ``CACHES_BYTES`` of this computer
    and within the emulated phone's memory. ``DEFAULT_PLACES`` where nobody knows what a token takes.

    ``tokens_per_answer`` counts the contexts of all its branches.
    """
    if kv_bytes_per_token is None:
        return DEFAULT_PLACES
    here = CACHES_BYTES // (kv_bytes_per_token * tokens_per_answer) if kv_bytes_per_token else MOST_PLACES
    on_phone = math.floor(min(cost.room_tokens() / tokens_per_answer, MOST_PLACES))
    return max(DEFAULT_PLACES, min(here, on_phone, MOST_PLACES))
