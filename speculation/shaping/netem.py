"""A network profile as commands for the Linux kernel's own shaper, for a check from outside: ``tc`` with ``netem``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from speculation.shaping.network import NetworkProfile
from speculation.shaping.pacing import PACKET_BYTES, Direction

DOWN_HELPER = "ifb0"
"""The device through which incoming packets are led: a qdisc shapes only what goes out."""


def tc_lines(profile: NetworkProfile, device: str) -> list[str]:
    """Shell lines that make ``device``, on the phone's side, such a network; what netem cannot do is said in comments."""
    redirect = f"tc filter add dev {device} parent ffff: protocol all matchall action mirred egress redirect dev {DOWN_HELPER}"
    return [
        f"# {profile.name}: {profile.title}",
        *(f"# not in netem: {what}" for what in _left_out(profile)),
        f"tc qdisc add dev {device} root netem {_netem(profile.uplink)}",
        f"ip link add {DOWN_HELPER} type ifb && ip link set {DOWN_HELPER} up",
        f"tc qdisc add dev {device} handle ffff: ingress",
        redirect,
        f"tc qdisc add dev {DOWN_HELPER} root netem {_netem(profile.downlink)}",
    ]


def _netem(direction: Direction) -> str:
    parts = [f"limit {_limit_packets(direction)}"]
    if direction.delay_s:
        jitter = f" {direction.jitter_s * 1e6:.0f}us" if direction.jitter_s else ""
        parts.append(f"delay {direction.delay_s * 1e6:.0f}us{jitter}")
    if direction.loss:
        parts.append(f"loss {100 * direction.loss:.6g}%")
    if math.isfinite(direction.rate_bytes_per_s):
        parts.append(f"rate {direction.rate_bytes_per_s * 8:.0f}bit")
    return " ".join(parts)


def _limit_packets(direction: Direction) -> int:
    """netem counts its queue in packets, those that travel included; its own default of 1,000 cuts fast links short."""
    if math.isinf(direction.rate_bytes_per_s):
        return 100_000
    travelling = direction.rate_bytes_per_s * (direction.delay_s + direction.jitter_s)
    waiting = direction.queue_bytes if math.isfinite(direction.queue_bytes) else direction.rate_bytes_per_s
    return max(16, math.ceil((travelling + waiting) / PACKET_BYTES))


def _left_out(profile: NetworkProfile) -> Iterator[str]:
    if profile.sleeps:
        yield "a radio that falls asleep"
    if profile.has_outages:
        yield "outages"
    if profile.uplink_trace or profile.downlink_trace or profile.uplink_rate_variation or profile.downlink_rate_variation:
        yield "a rate that varies (here its mean)"
    if profile.uplink.jitter_s or profile.downlink.jitter_s:
        yield "jitter that keeps the order: netem lets packets overtake where their delays cross"
    if profile.uplink.loss or profile.downlink.loss:
        yield "the emulated retransmission: the kernel drops the packet, and TCP itself sends it again"
