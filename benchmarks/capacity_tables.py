"""What the capacity runs say: the cheapest setting of each system that holds the rate, beside what a roofline allows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.capacity_settings import (
    ACCEPTANCE,
    ALONE,
    INSIDE,
    OURS,
    PACED,
    PRICED,
    SYSTEMS,
    Point,
    Search,
    cloud_draft_cost,
    full_cost,
    mean_context,
)
from benchmarks.report import Grid
from benchmarks.roofline import ceiling, inside_theory

DEVICES = (1, 4, 16, 32, 64, 128, 256)
LEAST_RATIO, LEAST_RATIO_AT = 2.2, (16, 32, 64)
LEAST_OF_CEILING, LEAST_OF_CEILING_AT = 0.85, (128, 256)
NEVER_BELOW, LEAST_OF_THEORY = 0.97, 0.9

OWN = (OURS, PACED, PRICED)
SUMMARY = ("devices", "decoding alone, GPU ms a token", *SYSTEMS[1:], "ceiling")
BOUNDS = ("devices", "system", "of alone", "of the ceiling", "of inside the cloud", "theory", "share of it", "misses")
DETAILS = (
    "devices",
    "system",
    "with",
    "GPU ms a token",
    "of alone",
    "tokens/s",
    "slowest",
    "passes a token",
    "sessions a pass",
    "GPU busy",
)


@dataclass(frozen=True, slots=True)
class Held:
    """A system at a rate: its cheapest point that holds it, or, with ``is_held`` false, its fastest."""

    point: Point
    is_held: bool

    @property
    def cost(self) -> float:
        """GPU milliseconds a final token."""
        return self.point.load.busy_ms_per_token


@dataclass(frozen=True, slots=True)
class Row:
    """All systems at one rate with so many devices. ``ceiling`` and ``theory`` are ratios of ``roofline.py``.

    ``held_tokens_per_s`` is the rate that they are held to: what is asked for, or, where the machine cannot give that by the
    roofline, what decoding alone gives.
    """

    tokens_per_s: float
    num_devices: int
    systems: dict[str, Held]
    ceiling: float
    theory: float
    held_tokens_per_s: float

    def ratio(self, name: str) -> float:
        """How many times cheaper than decoding alone, which may be slower than the rate."""
        return self.systems[ALONE].cost / self.systems[name].cost

    def of_ceiling(self, name: str) -> float:
        return self.ratio(name) / self.ceiling

    def of_theory(self, name: str) -> float:
        """How many times cheaper than speculation inside the cloud, over what theory says."""
        return self.systems[INSIDE].cost / self.systems[name].cost / self.theory

    def misses(self, name: str) -> list[str]:
        """The bounds that one of ours does not reach. Where nobody holds the rate there is nothing to compare."""
        if not self.systems[name].is_held:
            return ["the rate"] if any(found.is_held for found in self.systems.values()) else []
        bounds = {
            f"{LEAST_RATIO:g} of alone": self.num_devices not in LEAST_RATIO_AT or self.ratio(name) >= LEAST_RATIO,
            f"{LEAST_OF_CEILING:g} of the ceiling": self.num_devices not in LEAST_OF_CEILING_AT
            or self.of_ceiling(name) >= LEAST_OF_CEILING,
            f"{NEVER_BELOW:g} of alone": self.ratio(name) >= NEVER_BELOW,
            f"{LEAST_OF_THEORY:g} of the theory": not self.systems[INSIDE].is_held or self.of_theory(name) >= LEAST_OF_THEORY,
        }
        return [bound for bound, is_met in bounds.items() if not is_met]


def summaries(points: Sequence[Point], devices: Sequence[int], rates: Sequence[float], search: Search) -> list[Row]:
    """A row for each rate and number of devices."""
    return [row_of([p for p in points if p.num_devices == n], rate, search) for rate in rates for n in devices]


def row_of(points: Sequence[Point], rate: float, search: Search) -> Row:
    """The row of points that are all of as many devices."""
    num_devices = points[0].num_devices
    by_system = {name: [p for p in points if p.setting.system == name] for name in SYSTEMS}
    context = mean_context(search.tokens_each(num_devices))
    best, _ = ceiling(full_cost(), ACCEPTANCE, num_devices, context)
    alone = max(point.load.tokens_per_s for point in by_system[ALONE])
    held_rate = rate if best * alone >= rate else min(rate, alone)
    systems = {name: held(found, held_rate) for name, found in by_system.items()}
    length = systems[INSIDE].point.setting.draft_length
    theory = inside_theory(full_cost(), cloud_draft_cost(), length, num_devices, context)
    return Row(rate, num_devices, systems, best, theory, held_rate)


def held(points: Sequence[Point], rate: float) -> Held:
    """What a system gives at a rate, by its points."""
    holding = [point for point in points if point.load.tokens_per_s >= rate]
    if holding:
        return Held(min(holding, key=lambda point: point.load.busy_ms_per_token), True)
    return Held(max(points, key=lambda point: point.load.tokens_per_s), False)


def grids(rows: Sequence[Row]) -> list[Grid]:
    """For each rate a table beside the bounds, and one with every system's figures."""
    return [grid for rate in dict.fromkeys(row.tokens_per_s for row in rows) for grid in _grids_at(rate, rows)]


