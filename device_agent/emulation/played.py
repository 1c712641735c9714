"""What is played at one moment, as a value, and what a change makes of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from speculation.errors import InvalidRequestError, UnknownNameError
from speculation.shaping.overrides import CLOUD_BANDWIDTH, LOSS, PHONE_BANDWIDTH, RANGES, RATE, RTT
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import UNSHAPED


class Part(StrEnum):
    """What can be changed, or not, as a whole."""

    PHONE = "phone"
    NETWORK = "network"
    CLOUD = "cloud"
    PATIENCE = "patience"


HEAT = "heat"
PART_OF: Mapping[str, Part] = {
    **{part.value: part for part in Part},
    HEAT: Part.PHONE,
    PHONE_BANDWIDTH: Part.PHONE,
    RTT: Part.NETWORK,
    RATE: Part.NETWORK,
    LOSS: Part.NETWORK,
    CLOUD_BANDWIDTH: Part.CLOUD,
}
"""The keys of a change, and what each is a part of."""

DEFAULT_PATIENCE = "auto"

PRESETS = (Part.PHONE, Part.NETWORK, Part.CLOUD)


def _nothing() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Played:
    """Names of profiles, the phone's heat, and figures that stand in place of the profiles' own."""

    phone: str = UNSHAPED
    network: str = UNSHAPED
    cloud: str = UNSHAPED
    heat: Heat = Heat.OFF
    overrides: Mapping[str, float] = field(default_factory=_nothing)

    def changed(self, given: Mapping[str, Any]) -> Played:
        """With what is given; ``given`` is as ``read_change`` returns it. Another profile brings figures of its own: those that
        stood in place of the former's are gone, unless they are given, too."""
        presets = {part.value: given[part] for part in PRESETS if part in given}
        kept = {key: value for key, value in self.overrides.items() if PART_OF[key] not in presets}
        overrides = kept | {key: given[key] for key in RANGES if key in given}
        overrides = {key: value for key, value in overrides.items() if value is not None}
        return replace(self, **presets, heat=given.get(HEAT, self.heat), overrides=MappingProxyType(overrides))

    def of(self, part: Part) -> tuple[Any, ...]:
        """All that is played of the phone, the network or the cloud machine."""
        own = {key: value for key, value in self.overrides.items() if PART_OF[key] is part}
        return getattr(self, part.value), own, self.heat if part is Part.PHONE else None

    @property
    def is_emulated(self) -> bool:
        """Whether any machine is played whose time shows in the figures."""
        return (self.phone, self.network, self.cloud) != (UNSHAPED, UNSHAPED, UNSHAPED) or bool(self.overrides)


def read_change(body: object) -> dict[str, Any]:
    """What a JSON object asks to change, each key judged by itself; whether a profile exists is not. ``patience`` is left to
    the verifier to judge.

    Raises ``InvalidRequestError`` and ``UnknownNameError``, which tell what would be right.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequestError("the body must be a JSON object")
    unknown = next((key for key in body if key not in PART_OF), None)
    if unknown is not None:
        raise UnknownNameError("key", unknown, PART_OF, parameter=unknown)
    return {key: _READERS[key](key, value) for key, value in body.items()}


def _profile(key: str, value: object) -> str:
    """A profile's name; null is that under which nothing is emulated."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"{key} must be a profile's name, or null for none", key)
    return UNSHAPED if value is None else value


def _heat(key: str, value: object) -> Heat:
    if value is None:
        return Heat.OFF
    if not isinstance(value, str) or value not in list(Heat):
        raise UnknownNameError(key, str(value), Heat, parameter=key)
    return Heat(value)


def _figure(key: str, value: object) -> float | None:
    """A number in its range; null puts the profile's own in its place."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{key} must be a number, or null for the profile's own", key)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    RANGES[key].check(key, number)
    return number


def _patience(_: str, value: object) -> object:
    return DEFAULT_PATIENCE if value is None else value


_READERS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(PRESETS, _profile),
    Part.PATIENCE: _patience,
    HEAT: _heat,
    **dict.fromkeys(RANGES, _figure),
}
