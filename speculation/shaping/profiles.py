"""Named figures of phones, networks and cloud machines: a TOML file each, under ``data/`` (``docs/shaping.md``)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Annotated, TypeVar

from speculation.errors import UnknownNameError
from speculation.shaping import figures
from speculation.shaping.costs import Machine
from speculation.shaping.figures import Figure, Key
from speculation.shaping.network import NetworkProfile as NetworkProfile
from speculation.shaping.phones import PhoneProfile as PhoneProfile

UNSHAPED = "none"
"""The name, of a phone, a network or a cloud, under which nothing is emulated."""

DEFAULT_PHONE = "dimensity-9300"
DEFAULT_NETWORK = "5g-nsa-low"
DEFAULT_CLOUD = "mi300x"
DEFAULT_DRAFT_MODEL = "0.9B:int4"
DEFAULT_FULL_MODEL = "70B:fp16"

P = TypeVar("P")


def _no_figures() -> Mapping[str, Figure]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudProfile:
    """A machine that runs the full model. Every pass costs ``pass_overhead_s`` on top of its reading or computing.

    Bandwidth, speed, memory and price are those of one device; ``num_devices`` share a model by tensor parallelism, and then
    every layer ends its attention and its feed-forward part with a sum over all of them, ``all_reduce_s`` each.
    """

    name: str
    title: str
    bandwidth_bytes_per_s: Annotated[float, Key("bandwidth", "rate")]
    bandwidth_utilisation: Annotated[float, Key("bandwidth_utilisation", "share")]
    operations_per_s: Annotated[float, Key("compute", "speed")]
    compute_utilisation: Annotated[float, Key("compute_utilisation", "share")]
    memory_bytes: Annotated[float, Key("memory", "size")]
    pass_overhead_s: Annotated[float, Key("pass_overhead", "time", may_be_zero=True)]
    num_devices: Annotated[float, Key("devices", "count")] = 1.0
    all_reduce_s: Annotated[float, Key("all_reduce", "time", may_be_zero=True)] = 0.0
    price_usd_per_s: Annotated[float | None, Key("price", "price", may_be_zero=True)] = None
    figures: Mapping[str, Figure] = field(default_factory=_no_figures, compare=False, repr=False)

    def __post_init__(self) -> None:
        figures.check(self)

    @property
    def machine(self) -> Machine:
        return Machine(
            bandwidth_bytes_per_s=self.num_devices * self.bandwidth_bytes_per_s * self.bandwidth_utilisation,
            operations_per_s=self.num_devices * self.operations_per_s * self.compute_utilisation,
            memory_bytes=self.num_devices * self.memory_bytes,
            memory_name=f"the memory of {self.name}",
            overhead_s=self.pass_overhead_s,
            overhead_per_layer_s=2 * self.all_reduce_s if self.num_devices > 1 else 0.0,
        )

    @property
    def usd_per_hour(self) -> float | None:
        """Of all devices together; None where the profile has no price."""
        return None if self.price_usd_per_s is None else self.num_devices * self.price_usd_per_s * 3600


def phones() -> tuple[str, ...]:
    """The names that ``phone`` knows, sorted."""
    return _names("phones")


def networks() -> tuple[str, ...]:
    """The names that ``network`` knows, sorted."""
    return _names("networks")


def clouds() -> tuple[str, ...]:
    """The names that ``cloud`` knows, sorted."""
    return _names("clouds")


@functools.cache  # a bundled file does not change, and every configuration asks for some
def phone(name: str) -> PhoneProfile:
    """A phone by name. Raises ``UnknownNameError``, which lists the names."""
    return _load(PhoneProfile, "phone", name)


@functools.cache
def network(name: str) -> NetworkProfile:
    """A network by name. Raises ``UnknownNameError``, which lists the names."""
    return _load(NetworkProfile, "network", name)


@functools.cache
def cloud(name: str) -> CloudProfile:
    """A cloud machine by name. Raises ``UnknownNameError``, which lists the names."""
    return _load(CloudProfile, "cloud", name)


def _folder(folder: str) -> Traversable:
    return resources.files(__package__).joinpath("data", folder)


@functools.cache
def _names(folder: str) -> tuple[str, ...]:
    return tuple(sorted(f.name.removesuffix(".toml") for f in _folder(folder).iterdir() if f.name.endswith(".toml")))


def _load(profile: type[P], kind: str, name: str) -> P:
    folder = kind + "s"
    if name not in _names(folder):
        raise UnknownNameError(kind, name, _names(folder))
    file = _folder(folder).joinpath(f"{name}.toml")
    return figures.load(profile, name, file.read_text("utf-8"), f"{folder}/{name}.toml")
