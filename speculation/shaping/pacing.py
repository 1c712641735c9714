"""When a message arrives at the far end of one direction of a network: pure arithmetic on times that the caller gives.

A direction is a sender that works at a rate, or at the opportunities of a trace, and a delay line behind it. What holds a
message back besides: a radio that sleeps (``radio.py``), outages (``outages.py``), losses, and a full queue.

Loss is that of TCP, not of datagrams: no byte is ever missing. A packet that is lost is sent again after a retransmission
timeout, and meanwhile everything behind it waits (head-of-line). So a loss is a pause.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

from speculation.errors import ConfigurationError
from speculation.shaping.outages import Outages
from speculation.shaping.radio import Radio
from speculation.shaping.traces import SLOT_BYTES, Trace, TraceSender, synthetic_trace

PACKET_BYTES = SLOT_BYTES
"""What is lost at once: a packet of the usual largest size, headers included."""

MIN_RETRANSMISSION_S = 0.2
"""The shortest retransmission timeout of Linux (TCP_RTO_MIN); RFC 6298 would have one second."""

MAX_RETRANSMISSION_S = 120.0
"""The longest one (TCP_RTO_MAX)."""

MAX_VARYING_BYTES_PER_S = 125e6
"""A gigabit a second: of what varies each packet of a minute is made up beforehand, and ten times as many take gigabytes."""

_MAX_ATTEMPTS = 15
"""As often as Linux tries again (tcp_retries2); then its connection would be gone."""


@dataclass(frozen=True, slots=True)
class Direction:
    """One way through a network: rate in bytes per second, one-way delay in seconds, jitter in seconds around that delay.

    Jitter is uniform in [-jitter_s, +jitter_s], as in toxiproxy's ``latency`` toxic and in netem without a distribution.
    ``loss`` is the chance of a packet to be lost, ``retransmission_s`` the pause that this costs; each time that the packet is
    lost again the pause doubles (RFC 6298, 5.5). ``queue_bytes`` is what may wait to be sent: who has more waits with it, as a
    sender does whose congestion window follows a bounded bottleneck; nothing is dropped. ``trace`` replaces the rate;
    ``rate_variation`` is the coefficient of variation of a made-up trace whose mean is the rate.
    """

    rate_bytes_per_s: float
    delay_s: float
    jitter_s: float = 0.0
    loss: float = 0.0
    retransmission_s: float = MIN_RETRANSMISSION_S
    queue_bytes: float = math.inf
    rate_variation: float = 0.0
    trace: Trace | None = None

    def __post_init__(self) -> None:
        if not self.rate_bytes_per_s > 0:
            raise ConfigurationError(f"a rate is more than 0, not {self.rate_bytes_per_s:g} bytes per second")
        if not 0 <= self.jitter_s <= self.delay_s:
            raise ConfigurationError(f"jitter ({self.jitter_s:g} s) lies between 0 and the delay ({self.delay_s:g} s)")
        if not 0 <= self.loss < 1:
            raise ConfigurationError(f"loss is a share from 0 on and below 1, not {self.loss:g}: nothing at all is an outage")
        if not (self.queue_bytes > 0 and self.retransmission_s > 0):
            raise ConfigurationError("a queue has room for more than 0 bytes, and a retransmission takes more than 0 s")
        is_too_much = self.rate_variation and self.rate_bytes_per_s > MAX_VARYING_BYTES_PER_S
        if not 0 <= self.rate_variation <= 1 or is_too_much:
            raise ConfigurationError("a rate that varies is 1 Gbit/s at most, and its variation lies between 0 and 1")


class Pipe:
    """One direction in use: a sender that works at the rate, then a delay line in which nothing overtakes.

    The same seed, times and sizes give the same releases: a bad day can be replayed. ``radio`` and ``outages`` are shared
    with the other direction; ``origin_s`` is when the network began.
    """

    def __init__(
        self,
        direction: Direction,
        seed: int,
        *,
        is_uplink: bool = True,
        radio: Radio | None = None,
        outages: Outages | None = None,
        origin_s: float = 0.0,
    ) -> None:
        self.direction = direction
        self._is_uplink = is_uplink
        self._radio = radio
        self._outages = outages
        self._random = random.Random(seed)
        self._losses = random.Random(f"losses {seed}")
        self._trace = _trace_sender(direction, seed, origin_s, outages)
        self._waiting: deque[tuple[float, int]] = deque()
        self._waiting_bytes = 0
        self._free_at_s = 0.0
        self._last_release_s = 0.0

    @property
    def rate_bytes_per_s(self) -> float:
        """The rate, or the mean of the trace that replaces it."""
        trace = self.direction.trace
        return self.direction.rate_bytes_per_s if trace is None else trace.mean_rate_bytes_per_s

    def follow(self, before: Pipe, now_s: float) -> None:
        """Take the place of another pipe: what that has still to send goes first, nothing overtakes, and the radio is awake."""
        self._waiting, self._waiting_bytes = before._waiting, before._waiting_bytes
        self._free_at_s, self._last_release_s = before._free_at_s, before._last_release_s
        self._random, self._losses = before._random, before._losses
        if self._radio is not None:
            self._radio.stay_active(max(now_s, before._free_at_s))

    def release_at(self, now_s: float, num_bytes: int) -> float:
        """The time at which a message handed over at ``now_s`` is wholly there; never before an earlier message's.

        It waits until the radio is awake and the sender free, takes size / rate to be sent, is sent again as often as it is
        lost, then travels for the delay. Delays overlap, sending does not.
        """
        ready_s = self._awake_at(now_s)
        self._free_at_s = self._sent_at(max(ready_s, self._free_at_s), num_bytes) + self._retransmissions_s(num_bytes)
        if self._radio is not None:
            self._radio.stay_active(self._free_at_s)
        self._remember(now_s, num_bytes)
        arrival_s = self._free_at_s + self.direction.delay_s + self._jitter_s()
        if self._outages is not None:
            arrival_s = self._outages.open_at(arrival_s)
        self._last_release_s = max(arrival_s, self._last_release_s)
        return self._last_release_s

    def held_until(self, now_s: float) -> float:
        """When a packet without a payload, of a handshake, can move that wants to now: the radio is awake, no outage is on."""
        ready_s = self._awake_at(now_s)
        return ready_s if self._outages is None else self._outages.open_at(ready_s)

    def room_at(self, now_s: float, num_bytes: int) -> float:
        """When so many bytes fit into the queue; a message larger than the whole queue goes when that is empty."""
        self._forget_sent(now_s)
        excess_bytes = self._waiting_bytes + num_bytes - self.direction.queue_bytes
        room_s = now_s
        for sent_s, size in self._waiting:
            if excess_bytes <= 0:
                break
            excess_bytes -= size
            room_s = sent_s
        return room_s

    def _awake_at(self, now_s: float) -> float:
        return now_s if self._radio is None else self._radio.ready_at(now_s, self._is_uplink)

    def _sent_at(self, start_s: float, num_bytes: int) -> float:
        if self._trace is not None:
            return self._trace.sent_at_s(start_s, num_bytes)  # which heeds outages
        sending_s = num_bytes / self.direction.rate_bytes_per_s
        return start_s + sending_s if self._outages is None else self._outages.done_at(start_s, sending_s)

    def _retransmissions_s(self, num_bytes: int) -> float:
        """The pauses for lost packets of one message; those lost together are sent again together."""
        loss = self.direction.loss
        if not loss:
            return 0.0
        num_lost, pause_s, total_s = math.ceil(num_bytes / PACKET_BYTES), self.direction.retransmission_s, 0.0
        for _ in range(_MAX_ATTEMPTS):
            num_lost = sum(self._losses.random() < loss for _ in range(num_lost))
            if not num_lost:
                break
            total_s += pause_s
            pause_s = min(2 * pause_s, MAX_RETRANSMISSION_S)
        return total_s

    def _jitter_s(self) -> float:
        jitter_s = self.direction.jitter_s
        return self._random.uniform(-jitter_s, jitter_s) if jitter_s else 0.0

    def _remember(self, now_s: float, num_bytes: int) -> None:
        if self.direction.queue_bytes < math.inf:
            self._forget_sent(now_s)
            self._waiting.append((self._free_at_s, num_bytes))
            self._waiting_bytes += num_bytes

    def _forget_sent(self, now_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= now_s:
            self._waiting_bytes -= self._waiting.popleft()[1]


def _trace_sender(direction: Direction, seed: int, origin_s: float, outages: Outages | None) -> TraceSender | None:
    trace = direction.trace
    if trace is None and direction.rate_variation:
        trace = synthetic_trace(direction.rate_bytes_per_s, direction.rate_variation, seed)
    return None if trace is None else TraceSender(trace, origin_s, outages)
