"""Mahimahi traces: files of delivery opportunities, read, followed and made up. Pure.

A trace has one time in milliseconds a line; at each of them one packet of 1,500 bytes may leave (``man mm-link``). It is kept
account of bytes: several small messages share an opportunity, a large one takes several, and what nobody wants is lost. Behind
its last line a trace begins again.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from speculation.errors import ConfigurationError
from speculation.shaping.outages import Outages

SLOT_BYTES = 1500
"""What one delivery opportunity carries: a packet of the usual largest size."""

_STEP_S = 0.1
_COHERENCE_S = 1.0
_TOLERANCE_MS = 1e-6


@dataclass(frozen=True, slots=True)
class Trace:
    """Delivery opportunities in milliseconds from the beginning, in order; the last one is also the length of the trace."""

    times_ms: tuple[int, ...]

    def __post_init__(self) -> None:
        for _, rule in _faults(self.times_ms):
            raise ConfigurationError(f"a trace: {rule}")

    @property
    def length_ms(self) -> int:
        return self.times_ms[-1]

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return len(self.times_ms) * SLOT_BYTES * 1000 / self.length_ms

    def time_ms(self, slot: int) -> float:
        """When a slot comes, counted on over all rounds of the trace."""
        num_rounds, index = divmod(slot, len(self.times_ms))
        return num_rounds * self.length_ms + self.times_ms[index]

    def slot_from(self, time_ms: float) -> int:
        """The first slot that does not come before ``time_ms``."""
        num_rounds = max(0, math.floor(time_ms / self.length_ms) - 1)
        while True:
            index = bisect_left(self.times_ms, time_ms - _TOLERANCE_MS - num_rounds * self.length_ms)
            if index < len(self.times_ms):
                return num_rounds * len(self.times_ms) + index
            num_rounds += 1


class TraceSender:
    """Sends at a trace's opportunities; those in ``outages`` pass unused. ``origin_s`` is when the trace begins."""

    def __init__(self, trace: Trace, origin_s: float, outages: Outages | None = None) -> None:
        self._trace = trace
        self._origin_s = origin_s
        self._outages = outages
        self._slot = -1
        self._left_bytes = 0

    def sent_at_s(self, start_s: float, num_bytes: int) -> float:
        """When the last of so many bytes leaves that want to from ``start_s`` on; calls come in the order of their starts."""
        first = self._open_slot(self._slot_from(start_s))
        if first > self._slot:
            self._slot, self._left_bytes = first, SLOT_BYTES
        num_slots = max(0, math.ceil((num_bytes - self._left_bytes) / SLOT_BYTES))
        self._slot = self._slot_behind(num_slots)
        self._left_bytes += num_slots * SLOT_BYTES - num_bytes
        return max(start_s, self._time_s(self._slot))

    def _slot_behind(self, num_slots: int) -> int:
        """The slot that lies so many behind the present one."""
        if self._outages is None:
            return self._slot + num_slots
        slot = self._slot
        for _ in range(num_slots):
            slot = self._open_slot(slot + 1)
        return slot

    def _open_slot(self, slot: int) -> int:
        """The slot, or the first one behind it that is in no outage."""
        if self._outages is not None:
            while (open_s := self._outages.open_at(self._time_s(slot))) > self._time_s(slot):
                slot = max(slot + 1, self._slot_from(open_s))
        return slot

    def _slot_from(self, time_s: float) -> int:
        return self._trace.slot_from((time_s - self._origin_s) * 1000)

    def _time_s(self, slot: int) -> float:
        return self._origin_s + self._trace.time_ms(slot) / 1000


def parse_trace(text: str, origin: str) -> Trace:
    """The trace in a file's text. Raises ``ConfigurationError`` with ``origin``, the line and the broken rule."""
    times_ms: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.strip()
        if not (written.isascii() and written.isdecimal() and len(written) <= 15):
            raise ConfigurationError(
                f"{origin}:{number}: {written[:40]!r} is no time: a line is a whole number of milliseconds"
            )
        times_ms.append(int(written))
    for line_number, rule in _faults(times_ms):
        raise ConfigurationError(f"{origin}:{line_number}: {rule}")
    return Trace(tuple(times_ms))


def synthetic_trace(rate_bytes_per_s: float, variation: float, seed: int, length_s: int = 60) -> Trace:
    """A trace with exactly that mean rate, as far as whole slots go, whose rate wanders.

    The rate of each tenth of a second is log-normal with the coefficient of variation ``variation``; what it was is forgotten
    with a time constant of one second (an autoregressive process of order one). It stands for traces whose licence forbids to
    copy them: only their means are theirs.
    """
    steps = max(1, round(length_s / _STEP_S))
    weights = list(_wandering(variation, steps, random.Random(f"trace {seed}")))
    num_slots = max(1, round(rate_bytes_per_s * length_s / SLOT_BYTES))
    return Trace(tuple(_spread(weights, num_slots)))


def _wandering(variation: float, steps: int, draw: random.Random) -> Iterator[float]:
    sigma = math.sqrt(math.log1p(variation**2))
    kept = math.exp(-_STEP_S / _COHERENCE_S)
    value = draw.gauss(0.0, 1.0)
    for _ in range(steps):
        yield math.exp(sigma * value)
        value = kept * value + math.sqrt(1 - kept**2) * draw.gauss(0.0, 1.0)


def _spread(weights: list[float], num_slots: int) -> Iterator[int]:
    """Times of slots, evenly within each step; the last one is at the end."""
    step_ms, total, before = _STEP_S * 1000, sum(weights), 0.0
    given = 0
    for number, weight in enumerate(weights):
        share = weight / total * num_slots
        while given < num_slots and given + 1 <= before + share:
            yield round((number + (given + 1 - before) / share) * step_ms)
            given += 1
        before += share
    for _ in range(num_slots - given):  # what rounding has left over
        yield round(len(weights) * step_ms)


def _faults(times_ms: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Each broken rule with the number of its line."""
    last_ms, number = 0, 0
    for number, time_ms in enumerate(times_ms, 1):
        if time_ms < last_ms:
            yield number, f"{time_ms} ms comes before {last_ms} ms: the times of a trace never go back"
        last_ms = time_ms
    if not number:
        yield 1, "the trace is empty: it has a line for each 1,500 bytes that may be delivered"
    elif last_ms <= 0:
        yield number, "the last time is 0 ms: a trace has a length, after which it begins again"
