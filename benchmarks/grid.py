"""The production agent and verifier beside the first-order model, cell by cell: draft time, pass time, round trip, acceptance.

Both meet the same acceptance process, path by path (``synthetic.py``, ``first_order.py``), so what differs is what the code
does, and not luck. Everything is emulated (``grid_production.py``), so the tables are the same on any machine and with any
number of processes; only the last line, what the virtual clock costs, is of this machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.grid_cells import ALPHAS, Cell, Row, Runs, all_cells, few_cells, measure
from benchmarks.grid_tables import grids
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import add_arguments, picture, publish

QUICK = Runs(num_tokens=60, num_seeds=1)


def measured(cells: Sequence[Cell], runs: Runs, num_processes: int) -> list[Row]:
    """Every cell, in order."""
    return in_processes(partial(measure, runs=runs), cells, num_processes)


def budget(rows: Sequence[Row], took_s: float, cpu_s: float) -> str:
    """What the virtual clock costs here; the model and the start of the processes are in it."""
    num_sessions, emulated_s = sum(row.num_sessions for row in rows), sum(row.emulated_s for row in rows)
    return (
        f"{num_sessions} sessions, {emulated_s:.0f} emulated seconds in {took_s:.0f} s ({cpu_s:.0f} s of CPU time); a second:"
        f" {num_sessions / took_s:.2f} sessions, {emulated_s / took_s:.1f} emulated seconds; a second of CPU time:"
        f" {num_sessions / cpu_s:.2f} sessions, {emulated_s / cpu_s:.1f} emulated seconds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw the rates (the extra plot)")
    parser.add_argument("--acceptance", type=float, choices=ALPHAS, help="only the cells of this acceptance")
    arguments = parser.parse_args()
    runs, cells = (QUICK, few_cells()) if arguments.quick else (Runs(), all_cells())
    if arguments.acceptance is not None:
        cells = [cell for cell in cells if cell.alpha == arguments.acceptance]
    if not cells:
        parser.error(f"--quick runs at acceptance {few_cells()[0].alpha:g} alone")
    began_s, began_cpu_s = time.perf_counter(), _cpu_s()
    rows = measured(cells, runs, 1 if arguments.quick else arguments.processes)
    took_s = time.perf_counter() - began_s
    publish(arguments, "grid", grids(rows, runs), [row.to_json() for row in rows])
    if arguments.plot:
        from benchmarks import plots  # only here: most runs do without the library

        plots.grid(rows, arguments.plot)
    print(budget(rows, took_s, _cpu_s() - began_cpu_s))


def _cpu_s() -> float:
    """Of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
