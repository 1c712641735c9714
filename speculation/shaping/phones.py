"""A phone as figures: its memory and its speed, and, where its file has them, its energy and its heat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from speculation.errors import ConfigurationError
from speculation.shaping import figures
from speculation.shaping.costs import Machine
from speculation.shaping.energy import PhoneEnergy
from speculation.shaping.figures import Figure, Key
from speculation.shaping.heat import Governor, HeatModel, StatusWords, ThermalCircuit

IOS_COOLEST, ANDROID_COOLEST = "nominal", "NONE"
IOS_WORDS = ("fair", "serious", "critical")
ANDROID_WORDS = ("LIGHT", "MODERATE", "SEVERE", "CRITICAL", "EMERGENCY", "SHUTDOWN")
"""Of ``ProcessInfo.ThermalState`` and of ``PowerManager``'s ``THERMAL_STATUS_*``, coolest first."""


def _no_figures() -> Mapping[str, Figure]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneProfile:
    """A phone as far as a language model feels it. ``figures`` holds the sources, by the names in the file.

    ``bandwidth_utilisation`` is the model bandwidth utilisation (MBU): the share of the peak that decoding reaches. Figures
    that default to None may be left out, those of the energy all together, and those of the heat all together; heat needs
    energy, and the status words of one system, iOS or Android, from the first on.
    Raises ``ConfigurationError`` for figures that break a rule.
    """

    name: str
    title: str
    bandwidth_bytes_per_s: Annotated[float, Key("bandwidth", "rate")]
    bandwidth_utilisation: Annotated[float, Key("bandwidth_utilisation", "share")]
    operations_per_s: Annotated[float, Key("compute", "speed")]
    compute_utilisation: Annotated[float, Key("compute_utilisation", "share")]
    memory_bytes: Annotated[float, Key("memory", "size")]
    app_share: Annotated[float, Key("app_share", "share")]
    runtime_bytes: Annotated[float, Key("runtime", "size", may_be_zero=True)]
    dram_j_per_bit: Annotated[float | None, Key("energy.dram", "energy of a bit")] = None
    compute_w: Annotated[float | None, Key("energy.compute", "power")] = None
    idle_w: Annotated[float | None, Key("energy.idle", "power", may_be_zero=True)] = None
    ambient_c: Annotated[float | None, Key("heat.ambient", "temperature")] = None
    die_j_per_k: Annotated[float | None, Key("heat.die", "heat capacity")] = None
    skin_j_per_k: Annotated[float | None, Key("heat.skin", "heat capacity")] = None
    die_to_skin_k_per_w: Annotated[float | None, Key("heat.die_to_skin", "thermal resistance")] = None
    skin_to_ambient_k_per_w: Annotated[float | None, Key("heat.skin_to_ambient", "thermal resistance")] = None
    throttle_from_c: Annotated[float | None, Key("heat.throttle_from", "temperature")] = None
    throttle_per_k: Annotated[float | None, Key("heat.throttle_slope", "share of a kelvin")] = None
    slowest_share: Annotated[float | None, Key("heat.slowest", "share")] = None
    hysteresis_k: Annotated[float | None, Key("heat.hysteresis", "temperature difference", may_be_zero=True)] = None
    fair_from_c: Annotated[float | None, Key("heat.status.fair", "temperature")] = None
    serious_from_c: Annotated[float | None, Key("heat.status.serious", "temperature")] = None
    critical_from_c: Annotated[float | None, Key("heat.status.critical", "temperature")] = None
    android_light_from_c: Annotated[float | None, Key("heat.status.LIGHT", "temperature")] = None
    android_moderate_from_c: Annotated[float | None, Key("heat.status.MODERATE", "temperature")] = None
    android_severe_from_c: Annotated[float | None, Key("heat.status.SEVERE", "temperature")] = None
    android_critical_from_c: Annotated[float | None, Key("heat.status.CRITICAL", "temperature")] = None
    android_emergency_from_c: Annotated[float | None, Key("heat.status.EMERGENCY", "temperature")] = None
    android_shutdown_from_c: Annotated[float | None, Key("heat.status.SHUTDOWN", "temperature")] = None
    figures: Mapping[str, Figure] = field(default_factory=_no_figures, compare=False, repr=False)

    def __post_init__(self) -> None:
        figures.check(self)
        _ = self.energy, self.heat  # they refuse halves

    @property
    def machine(self) -> Machine:
        return Machine(
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s * self.bandwidth_utilisation,
            operations_per_s=self.operations_per_s * self.compute_utilisation,
            memory_bytes=self.memory_bytes * self.app_share,
            memory_name=f"an app's share ({self.app_share:.0%}) of the RAM of {self.name}",
            runtime_bytes=self.runtime_bytes,
        )

    @property
    def energy(self) -> PhoneEnergy | None:
        """What work costs; None where the file has no figures of it."""
        given = self._together("energy", "dram_j_per_bit", "compute_w", "idle_w")
        return None if given is None else PhoneEnergy(**given)

    @property
    def heat(self) -> HeatModel | None:
        """How it gets hot and slow; None where the file has no figures of it."""
        flow = ("ambient_c", "die_j_per_k", "skin_j_per_k", "die_to_skin_k_per_w", "skin_to_ambient_k_per_w")
        rule = ("throttle_from_c", "throttle_per_k", "slowest_share", "hysteresis_k")
        given = self._together("heat", *flow, *rule)
        words = self._words()
        if given is None:
            _require(not words, "heat.status is given without the other figures of the heat")
            return None
        _require(self.idle_w is not None, "heat is given without energy, which heats; give both or neither")
        governor = Governor(
            throttle_from_c=given["throttle_from_c"],
            slope_per_k=given["throttle_per_k"],
            slowest=given["slowest_share"],
            hysteresis_k=given["hysteresis_k"],
        )
        coolest = ANDROID_COOLEST if words and words[0][1] in ANDROID_WORDS else IOS_COOLEST
        circuit = ThermalCircuit(**{name: given[name] for name in flow})
        return HeatModel(circuit, governor, StatusWords(coolest, words, given["hysteresis_k"]), self.idle_w or 0.0)

    def _together(self, group: str, *names: str) -> dict[str, float] | None:
        """These figures, or None where none of them is given."""
        values = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in values.items() if value is not None}
        keys = figures.keys(type(self))
        missing = ", ".join(keys[name].name for name in names if name not in given)
        _require(not given or not missing, f"figures of {group} are given all together or not at all; missing: {missing}")
        return given or None

    def _words(self) -> tuple[tuple[float, str], ...]:
        """Every status word with the die temperature that it begins at, coolest first."""
        ios = self._thresholds(IOS_WORDS)
        android = self._thresholds(ANDROID_WORDS)
        _require(not ios or not android, "heat.status has words of iOS and of Android; a phone runs one of them")
        found = ios or android
        rising = sorted(found) == list(found) and len({from_c for from_c, _ in found}) == len(found)
        _require(rising, "heat.status: each word begins at a higher temperature than the one before")
        return found

    def _thresholds(self, words: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
        attributes = {key.name: attribute for attribute, key in figures.keys(type(self)).items()}
        values = [(getattr(self, attributes[f"heat.status.{word}"]), word) for word in words]
        given = tuple((from_c, word) for from_c, word in values if from_c is not None)
        _require(given == tuple(values[: len(given)]), "heat.status: the words are given from the first on, none left out")
        return given


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigurationError(rule)
