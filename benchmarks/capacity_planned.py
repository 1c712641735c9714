"""How many devices one large GPU serves: its busy milliseconds a final token, every system held to the same rate a device.

    python -m benchmarks.capacity_planned [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md] [--plot FILE]

The production agents and verifier under the virtual clock on the synthetic pair, a roofline's cost for the machine
(``roofline.py``, ``capacity_settings.py``). Each system may choose its cheapest setting among those in which a device gets the
rate on average; one that has none says how far it comes instead. The figures are the same on any machine.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from functools import partial

from benchmarks.capacity_settings import RATES, SYSTEMS, Point, Search, measure
from benchmarks.capacity_tables import DEVICES, grids, row_json, summaries, to_json
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import add_arguments, picture, publish

BLOCK = "capacity-planned"
QUICK = Search(lengths=(3,), waiting_lengths=(4,), waits=((0.0, 1, False),), around=(1.0,), num_tokens=64, least_tokens=16)
QUICK_DEVICES = (2,)


def measured(devices: Sequence[int], search: Search, num_processes: int) -> list[Point]:
    """Every system with every number of devices; those that take longest begin first."""
    cases = [(system, count) for count in sorted(devices, reverse=True) for system in reversed(SYSTEMS)]
    found = in_processes(partial(measure, search=search), cases, num_processes, "systems")
    return list(itertools.chain.from_iterable(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw the ratios to decoding alone (the extra plot)")
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES, metavar="N", help="only so many devices at once")
    arguments = parser.parse_args()
    search, devices = (QUICK, QUICK_DEVICES) if arguments.quick else (Search(), arguments.devices)
    # What is quick is over before another process has begun.
    points = measured(devices, search, 1 if arguments.quick else arguments.processes)
    rows = summaries(points, devices, RATES, search)
    figures = {"rows": [row_json(row) for row in rows], "points": [to_json(point) for point in points]}
    publish(arguments, BLOCK, grids(rows), figures)
    if arguments.plot:
        from benchmarks import plots  # only here: most runs do without the library

        plots.capacity(rows, arguments.plot)


if __name__ == "__main__":
    main()
