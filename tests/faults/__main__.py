"""The fault scenes: all of them, or single seeds again.

::

    python -m tests.faults                  # 2,000 answers of tables, 50 of the bundled pair; --fill docs/equality.md
    python -m tests.faults 1234             # one scene of tables
    python -m tests.faults --real 12        # one scene of the bundled pair
"""

from __future__ import annotations

import argparse
import logging
import sys

from benchmarks.report import Grid, add_arguments, publish
from tests.faults.runs import REAL, TABLES, Run, run
from tests.faults.scene import SceneError

NUM_WHOLE_QUICK = {TABLES.name: 100, REAL.name: 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, metavar="SEED", help="scenes to play; all of them where none is named")
    parser.add_argument("--real", action="store_true", help="the seeds are of the bundled pair")
    add_arguments(parser)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # a lost verifier is what these scenes are about
    try:
        if arguments.seeds:
            _again(arguments)
        else:
            _all(arguments)
    except SceneError as error:
        sys.exit(str(error))


def _again(arguments: argparse.Namespace) -> None:
    plan = REAL if arguments.real else TABLES
    for seed in arguments.seeds:
        for answer in run(plan, seeds=[seed]).answers:
            print(f"seed {seed}: {answer}")


def _all(arguments: argparse.Namespace) -> None:
    runs = {plan.name: run(plan, NUM_WHOLE_QUICK[plan.name] if arguments.quick else None) for plan in (TABLES, REAL)}
    figures = {name: done.figures() for name, done in runs.items()}
    names = list(dict.fromkeys(name for counted in figures.values() for name in counted))
    rows = [[name, *(f"{counted.get(name, 0):,}" for counted in figures.values())] for name in names]
    publish(arguments, "faults", [Grid(_title(runs), ["counted", *figures], rows)], figures)
    for name, done in runs.items():
        print(f"{name}: {done.answers_per_s:.1f} answers a second, {done.cpu_s:.0f} s of processor time")


def _title(runs: dict[str, Run]) -> str:
    told = " and ".join(f"{done.num_whole:,} of {name}" for name, done in runs.items())
    return f"Answers that equal plain decoding, token for token: {told}; none differs"


if __name__ == "__main__":
    main()
