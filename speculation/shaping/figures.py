"""Figures with a unit, a source and a date, read from TOML: the ground that profiles stand on.

A profile is a frozen dataclass; each of its numbers is annotated with a ``Key``, the name and dimension of the figure in the
file. A figure in a file is a table of exactly ``value``, ``unit``, ``source`` and ``date``; every number is kept in base
units (bytes, seconds, operations, joules) so that nothing behind this module converts anything. A file may leave out a figure
whose attribute has a default.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import tomllib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from speculation.errors import ConfigurationError

P = TypeVar("P")

_ENDLESS = frozenset({"rate", "size", "speed", "time"})
"""Dimensions of which infinity says something: no limit, and for a time that is waited for, never."""


@dataclass(frozen=True, slots=True)
class Unit:
    """``value * numerator / denominator`` is in the base unit of ``dimension``."""

    dimension: str
    numerator: float = 1
    denominator: float = 1


UNITS: Mapping[str, Unit] = MappingProxyType(
    {
        "bytes": Unit("size"),
        "MB": Unit("size", 1e6),
        "GB": Unit("size", 1e9),
        "GB/s": Unit("rate", 1e9),
        "TB/s": Unit("rate", 1e12),
        "kbit/s": Unit("rate", 1e3, 8),
        "Mbit/s": Unit("rate", 1e6, 8),
        "s": Unit("time"),
        "ms": Unit("time", 1, 1e3),
        "us": Unit("time", 1, 1e6),
        "TOPS": Unit("speed", 1e12),
        "TFLOP/s": Unit("speed", 1e12),
        "share": Unit("share"),
        "devices": Unit("count"),
        "USD/h": Unit("price", 1, 3600),
        "W": Unit("power"),
        "pJ/bit": Unit("energy of a bit", 1, 1e12),
        "J/Mbit": Unit("energy of a megabit"),
        "J/K": Unit("heat capacity"),
        "K/W": Unit("thermal resistance"),
        "degC": Unit("temperature"),
        "K": Unit("temperature difference"),
        "share/K": Unit("share of a kelvin"),
    }
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number as the file gives it. ``date`` is that of the source: YYYY, YYYY-MM or YYYY-MM-DD."""

    value: float
    unit: str
    source: str
    date: str

    def __post_init__(self) -> None:
        _require(not math.isnan(self.value), "value is not a number")
        _require(self.unit in UNITS, f"unknown unit {self.unit!r}; known: {', '.join(UNITS)}")
        _require(bool(self.source.strip()), "source is empty: say where the figure comes from")
        is_date = re.fullmatch(r"\d{4}(-\d{2}){0,2}", self.date) is not None
        _require(is_date, f"date {self.date!r} is not YYYY, YYYY-MM or YYYY-MM-DD")

    @property
    def base_value(self) -> float:
        """In bytes, bytes per second, seconds, operations per second, watts, joules, kelvins, US dollars per second, a count,
        or as a share of one."""
        unit = UNITS[self.unit]
        return self.value * unit.numerator / unit.denominator


@dataclass(frozen=True, slots=True)
class Key:
    """Where a number stands in the file, its dimension, and whether it may be zero, as what costs something may: that ends."""

    name: str
    dimension: str
    may_be_zero: bool = False

    def check(self, value: float) -> None:
        """Raises ``ConfigurationError`` where the number cannot be such a figure."""
        _require(value >= 0, f"{self.name} is {value:g}: it cannot be negative")
        _require(value > 0 or self.may_be_zero, f"{self.name} is 0: it must be more")
        _require(self.dimension != "share" or value <= 1, f"{self.name} is {value:g}: a share is at most 1")
        may_be_infinite = self.dimension in _ENDLESS and not self.may_be_zero
        _require(value < math.inf or may_be_infinite, f"{self.name} is infinite: it must be less")


def keys(profile: type[Any]) -> Mapping[str, Key]:
    """The annotated numbers of a profile class: attribute name to key."""
    return _keys(cast(Hashable, profile))


@functools.cache
def _keys(profile: Any) -> Mapping[str, Key]:
    hints = get_type_hints(profile, include_extras=True)
    found = {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}
    return MappingProxyType({name: key for name, key in found.items() if isinstance(key, Key)})


