"""What can be chosen, with the figures by which a person chooses."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any, TypeVar

from speculation.errors import ConfigurationError
from speculation.shaping.catalogue import CLOUDS, NETWORKS, PHONES, Catalogue, Kind
from speculation.shaping.overrides import GB, MBIT_BYTES, RANGES
from speculation.shaping.profiles import UNSHAPED, CloudProfile, NetworkProfile, PhoneProfile

P = TypeVar("P")

_log = logging.getLogger(__name__)


def choices_of(catalogue: Catalogue) -> dict[str, list[dict[str, Any]]]:
    """Every profile but ``none``, by kinds. Reads some sixty files: belongs on a thread. One that cannot be read is left out,
    and told to the log."""
    return {
        PHONES.folder: [_phone(profile) for profile in _all(catalogue, PHONES)],
        NETWORKS.folder: [_network(profile) for profile in _all(catalogue, NETWORKS)],
        CLOUDS.folder: [_cloud(profile) for profile in _all(catalogue, CLOUDS)],
    }


def ranges() -> dict[str, list[float]]:
    """The least and the most that each figure may be."""
    return {key: [allowed.least, allowed.most] for key, allowed in RANGES.items()}


def _all(catalogue: Catalogue, kind: Kind[P]) -> Iterator[P]:
    for name in catalogue.names(kind):
        if name == UNSHAPED:
            continue
        try:
            yield catalogue.load(kind, name)
        except ConfigurationError as error:
            _log.warning("not among what can be chosen: %s", error)


def _phone(phone: PhoneProfile) -> dict[str, Any]:
    return {
        "name": phone.name,
        "title": phone.title,
        "bandwidth_gb_s": _in(phone.bandwidth_bytes_per_s, GB),
        "ram_gb": _in(phone.memory_bytes, GB),
        "has_heat": phone.heat is not None,
    }


def _network(network: NetworkProfile) -> dict[str, Any]:
    directions = network.uplink, network.downlink
    up, down = (each.rate_bytes_per_s if each.trace is None else each.trace.mean_rate_bytes_per_s for each in directions)
    return {
        "name": network.name,
        "title": network.title,
        "down_mbps": _in(down, MBIT_BYTES),
        "up_mbps": _in(up, MBIT_BYTES),
        "rtt_ms": _in(network.round_trip_s, 1e-3),
        "loss_percent": _in(max(network.uplink_loss, network.downlink_loss), 1e-2),
    }


def _cloud(cloud: CloudProfile) -> dict[str, Any]:
    return {
        "name": cloud.name,
        "title": cloud.title,
        "bandwidth_gb_s": _in(cloud.bandwidth_bytes_per_s, GB),
        "memory_gb": _in(cloud.memory_bytes, GB),
        "devices": _in(cloud.num_devices, 1),
    }


def _in(value: float, unit: float) -> float | None:
    """A figure in a unit, to four digits; null where it has no bound, which JSON cannot tell."""
    return float(f"{value / unit:.4g}") if math.isfinite(value) else None
