"""How few passes of the full model a token needs, and what that costs in rate: production code beside stop-and-wait.

python -m benchmarks.thrift [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md]

Per cell (draft time, pass time, round trip; a text) the front of rate against passes a token, over the verifier's patience and
gathering and the device's policies, some of which end the waiting where they are unsure; beside it the front of stop-and-wait
over its lengths. Both are compared at 0.42 passes a token, or at the fewest passes that both reach where that is more. Emulated
(``thrift_runs.py``): the tables are the same on any machine and with any number of processes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from benchmarks.first_order import Times
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, picture, publish
from benchmarks.thrift_front import BUDGET, LEAST_RATIO, Comparison, Point, Reached, compare, fewest, front, reached
from benchmarks.thrift_runs import PAIR_SAMPLED, SYNTHETIC, TEXTS, Cell, Row, Search, measure

BLOCK = "thrift"
DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS = (9.0, 18.0), (30.0, 60.0), (20.0, 60.0, 150.0, 300.0)
REFERENCE = Cell(Times(9.0, 60.0, 60.0), SYNTHETIC)
QUICK = Search(
    policies=("four branches",),
    patiences=(),
    gathers=(1, 2),
    floors=(0.3,),
    floored_gathers=(4,),
    lengths=(1, 4),
    num_scout_tokens=20,
    num_tokens=40,
    num_draws=1,
    num_traces=1,
)
CELLS = (
    "draft, ms",
    "pass, ms",
    "round trip, ms",
    "text",
    "passes a token",
    "ours",
    "with",
    "stop-and-wait",
    "with",
    "ratio",
    "",
)
FRONTS = ("passes a token", "tokens a second", "setting", "stop-and-wait within those passes", "ratio")
WAITING_FRONT = ("passes a token", "tokens a second", "stop-and-wait with")


def all_cells() -> list[Cell]:
    timings = itertools.product(DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS)
    return [Cell(Times(*timing), text) for timing in timings for text in TEXTS]


def few_cells() -> list[Cell]:
    """The reference cell, and its times with the real pair."""
    return [REFERENCE, Cell(REFERENCE.times, PAIR_SAMPLED)]


def compared(row: Row) -> Comparison:
    return compare(front(row.ours), front(row.theirs))


def grids(rows: Sequence[Row], search: Search) -> list[Grid]:
    """All tables. Every rate is in final tokens a second."""
    return [_cell_grid(rows, search), *(grid for row in rows if row.cell == REFERENCE for grid in _front_grids(row))]


def _cell_grid(rows: Sequence[Row], search: Search) -> Grid:
    num_met = sum(not compared(row).is_missed for row in rows)
    made_up = max(row.made_up_share for row in rows)
    title = (
        f"Emulated, {search.num_tokens} tokens x {search.num_draws} draws or {search.num_traces} traces of the pair a cell,"
        f" settings chosen on another: final tokens a second within {BUDGET:g} passes a token (where marked: the fewest that"
        f" both reach); {num_met} of {len(rows)} cells reach {LEAST_RATIO:g} times stop-and-wait; at most {made_up:.0%} of a"
        f" cell's draft rows lie behind prefixes that no trace holds"
    )
    return Grid(title, CELLS, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    found, times = compared(row), row.cell.times
    at = f"{found.passes_per_token:.3f}" + (f" (fewest of {found.bound_by})" if found.bound_by else "")
    head = [*(f"{value:g}" for value in (times.draft_ms, times.pass_ms, times.round_trip_ms)), row.cell.text, at]
    return [*head, *_side(found.ours), *_side(found.theirs), f"{found.ratio:.2f}", "MISS" if found.is_missed else ""]


def _side(side: Reached) -> list[str]:
    return [f"{side.tokens_per_s:.1f}", " + ".join(side.names)]


def _front_grids(row: Row) -> list[Grid]:
    ours, theirs, where = front(row.ours), front(row.theirs), _where(row.cell)
    return [
        Grid(f"Emulated, {where}: the whole front", FRONTS, [_front_cells(point, theirs) for point in ours]),
        Grid(f"Emulated, {where}: stop-and-wait's front", WAITING_FRONT, [_point_cells(point) for point in theirs]),
    ]


def _where(cell: Cell) -> str:
    times = cell.times
    return f"draft {times.draft_ms:g} ms, pass {times.pass_ms:g} ms, round trip {times.round_trip_ms:g} ms, {cell.text}"


def _front_cells(point: Point, theirs: Sequence[Point]) -> list[str]:
    passes = point.figures.passes_per_token
    if passes < fewest(theirs):
        return [*_point_cells(point), "does not reach so few", ""]
    rate = reached(theirs, passes).tokens_per_s
    return [*_point_cells(point), f"{rate:.1f}", f"{point.figures.tokens_per_s / rate:.2f}"]


def _point_cells(point: Point) -> list[str]:
    return [f"{point.figures.passes_per_token:.3f}", f"{point.figures.tokens_per_s:.1f}", point.name]


def measured(cells: Sequence[Cell], search: Search, num_processes: int) -> list[Row]:
    """Every cell, in order."""
    return in_processes(partial(measure, search=search), cells, num_processes)


def to_json(row: Row) -> dict[str, object]:
    found = compared(row)
    return asdict(row) | {"compared": asdict(found) | {"ratio": found.ratio, "is_missed": found.is_missed}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw the reference cell's fronts (the extra plot)")
    arguments = parser.parse_args()
    search, cells = (QUICK, few_cells()) if arguments.quick else (Search(), all_cells())
    rows = measured(cells, search, 1 if arguments.quick else arguments.processes)
    publish(arguments, BLOCK, grids(rows, search), [to_json(row) for row in rows])
    if arguments.plot:
        from benchmarks import plots  # only here: most runs do without the library

        row = next(row for row in rows if row.cell == REFERENCE)
        plots.thrift(front(row.ours), front(row.theirs), _where(row.cell), arguments.plot)


if __name__ == "__main__":
    main()
