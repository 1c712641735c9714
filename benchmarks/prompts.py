"""When the first token is there, where a verifier reads many prompts at once.

    python -m benchmarks.prompts [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md]

Emulated (``prompts_scene.py``): prompts that come at the same moment, equal and unequal ones, and prompts that keep coming,
alone and beside answers that are being written; by three orders: as the verifier reads them (the shortest first, one after the
other), in order of arrival, and all a little in every pass. Aims: the mean first token is no later than by either other order,
and between the tokens of other answers is no more time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.prompts_scene import Crowd, Felt, Order, run
from benchmarks.report import Grid, add_arguments, publish

BLOCK = "prompts"
SHORT, LONG = 64, 2048
LOAD = 0.8
COLUMNS = (
    "prompts",
    "read",
    "first token mean, ms",
    "to ours",
    "p50, ms",
    "p99, ms",
    "of the longest tenth, ms",
    "between tokens of others p99, ms",
)


def crowds(num_prompts: int, num_coming: int) -> list[Crowd]:
    """What comes: at once, or one after the other so that the machine reads for a share of its time."""
    lengths = f"of {SHORT} to {LONG:,} tokens"
    beside = "the same beside 16 answers"
    return [
        Crowd(f"{num_prompts} of 512 tokens at once", 512, 512, num_prompts),
        Crowd(f"{num_prompts} {lengths} at once", SHORT, LONG, num_prompts),
        Crowd(beside, SHORT, LONG, num_prompts, num_writing=16),
        Crowd(f"{num_coming} {lengths}, one after the other", SHORT, LONG, num_coming, load=LOAD),
        Crowd(beside, SHORT, LONG, num_coming, load=LOAD, num_writing=16),
    ]


def cells(crowd: Crowd, order: Order, felt: Felt, ours: Felt) -> list[str]:
    first, lengths = np.array(felt.first_ms), np.array(felt.lengths)
    longest = first[lengths >= np.percentile(lengths, 90)]
    between = f"{np.percentile(felt.between_ms, 99):.1f}" if felt.between_ms else ""
    return [
        *(crowd.name, order.value, f"{first.mean():.0f}", f"{first.mean() / np.mean(ours.first_ms):.2f}"),
        *(f"{np.percentile(first, 50):.0f}", f"{np.percentile(first, 99):.0f}", f"{longest.mean():.0f}", between),
    ]


def grid(found: Mapping[tuple[Crowd, Order], Felt]) -> Grid:
    rows = [cells(crowd, order, felt, found[crowd, Order.OURS]) for (crowd, order), felt in found.items()]
    return Grid("Emulated: when the first token of a prompt is there, by the order in which prompts are read", COLUMNS, rows)


def to_json(crowd: Crowd, order: Order, felt: Felt) -> dict[str, Any]:
    return asdict(crowd) | {"order": order.value} | asdict(felt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    asked: Sequence[tuple[Crowd, Order]] = list(itertools.product(crowds(4, 6) if arguments.quick else crowds(32, 200), Order))
    felt = in_processes(run, asked, 1 if arguments.quick else arguments.processes, "crowds")
    found = dict(zip(asked, felt, strict=True))
    publish(arguments, BLOCK, [grid(found)], [to_json(*case, one) for case, one in found.items()])


if __name__ == "__main__":
    main()
