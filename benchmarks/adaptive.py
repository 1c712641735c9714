"""Is ``adaptive`` as good as the best fixed length and width of each cell, where rows, drafts and bytes cost something?

The cost model, which is also printed: a pass takes a base and a price for each row (1 ms on 60, 0.5 ms on 30); a draft step
takes its time, of which a row is a tenth; the phone takes 5 W while it drafts and 3.5 uJ for each byte sent. The score is one
time a token: seconds, plus joules at a price, plus bytes at a price. Three levels: 4 ms a joule and 1 us a byte, where drafting
is nearly free; 60 ms a joule and 10 us a byte, where it is dear; and one between them. The tables use a draw of the process
that was not looked at while the rule was made.

Depth, width and the floor of the confidence gate are searched exhaustively in each cell. ``adaptive`` is told the price of a
second of drafting (the joule's price times 5 W) and nothing else: not the byte's, not the row's, not what the world is.
Everything is emulated, so the tables are the same on any machine.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.adaptive_cells import Runs, few_worlds, measure, shifting_worlds, steady_worlds
from benchmarks.adaptive_tables import grids
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import add_arguments, publish

QUICK = Runs(num_tokens=30, num_tokens_of_shift=60, depths=(2, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    runs, worlds = (QUICK, few_worlds()) if arguments.quick else (Runs(), [*shifting_worlds(), *steady_worlds()])
    rows = in_processes(partial(measure, runs=runs), worlds, 1 if arguments.quick else arguments.processes)
    publish(arguments, "adaptive", grids(rows), {"cells": [row.to_json() for row in rows]})


if __name__ == "__main__":
    main()