def check(profile: object) -> None:
    """Hold every number of a profile to its key. Raises ``ConfigurationError``."""
    for attribute, key in keys(type(profile)).items():
        value = getattr(profile, attribute)
        if value is not None:  # left out
            key.check(value)


def load(profile: type[P], name: str, text: str, origin: str) -> P:
    """A profile from the text of its file. Raises ``ConfigurationError`` with ``origin``, the line and the broken rule."""
    try:
        table = tomllib.loads(text)
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is one, too
        raise ConfigurationError(f"{origin}: not TOML: {error}") from error
    title = table.pop("title", None)
    if not isinstance(title, str):
        raise ConfigurationError(f"{origin}:1: title is missing: say in words what this profile is")
    tables = dict(_figure_tables(table, "", text, origin))
    expected = keys(profile)
    optional = {expected[field].name for field in _with_defaults(profile) & expected.keys()}
    _compare_names(tables, {key.name for key in expected.values()}, optional, text, origin)
    figures = {key.name: _figure(key, tables[key.name], text, origin) for key in expected.values() if key.name in tables}
    numbers: dict[str, Any] = {
        attribute: figures[key.name].base_value for attribute, key in expected.items() if key.name in figures
    }
    make = cast(Callable[..., P], profile)
    try:
        return make(name=name, title=title, figures=MappingProxyType(figures), **numbers)
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}: {error}") from error


def _figure_tables(table: dict[str, Any], prefix: str, text: str, origin: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in table.items():
        name = prefix + key
        if not isinstance(value, dict):
            rule = "a figure is a table of value, unit, source and date"
            raise ConfigurationError(f"{origin}:{_line(text, name)}: {name} is a bare value; {rule}")
        if value and all(isinstance(part, dict) for part in value.values()):
            yield from _figure_tables(value, name + ".", text, origin)
        else:
            yield name, value


def _with_defaults(profile: type[Any]) -> set[str]:
    """Attributes that a profile can do without."""
    return {field.name for field in dataclasses.fields(profile) if field.default is not dataclasses.MISSING}


def _compare_names(tables: Mapping[str, object], expected: set[str], optional: set[str], text: str, origin: str) -> None:
    for name in tables:
        if name not in expected:
            known = ", ".join(sorted(expected))
            raise ConfigurationError(f"{origin}:{_line(text, name)}: unknown figure {name!r}; known: {known}")
    for name in sorted(expected - optional - tables.keys()):
        raise ConfigurationError(f"{origin}:1: the figure {name!r} is missing")


def _figure(key: Key, table: dict[str, Any], text: str, origin: str) -> Figure:
    try:
        figure = _parsed(key.name, table)
        dimension = UNITS[figure.unit].dimension
        _require(dimension == key.dimension, f"{key.name} is a {key.dimension}, but {figure.unit} measures a {dimension}")
        key.check(figure.base_value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}:{_line(text, key.name)}: {error}") from error
    return figure


def _parsed(name: str, table: dict[str, Any]) -> Figure:
    parts = {field.name for field in dataclasses.fields(Figure)}
    for missing in sorted(parts - table.keys()):
        raise ConfigurationError(f"{name} has no {missing}")
    for unknown in sorted(table.keys() - parts):
        raise ConfigurationError(f"{name} has an unknown key {unknown!r}; known: {', '.join(sorted(parts))}")
    value = table["value"]
    _require(isinstance(value, int | float) and not isinstance(value, bool), f"{name}.value is no number")
    _require(isinstance(value, float) or abs(value) <= sys.float_info.max, f"{name}.value is more than any figure")
    _require(all(isinstance(table[part], str) for part in parts - {"value"}), f"{name}: unit, source and date are strings")
    return Figure(**table)


def _line(text: str, name: str) -> int:
    """The line of a figure's table header, or of its key where it is written inline; 1 where it cannot be told."""
    whole, last = re.escape(name), re.escape(name.rsplit(".", 1)[-1])
    for pattern in (rf"\s*\[\s*{whole}\s*\]", rf"\s*{whole}\s*=", rf"\s*{last}\s*="):
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(pattern, line):
                return number
    return 1


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigurationError(rule)
