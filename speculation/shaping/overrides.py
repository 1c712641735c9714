"""Single figures of a profile put in place of its own, as a slider does: the profile that comes of it, and which values may be.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from speculation.errors import InvalidRequestError
from speculation.shaping.profiles import CloudProfile, NetworkProfile, PhoneProfile

GB, MBIT_BYTES = 1e9, 1e6 / 8


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a figure may be given, both ends included."""

    least: float
    most: float

    def check(self, name: str, value: float) -> None:
        """Raises ``InvalidRequestError``, which tells the range."""
        if not self.least <= value <= self.most:
            raise InvalidRequestError(f"{name} must be from {self.least:g} to {self.most:g}, not {value:g}", name)


PHONE_BANDWIDTH, CLOUD_BANDWIDTH = "bandwidth_gb_s", "cloud_bandwidth_gb_s"
RTT, RATE, LOSS = "rtt_ms", "rate_mbps", "loss_percent"

RANGES: Mapping[str, Range] = {
    PHONE_BANDWIDTH: Range(1, 10_000),
    RTT: Range(0, 10_000),
    RATE: Range(0.01, 100_000),
    LOSS: Range(0, 50),
    CLOUD_BANDWIDTH: Range(10, 1_000_000),
}
"""Bandwidth is that of a data sheet, of which a profile reaches its own share; the rate and the loss are those of both ways,
the round trip is that of a message without length. A step or a pass that takes minutes is no use to anybody who watches."""

Overrides = Mapping[str, float]
"""Figures by these names."""


def phone_with(profile: PhoneProfile, overrides: Overrides) -> PhoneProfile:
    """The phone with another memory bandwidth, where that is given."""
    if PHONE_BANDWIDTH not in overrides:
        return profile
    changed = replace(profile, bandwidth_bytes_per_s=overrides[PHONE_BANDWIDTH] * GB)
    return replace(changed, name=_named(profile.name, overrides, PHONE_BANDWIDTH))


def cloud_with(profile: CloudProfile, overrides: Overrides) -> CloudProfile:
    """The machine with another memory bandwidth a device, where that is given."""
    if CLOUD_BANDWIDTH not in overrides:
        return profile
    changed = replace(profile, bandwidth_bytes_per_s=overrides[CLOUD_BANDWIDTH] * GB)
    return replace(changed, name=_named(profile.name, overrides, CLOUD_BANDWIDTH))


def network_with(profile: NetworkProfile, overrides: Overrides) -> NetworkProfile:
    """The network with another round trip, rate and loss, as far as they are given. A rate that is given stands still."""
    if not overrides.keys() & {RTT, RATE, LOSS}:
        return profile
    changed = profile
    if RTT in overrides:
        changed = at_round_trip(changed, overrides[RTT] / 1000)
    if RATE in overrides:
        changed = _at_rate(changed, overrides[RATE] * MBIT_BYTES)
    if LOSS in overrides:
        share = overrides[LOSS] / 100
        changed = replace(changed, uplink_loss=share, downlink_loss=share)
    return replace(changed, name=_named(profile.name, overrides, RTT, RATE, LOSS))


def at_round_trip(network: NetworkProfile, round_trip_s: float) -> NetworkProfile:
    """The same network as near or far as that, with the shares of its two ways, and no more jitter than it had."""
    scale = round_trip_s / network.round_trip_s if network.round_trip_s else 0.0
    up_s, down_s = network.uplink_delay_s * scale, network.downlink_delay_s * scale
    if not scale:
        up_s = down_s = round_trip_s / 2
    return replace(
        network,
        uplink_delay_s=up_s,
        downlink_delay_s=down_s,
        uplink_jitter_s=min(network.uplink_jitter_s, up_s),
        downlink_jitter_s=min(network.downlink_jitter_s, down_s),
    )


def _at_rate(network: NetworkProfile, rate_bytes_per_s: float) -> NetworkProfile:
    return replace(
        network,
        uplink_rate_bytes_per_s=rate_bytes_per_s,
        downlink_rate_bytes_per_s=rate_bytes_per_s,
        uplink_rate_variation=0.0,
        downlink_rate_variation=0.0,
        uplink_trace=None,
        downlink_trace=None,
    )


def _named(name: str, overrides: Overrides, *own: str) -> str:
    """A name that claims no profile's figures: the profile's, and what was changed of it."""
    changed = ", ".join(f"{key} {overrides[key]:g}" for key in own if key in overrides)
    return f"{name} ({changed})"
