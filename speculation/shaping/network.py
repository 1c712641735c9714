"""What lies between a phone and the verifier, as figures: ``NetworkProfile``, and the two pipes that follow from it. Pure.

Figures with a default are optional: a profile without them has no losses, no limit to its queue, a rate that stands still, no
outages and a radio that never sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from speculation.errors import ConfigurationError
from speculation.shaping import figures
from speculation.shaping.energy import RadioPower
from speculation.shaping.figures import Figure, Key
from speculation.shaping.outages import Outage, Outages
from speculation.shaping.pacing import MIN_RETRANSMISSION_S, Direction, Pipe
from speculation.shaping.radio import Radio, Sleep
from speculation.shaping.traces import Trace


def _no_figures() -> Mapping[str, Figure]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkProfile:
    """What lies between a phone and the verifier. ``overhead_bytes`` is what a message weighs beyond its payload.

    ``..._rate_variation`` makes a rate wander around its mean (``traces.synthetic_trace``); ``..._trace`` replaces it.
    ``outage_between_s`` and ``outage_lasting_s`` are means, ``outages`` a plan. A radio has up to three sleeps, each with its
    ``after``, ``cycle`` and ``promotion`` (``radio.Sleep``). ``power`` is what the phone's radio draws.
    """

    name: str
    title: str
    uplink_rate_bytes_per_s: Annotated[float, Key("uplink.rate", "rate")]
    uplink_delay_s: Annotated[float, Key("uplink.delay", "time", may_be_zero=True)]
    uplink_jitter_s: Annotated[float, Key("uplink.jitter", "time", may_be_zero=True)]
    downlink_rate_bytes_per_s: Annotated[float, Key("downlink.rate", "rate")]
    downlink_delay_s: Annotated[float, Key("downlink.delay", "time", may_be_zero=True)]
    downlink_jitter_s: Annotated[float, Key("downlink.jitter", "time", may_be_zero=True)]
    overhead_bytes: Annotated[float, Key("overhead", "size", may_be_zero=True)]
    uplink_loss: Annotated[float, Key("uplink.loss", "share", may_be_zero=True)] = 0.0
    downlink_loss: Annotated[float, Key("downlink.loss", "share", may_be_zero=True)] = 0.0
    uplink_queue_bytes: Annotated[float, Key("uplink.queue", "size")] = math.inf
    downlink_queue_bytes: Annotated[float, Key("downlink.queue", "size")] = math.inf
    uplink_rate_variation: Annotated[float, Key("uplink.rate_variation", "share", may_be_zero=True)] = 0.0
    downlink_rate_variation: Annotated[float, Key("downlink.rate_variation", "share", may_be_zero=True)] = 0.0
    outage_between_s: Annotated[float, Key("outage.between", "time")] = math.inf
    outage_lasting_s: Annotated[float, Key("outage.lasting", "time", may_be_zero=True)] = 0.0
    short_sleep_after_s: Annotated[float, Key("radio.short_sleep.after", "time")] = math.inf
    short_sleep_cycle_s: Annotated[float, Key("radio.short_sleep.cycle", "time", may_be_zero=True)] = 0.0
    short_sleep_promotion_s: Annotated[float, Key("radio.short_sleep.promotion", "time", may_be_zero=True)] = 0.0
    long_sleep_after_s: Annotated[float, Key("radio.long_sleep.after", "time")] = math.inf
    long_sleep_cycle_s: Annotated[float, Key("radio.long_sleep.cycle", "time", may_be_zero=True)] = 0.0
    long_sleep_promotion_s: Annotated[float, Key("radio.long_sleep.promotion", "time", may_be_zero=True)] = 0.0
    idle_after_s: Annotated[float, Key("radio.idle.after", "time")] = math.inf
    idle_cycle_s: Annotated[float, Key("radio.idle.cycle", "time", may_be_zero=True)] = 0.0
    idle_promotion_s: Annotated[float, Key("radio.idle.promotion", "time", may_be_zero=True)] = 0.0
    radio_active_w: Annotated[float | None, Key("energy.active", "power")] = None
    radio_tail_w: Annotated[float | None, Key("energy.tail", "power")] = None
    radio_promotion_w: Annotated[float | None, Key("energy.promotion", "power")] = None
    uplink_j_per_mbit: Annotated[float | None, Key("energy.uplink", "energy of a megabit", may_be_zero=True)] = None
    downlink_j_per_mbit: Annotated[float | None, Key("energy.downlink", "energy of a megabit", may_be_zero=True)] = None
    outages: tuple[Outage, ...] = ()
    uplink_trace: Trace | None = None
    downlink_trace: Trace | None = None
    figures: Mapping[str, Figure] = field(default_factory=_no_figures, compare=False, repr=False)

    def __post_init__(self) -> None:
        figures.check(self)
        _ = self.uplink, self.downlink, self.sleeps, self.power  # a direction refuses a jitter beyond its delay
        if (self.outage_between_s < math.inf) != (self.outage_lasting_s > 0):
            raise ConfigurationError("outages have both a mean time between them and a mean length, or neither")

    @property
    def uplink(self) -> Direction:
        """From the phone to the verifier."""
        return Direction(
            self.uplink_rate_bytes_per_s,
            self.uplink_delay_s,
            self.uplink_jitter_s,
            self.uplink_loss,
            self._retransmission_s,
            self.uplink_queue_bytes,
            self.uplink_rate_variation,
            self.uplink_trace,
        )

    @property
    def downlink(self) -> Direction:
        """From the verifier to the phone."""
        return Direction(
            self.downlink_rate_bytes_per_s,
            self.downlink_delay_s,
            self.downlink_jitter_s,
            self.downlink_loss,
            self._retransmission_s,
            self.downlink_queue_bytes,
            self.downlink_rate_variation,
            self.downlink_trace,
        )

    @property
    def round_trip_s(self) -> float:
        """Both one-way delays: the round trip of a message so small that the rate does not matter."""
        return self.uplink_delay_s + self.downlink_delay_s

    @property
    def sleeps(self) -> tuple[Sleep, ...]:
        """The states that the radio falls into when it is quiet, the lightest first; none where it never sleeps."""
        states = (
            Sleep(self.short_sleep_after_s, self.short_sleep_cycle_s, self.short_sleep_promotion_s),
            Sleep(self.long_sleep_after_s, self.long_sleep_cycle_s, self.long_sleep_promotion_s),
            Sleep(self.idle_after_s, self.idle_cycle_s, self.idle_promotion_s),
        )
        return tuple(sleep for sleep in states if sleep.after_s < math.inf)

    @property
    def power(self) -> RadioPower | None:
        """What the phone's radio draws; None where the file has no figures of it. Raises ``ConfigurationError`` for a part."""
        states = (self.radio_promotion_w, self.radio_active_w, self.radio_tail_w)
        given = [value for value in (*states, self.uplink_j_per_mbit, self.downlink_j_per_mbit) if value is not None]
        if not given:
            return None
        if len(given) < 5:
            names = "energy.active, .tail, .promotion, .uplink and .downlink"
            raise ConfigurationError(f"{names} are given all together or not at all")
        promotion_w, active_w, tail_w, uplink_j, downlink_j = given
        return RadioPower(
            promotion_w=promotion_w,
            active_w=active_w,
            tail_w=tail_w,
            idle_w=0.0,
            uplink_j_per_mbit=uplink_j,
            downlink_j_per_mbit=downlink_j,
        )

    @property
    def has_outages(self) -> bool:
        return bool(self.outages) or self.outage_between_s < math.inf

    def pipes(self, seed: int, origin_s: float = 0.0) -> tuple[Pipe, Pipe]:
        """The way up and the way down, new, behind one radio. ``origin_s`` is when outages and traces begin."""
        radio = Radio(self.sleeps, seed) if self.sleeps else None
        outages = self._outages(seed, origin_s) if self.has_outages else None
        up = Pipe(self.uplink, 2 * seed, is_uplink=True, radio=radio, outages=outages, origin_s=origin_s)
        down = Pipe(self.downlink, 2 * seed + 1, is_uplink=False, radio=radio, outages=outages, origin_s=origin_s)
        return up, down

    @property
    def _retransmission_s(self) -> float:
        """Linux's timeout: the smoothed round trip, and at least 200 ms for its deviation (RFC 6298, with TCP_RTO_MIN)."""
        return self.round_trip_s + MIN_RETRANSMISSION_S

    def _outages(self, seed: int, origin_s: float) -> Outages:
        between_s, lasting_s = self.outage_between_s, self.outage_lasting_s
        return Outages(self.outages, between_s=between_s, lasting_s=lasting_s, seed=seed, origin_s=origin_s)
