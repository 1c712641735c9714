"""How many devices one verifier serves on this machine, in wall time and unshaped, and what drafts give it.

    python -m benchmarks.capacity [--quick] [--rounds N] [--counts N ...] [--llama-server PATH] [--json FILE]
        [--briefly] [--temperatures T ...] [--fill docs/benchmarks.md]

The production verifier in a process of its own, real gRPC, and replay devices in another, whose drafts were recorded and cost
the machine nothing but sending them (``processes/devices.py``). All systems run the bundled full model on one thread, take
turns in every round, and are asked for the same texts; every text that ends is compared. The rates are medians over the rounds,
the ratios those of each round. Peers (``capacity_peers.py``) are asked once, before the rounds.

``--briefly``: drafts of devices and decoding alone, and nobody else, so that there is time for more rounds; and how far
decoding alone differs from itself, for a ratio can be told no better.

The ceiling is the forwards alone: final tokens a second of CPU that ONNX Runtime spent in them (``processes/service.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.capacity_peers import Peers, peers
from benchmarks.capacity_runs import ALONE, IN_CLOUD, ONE_ROW, OURS, SYSTEMS, SYSTEMS_QUICK, Run, at, measure
from benchmarks.report import Grid, add_arguments, publish_blocks

COUNTS, COUNTS_QUICK = (1, 4, 16, 64, 128), (2,)
NUM_ROUNDS = 3
SECONDS, SECONDS_QUICK = 5.0, 0.5
SECONDS_A_DEVICE = 0.12
"""More for each device, so that in the longest windows, too, a device writes a text and more."""

Rounds = Sequence[Sequence[Run]]


def grids(rounds: Rounds, others: Peers) -> list[Grid]:
    """One table a temperature: rates side by side."""
    return [
        _grid(rounds, temperature, others.get(temperature, {}))
        for temperature in sorted({run.temperature for run in rounds[0]})
    ]


def cost_grid(runs: Sequence[Run]) -> Grid:
    """Where each system's time went."""
    columns = [
        *("system", "temperature", "devices", "passes a token", "rows a pass", "CPU in forwards"),
        *("a forward under way, share of the time", "CPU beside them"),
        *("the same a verdict, us", "CPU of the devices", "texts", "of them the full model's"),
    ]
    return Grid("Measured: where the verifier's time goes (cores; medians)", columns, [_cost_cells(of) for of in _cells(runs)])


