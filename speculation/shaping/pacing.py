"""When a message arrives at the far end of one direction of a network: pure arithmetic on times that the caller gives."""

from __future__ import annotations

import random
from dataclasses import dataclass

from speculation.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Direction:
    """One way through a network: rate in bytes per second, one-way delay in seconds, jitter in seconds around that delay.

    Jitter is uniform in [-jitter_s, +jitter_s], as in toxiproxy's ``latency`` toxic and in netem without a distribution.
    """

    rate_bytes_per_s: float
    delay_s: float
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate_bytes_per_s > 0:
            raise ConfigurationError(f"a rate is more than 0, not {self.rate_bytes_per_s:g} bytes per second")
        if not 0 <= self.jitter_s <= self.delay_s:
            raise ConfigurationError(f"jitter ({self.jitter_s:g} s) lies between 0 and the delay ({self.delay_s:g} s)")


class Pipe:
    """One direction in use: a sender that works at the rate, then a delay line in which nothing overtakes.

    The same seed, times and sizes give the same releases: a bad day can be replayed.
    """

    def __init__(self, direction: Direction, seed: int) -> None:
        self._direction = direction
        self._random = random.Random(seed)
        self._free_at_s = 0.0
        self._last_release_s = 0.0

    def release_at(self, now_s: float, num_bytes: int) -> float:
        """The time at which a message handed over at ``now_s`` is wholly there; never before an earlier message's.

        It waits until the sender is free, takes size / rate to be sent, then travels for the delay. Delays overlap, sending
        does not.
        """
        self._free_at_s = max(now_s, self._free_at_s) + num_bytes / self._direction.rate_bytes_per_s
        arrival_s = self._free_at_s + self._direction.delay_s + self._jitter_s()
        self._last_release_s = max(arrival_s, self._last_release_s)
        return self._last_release_s

    def _jitter_s(self) -> float:
        jitter_s = self._direction.jitter_s
        return self._random.uniform(-jitter_s, jitter_s) if jitter_s else 0.0
