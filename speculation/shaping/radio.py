"""A radio that falls asleep: how long a modem takes to answer after it was quiet for a while. Pure.

A connected modem that hears nothing soon listens only now and then (discontinuous reception, DRX: 3GPP TS 36.321, 38.321), and
after some seconds it gives up its connection (RRC idle: TS 36.304, 36.331). Whoever calls it waits for its next listening
time, then for the promotion back. A modem that has something to say need not be waited for: only its promotion is left.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from speculation.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Sleep:
    """A state that begins ``after_s`` without traffic.

    ``cycle_s`` is the time from one listening time to the next: a message to the phone waits for a part of it that is uniform
    in [0, cycle]. ``promotion_s`` is what waking takes then, either way.
    """

    after_s: float
    cycle_s: float = 0.0
    promotion_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.after_s > 0 and self.cycle_s >= 0 and self.promotion_s >= 0):
            raise ConfigurationError("a radio sleeps after more than 0 s, and its cycle and promotion are no less than 0 s")


class Radio:
    """The one modem of a phone, which both directions go through. It begins in its deepest sleep.

    The same seed and times give the same wakings.
    """

    def __init__(self, sleeps: Iterable[Sleep], seed: int) -> None:
        self._sleeps = sorted((sleep for sleep in sleeps if sleep.after_s < math.inf), key=lambda sleep: sleep.after_s)
        self._random = random.Random(f"radio {seed}")
        self._sleep: Sleep | None = None
        self._ready_at_s = -math.inf
        self._active_until_s = -math.inf

    def ready_at(self, now_s: float, is_uplink: bool) -> float:
        """When a message can move that wants to from ``now_s`` on; times never go back.

        What comes while the modem wakes waits for it, too; a message of the phone itself cuts the wait for a listening time
        short.
        """
        if now_s >= self._ready_at_s:
            self._sleep = self._asleep_after(now_s - self._active_until_s)
            self._ready_at_s = now_s + self._waking_s(is_uplink)
        elif is_uplink and self._sleep is not None:
            self._ready_at_s = min(self._ready_at_s, now_s + self._sleep.promotion_s)
        self.stay_active(self._ready_at_s)
        return self._ready_at_s

    def stay_active(self, until_s: float) -> None:
        """Traffic goes on until then: silence is counted from its end."""
        self._active_until_s = max(self._active_until_s, until_s)

    def _asleep_after(self, silence_s: float) -> Sleep | None:
        fallen = [sleep for sleep in self._sleeps if sleep.after_s <= silence_s]
        return fallen[-1] if fallen else None

    def _waking_s(self, is_uplink: bool) -> float:
        if self._sleep is None:
            return 0.0
        waiting_s = 0.0 if is_uplink else self._random.uniform(0.0, self._sleep.cycle_s)
        return waiting_s + self._sleep.promotion_s