def _cells(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one system at one temperature with as many devices."""
    found: dict[tuple[str, float, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.temperature, run.count)):
        found.setdefault((run.system, run.temperature, run.count), []).append(run)
    return list(found.values())


def _cost_cells(runs: Sequence[Run]) -> list[str]:
    first = runs[0]
    texts = (sum(run.texts for run in runs), sum(run.same_texts for run in runs))
    return [
        first.system,
        f"{first.temperature:g}",
        str(first.count),
        f"{median(run.passes_per_token for run in runs):.3f}",
        f"{median(run.rows_per_pass for run in runs):.1f}",
        f"{median(run.forward_cpu for run in runs):.2f}",
        f"{median(run.forward_time for run in runs):.2f}",
        f"{median(run.other_cpu for run in runs):.2f}",
        f"{median(run.outside_us for run in runs):.0f}",
        f"{median(run.device_cpu for run in runs):.2f}",
        *map(str, texts),
    ]


def _grid(rounds: Rounds, temperature: float, others: Mapping[str, Mapping[int, float]]) -> Grid:
    rows = [run for runs in rounds for run in runs if run.temperature == temperature]
    systems = [name for name in (OURS, ALONE, ONE_ROW, IN_CLOUD) if any(run.system == name for run in rows)]
    columns = [
        "devices",
        *systems,
        "ratio to alone",
        "forwards alone",
        "share of them",
        "alone's share",
        "of the time",
        *others,
    ]
    cells = [_rate_cells(rounds, temperature, count, systems, others) for count in sorted({run.count for run in rows})]
    measured = f"medians of {len(rounds)} rounds" + (f"; {', '.join(others)}: once, before them" if others else "")
    return Grid(f"Measured, wall clock: final tokens a second, temperature {temperature:g} ({measured})", columns, cells)


def _rate_cells(
    rounds: Rounds, temperature: float, count: int, systems: Sequence[str], others: Mapping[str, Mapping[int, float]]
) -> list[str]:
    here = [{run.system: run for run in runs if (run.temperature, run.count) == (temperature, count)} for runs in rounds]
    ratios = [runs[OURS].tokens_per_s / runs[ALONE].tokens_per_s for runs in here]
    return [
        str(count),
        *(f"{median(runs[name].tokens_per_s for runs in here):.0f}" for name in systems),
        _spread(ratios),
        f"{median(runs[OURS].ceiling_per_s for runs in here):.0f}",
        f"{median(runs[OURS].forward_cpu for runs in here):.2f}",
        f"{median(runs[ALONE].forward_cpu for runs in here):.2f}",
        f"{median(runs[OURS].forward_time for runs in here):.2f}",
        *(f"{rates[count]:.0f}" if count in rates else "-" for rates in others.values()),
    ]


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def brief_grid(rounds: Rounds) -> Grid:
    """What drafts give, beside what decoding alone differs by from round to round."""
    columns = ["temperature", "devices", OURS, ALONE, "ratio to alone", "above alone", "alone, lowest to highest"]
    title = f"Measured, wall clock, these two alone: final tokens a second (medians of {len(rounds)} rounds)"
    places = sorted({(run.temperature, run.count) for runs in rounds for run in runs})
    return Grid(title, columns, [_brief_cells(rounds, *place) for place in places])


def _brief_cells(rounds: Rounds, temperature: float, count: int) -> list[str]:
    here = [
        {run.system: run.tokens_per_s for run in runs if (run.temperature, run.count) == (temperature, count)}
        for runs in rounds
    ]
    ours, alone = ([runs[name] for runs in here] for name in (OURS, ALONE))
    ratios = [with_drafts / without for with_drafts, without in zip(ours, alone, strict=True)]
    return [
        f"{temperature:g}",
        str(count),
        f"{median(ours):.0f}",
        f"{median(alone):.0f}",
        _spread(ratios),
        f"{sum(ratio >= 1 for ratio in ratios)} of {len(ratios)}",
        f"{min(alone) / median(alone):.2f} to {max(alone) / median(alone):.2f}",
    ]


def _blocks(rounds: Rounds, others: Peers, is_brief: bool) -> dict[str, list[Grid]]:
    if is_brief:
        return {"capacity-briefly": [brief_grid(rounds)]}
    return {"capacity": grids(rounds, others), "capacity-costs": [cost_grid([run for runs in rounds for run in runs])]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often all of it is measured ({NUM_ROUNDS})")
    parser.add_argument("--counts", type=int, nargs="+", metavar="N", help=f"numbers of devices {COUNTS}")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="llama.cpp's server; by default the one on the path")
    parser.add_argument("--temperatures", type=float, nargs="+", default=(0.0, 0.8), metavar="T", help="0, 0.8 or both (both)")
    parser.add_argument("--briefly", action="store_true", help="only with drafts of devices and alone")
    arguments = parser.parse_args()
    counts = tuple(sorted(arguments.counts or (COUNTS_QUICK if arguments.quick else COUNTS)))
    num_rounds = (1 if arguments.quick else NUM_ROUNDS) if arguments.rounds is None else arguments.rounds
    if num_rounds < 1 or counts[0] < 1:
        parser.error("--rounds and --counts must be at least 1")
    if not set(arguments.temperatures) <= {0.0, 0.8}:
        parser.error("--temperatures: texts were recorded at 0 and 0.8")
    all_systems = SYSTEMS_QUICK if arguments.quick else SYSTEMS[:2] if arguments.briefly else SYSTEMS
    systems = at(all_systems, arguments.temperatures)
    if not systems:
        parser.error("--quick runs at temperature 0 alone")
    is_short = arguments.quick or arguments.briefly
    others = {} if is_short else asyncio.run(peers(counts, arguments.llama_server))
    seconds = SECONDS_QUICK if arguments.quick else SECONDS
    rounds = asyncio.run(measure(systems, counts, num_rounds, seconds, a_device_s=SECONDS_A_DEVICE))
    runs = [run for runs in rounds for run in runs]
    different = sum(run.texts - run.same_texts for run in runs if run.system != ONE_ROW)
    figures = {"runs": [[asdict(run) for run in runs] for runs in rounds], "peers": others}
    publish_blocks(arguments, _blocks(rounds, others, arguments.briefly), figures)
    if different:
        sys.exit(f"{different} texts differ from plain decoding")


if __name__ == "__main__":
    main()
