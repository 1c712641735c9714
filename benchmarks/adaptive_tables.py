"""The tables of ``adaptive.py``: the cost model, the search in worlds that stay and that shift. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adaptive_cells import MOST_OVER_BEST, PRICES, ROWS_IN_A_PASS, Found, Price, Row
from benchmarks.adaptive_worlds import FURTHER_ROW, MESSAGE_BYTES, PHONE_W, UPLINK_J_PER_BYTE, Half, Spent, World
from benchmarks.report import Grid

WORLD = ("draft, ms", "pass, ms", "round trip, ms", "acceptance")
SEARCH = (*WORLD, "best fixed setting", "its score", "its tokens/s", "adaptive's score", "its tokens/s", "ratio", "")


def grids(rows: Sequence[Row]) -> list[Grid]:
    steady = [row for row in rows if not row.world.is_shifting]
    shifting = [row for row in rows if row.world.is_shifting]
    found = [_search(_steady_title(steady, price), steady, price) for price in PRICES]
    found += [_search(_shifting_title(shifting, price), shifting, price) for price in PRICES]
    return [_model(), *found]


def _model() -> Grid:
    lines = [
        ["a pass", f"its base, and 1/{ROWS_IN_A_PASS} of it for each row"],
        ["a draft step", f"its time, of which each row takes {FURTHER_ROW:g}"],
        ["energy", f"{PHONE_W:g} W for as long as draft steps take, {1e6 * UPLINK_J_PER_BYTE:g} uJ for each byte sent"],
        ["bytes", f"payload, and {MESSAGE_BYTES} a message"],
        ["score, ms a token", "1000 (seconds + joules x price of a joule + bytes x price of a byte), each a final token's"],
    ]
    for price in PRICES:
        told = f"{price.s_per_joule:g} s a joule, {1e6 * price.s_per_byte:g} us a byte; draft_price {price.draft_price:g}"
        lines.append([f"prices where drafting is {price.name}", told])
    return Grid("Emulated: the cost model", ("what", "costs"), lines)


def _steady_title(rows: Sequence[Row], price: Price) -> str:
    near = sum(price.name not in row.misses for row in rows)
    worst = max((row.found[price.name].ratio for row in rows), default=1.0)
    return (
        f"Emulated, drafting {price.name}: adaptive within {MOST_OVER_BEST - 1:.0%} of the best fixed setting"
        f" in {near} of {len(rows)} cells, at worst {worst:.3f} of its score"
    )


def _shifting_title(rows: Sequence[Row], price: Price) -> str:
    ahead = sum(price.name not in row.misses for row in rows)
    return f"Emulated, drafting {price.name}, the world shifts in mid-stream: adaptive ahead in {ahead} of {len(rows)} cells"


def _search(title: str, rows: Sequence[Row], price: Price) -> Grid:
    return Grid(title, SEARCH, [_line(row, row.found[price.name], price.name in row.misses) for row in rows])


def _line(row: Row, found: Found, is_miss: bool) -> list[str]:
    best = [found.best, f"{found.best_ms:.1f}", _rate(found.best_spent)]
    return [*_world(row.world), *best, f"{found.ours_ms:.1f}", _rate(found.ours_spent), f"{found.ratio:.3f}", "MISS" * is_miss]


def _world(world: World) -> list[str]:
    times = [f"{world.draft_ms:g}", f"{world.pass_ms:g}"]
    return [*times, _shift(world, "round_trip_ms"), _shift(world, "alpha")]


def _shift(world: World, name: str) -> str:
    halves: list[Half] = [world.first, world.second] if world.is_shifting else [world.first]
    return ", then ".join(f"{getattr(half, name):g}" for half in halves)


def _rate(spent: Spent) -> str:
    return f"{1 / spent.seconds:.1f}"