def _grids_at(rate: float, rows: Sequence[Row]) -> Iterator[Grid]:
    here = [row for row in rows if row.tokens_per_s == rate]
    held_at = f"Emulated, {rate:g} tokens a second or more for a device on average"
    yield Grid(
        f"{held_at}: times cheaper than decoding alone, in GPU milliseconds a token", SUMMARY, [_summary(r) for r in here]
    )
    met = ", ".join(f"{sum(not row.misses(name) for row in here)} ({name})" for name in OWN)
    title = f"{held_at}: rows of {len(here)} that reach every bound: {met}"
    yield Grid(title, BOUNDS, [_bounds(row, name) for row in here for name in OWN])
    yield Grid(f"{held_at}: the settings", DETAILS, [_details(row, name) for row in here for name in SYSTEMS])


def _summary(row: Row) -> list[str]:
    alone = row.systems[ALONE]
    is_less = row.held_tokens_per_s < row.tokens_per_s
    told = f" (all held to {row.held_tokens_per_s:.1f}/s)" if is_less else "" if alone.is_held else f" ({_reached(alone)})"
    return [str(row.num_devices), f"{alone.cost:.3f}{told}", *(_ratio(row, name) for name in SYSTEMS[1:]), f"{row.ceiling:.2f}"]


def _bounds(row: Row, name: str) -> list[str]:
    head, misses = [str(row.num_devices), name], ", ".join(row.misses(name))
    if not row.systems[name].is_held:
        return [*head, _ratio(row, name), "", "", "", "", misses]
    shares = [f"{row.ratio(name):.2f}", f"{row.of_ceiling(name):.2f}"]
    if not row.systems[INSIDE].is_held:
        return [*head, *shares, "", "", "", misses]
    share = row.of_theory(name)
    return [*head, *shares, f"{share * row.theory:.2f}", f"{row.theory:.3f}", f"{share:.2f}", misses]


def _ratio(row: Row, name: str) -> str:
    found = row.systems[name]
    return f"{row.ratio(name):.2f}" if found.is_held else _reached(found)


def _reached(found: Held) -> str:
    return f"only {found.point.load.tokens_per_s:.1f}/s"


def _details(row: Row, name: str) -> list[str]:
    found = row.systems[name]
    load = found.point.load
    cost = [f"{found.cost:.3f}", f"{row.ratio(name):.2f}"] if found.is_held else [_reached(found), ""]
    return [
        *(str(row.num_devices), name, found.point.setting.name),
        *cost,
        *(f"{load.tokens_per_s:.1f}", f"{load.slowest_tokens_per_s:.1f}", f"{load.passes_per_token:.3f}"),
        *(f"{load.sessions_a_pass:.1f}", f"{load.busy_share:.0%}"),
    ]


def to_json(point: Point) -> dict[str, Any]:
    """A point for programs."""
    named = {"system": point.setting.system, "with": point.setting.name, "num_devices": point.num_devices}
    return named | asdict(point.load)


def row_json(row: Row) -> dict[str, Any]:
    """A row for programs."""
    return {
        "tokens_per_s": row.tokens_per_s,
        "num_devices": row.num_devices,
        "held_tokens_per_s": row.held_tokens_per_s,
        "ceiling": row.ceiling,
        "theory": row.theory,
        "misses": {name: row.misses(name) for name in OWN},
        "systems": {
            name: to_json(found.point) | {"is_held": found.is_held, "of_alone": row.ratio(name)}
            for name, found in row.systems.items()
        },
    }
