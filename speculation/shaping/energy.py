"""Joules of a phone's draft steps and of its radio, from sizes, seconds and named assumptions. Pure.

A step's energy is that of the bytes it reads and that of the processor while it is busy. A processor that is throttled takes
longer at less power: a step's joules stay the same, which is what makes throttling cool a phone at all. What the phone draws
while it does nothing (display, system) is counted by time and apart from both.
"""

from __future__ import annotations

from dataclasses import dataclass

_BITS_PER_BYTE = 8
_BITS_PER_MBIT = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneEnergy:
    """What a phone's work costs. ``dram_j_per_bit`` is the memory with its interface, ``compute_w`` the processor while a step
    runs at full speed, memory left out, ``idle_w`` all that is drawn when no step runs."""

    dram_j_per_bit: float
    compute_w: float
    idle_w: float

    def step_j(self, num_bytes: float, full_speed_s: float) -> StepEnergy:
        """Joules of a step that reads ``num_bytes`` and takes ``full_speed_s`` where nothing throttles it."""
        return StepEnergy(num_bytes * _BITS_PER_BYTE * self.dram_j_per_bit, self.compute_w * full_speed_s)


@dataclass(frozen=True, slots=True)
class StepEnergy:
    """Joules of a step, by what they went into; what the phone draws anyway is not in it."""

    dram_j: float
    compute_j: float

    @property
    def total_j(self) -> float:
        return self.dram_j + self.compute_j


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioPower:
    """What a radio draws in each of its states, in watts, and joules a megabit on top of ``active_w``.

    The source gives watts per Mbit/s; times the seconds that sending takes these are joules a megabit, whatever the rate.
    """

    promotion_w: float
    active_w: float
    tail_w: float
    idle_w: float
    uplink_j_per_mbit: float
    downlink_j_per_mbit: float


LTE_POWER = RadioPower(
    promotion_w=1.2, active_w=1.29, tail_w=1.06, idle_w=0.0, uplink_j_per_mbit=0.44, downlink_j_per_mbit=0.05
)
"""Huang et al., A Close Examination of Performance and Power Characteristics of 4G LTE Networks (MobiSys 2012), rounded. What
an idle radio's paging draws is left out: ``PhoneEnergy.idle_w`` has the phone's."""

LTE_PROMOTION_S = 0.26
LTE_TAIL_S = 11.6
"""From idle to connected, and from the last packet back to idle: same source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioUse:
    """Seconds that a radio spent in each state, and the bytes that it sent and got."""

    promotion_s: float = 0.0
    active_s: float = 0.0
    tail_s: float = 0.0
    idle_s: float = 0.0
    bytes_up: float = 0.0
    bytes_down: float = 0.0


def radio_j(power: RadioPower, use: RadioUse) -> float:
    """Joules of a radio: each state's power for its time, and what the bits cost on top."""
    states_j = (
        power.promotion_w * use.promotion_s
        + power.active_w * use.active_s
        + power.tail_w * use.tail_s
        + power.idle_w * use.idle_s
    )
    uplink_mbit, downlink_mbit = _mbit(use.bytes_up), _mbit(use.bytes_down)
    return states_j + power.uplink_j_per_mbit * uplink_mbit + power.downlink_j_per_mbit * downlink_mbit


def _mbit(num_bytes: float) -> float:
    return num_bytes * _BITS_PER_BYTE / _BITS_PER_MBIT
