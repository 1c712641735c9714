"""The bundled pair in every cell of the grid: draft time, pass time, round trip, temperature; each baseline beside it.

The pair's recorded traces (``traces.py``) replace its models, the agent and the verifier are production code under the virtual
clock: the table is the same on any machine. A prompt is one token here, so no prefill is charged. Rates count from the request
to the end of the last pass, and are means over the traces; passes are over all tokens. Stop-and-wait and speculation inside the
cloud run at the best of several lengths, chosen by the rate itself.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from statistics import mean

from benchmarks import trace_file
from benchmarks.first_order import Figures, Times
from benchmarks.grid_production import Setup, adaptive, branches, cloud_alone, inside_the_cloud, stop_and_wait
from benchmarks.plain_texts import check
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull, StepCost, stack
from benchmarks.virtual import last_event
from cloud_verifier.companion import Companion
from speculation.engines.runner import EngineRunner
from speculation.shaping import virtual_time

DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS = (9.0, 18.0), (30.0, 60.0), (20.0, 60.0, 150.0, 300.0)
TEMPERATURES = (0.0, 0.8)
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24)
NUM_TRACES, NUM_TRACES_QUICK = 8, 1
LEAST_OF_CLOUD = 0.99
COLUMNS = (
    "temperature",
    "draft, ms",
    "pass, ms",
    "round trip, ms",
    "cloud alone",
    "device alone",
    "stop and wait",
    "inside the cloud",
    "one branch",
    "two branches",
    "four branches",
    "adaptive",
    "adaptive over cloud alone",
    "over stop and wait",
    "",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a run meets."""

    times: Times
    temperature: float


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: every way's figures; of a way with a length, those at its best."""

    cell: Cell
    figures: dict[str, Figures]
    lengths: dict[str, int] = field(default_factory=dict)
    made_up_share: float = 0.0

    @property
    def over_cloud(self) -> float:
        return self.figures["adaptive"].tokens_per_s / self.figures["cloud alone"].tokens_per_s

    @property
    def over_waiting(self) -> float:
        return self.figures["adaptive"].tokens_per_s / self.figures["stop and wait"].tokens_per_s

    @property
    def is_met(self) -> bool:
        never_waiting = ("one branch", "two branches", "four branches", "adaptive")
        least = LEAST_OF_CLOUD * self.figures["cloud alone"].tokens_per_s
        return all(self.figures[way].tokens_per_s >= least for way in never_waiting)

    def cells(self) -> list[str]:
        times = self.cell.times
        head = [f"{x:g}" for x in (self.cell.temperature, times.draft_ms, times.pass_ms, times.round_trip_ms)]
        ways = [self._way(name) for name in COLUMNS[4:12]]
        return [*head, *ways, f"{self.over_cloud:.2f}", f"{self.over_waiting:.2f}", "" if self.is_met else "MISS"]

    def _way(self, name: str) -> str:
        figures = self.figures[name]
        length = f", k={self.lengths[name]}" if name in self.lengths else ""
        passes = f" ({figures.passes_per_token:.2f}{length})" if figures.passes_per_token else ""
        return f"{figures.tokens_per_s:.1f}{passes}"


@cache
def replay() -> Replay:
    """The committed traces, read once a process."""
    return Replay(trace_file.load())


def reached(setup: Setup, cell: Cell, num_traces: int) -> tuple[Figures, float]:
    """Mean rate and passes a token over traces, and the share of draft rows that no trace holds."""
    answers = [virtual_time.run(_answer(setup, cell, index)) for index in replay().indices(cell.temperature)[:num_traces]]
    rates, passes, tokens, shares = zip(*answers, strict=True)
    return Figures(mean(rates), sum(passes) / sum(tokens)), mean(shares)


async def _answer(setup: Setup, cell: Cell, index: int) -> tuple[float, int, int, float]:
    times = cell.times
    draft = ReplayDraft(replay(), StepCost(times.draft_ms / 1000), num_slots=16)
    full = ReplayFull(replay(), StepCost(times.pass_ms / 1000))
    companion = None
    if setup.verifier.draft_length:
        beside = ReplayDraft(replay(), StepCost(times.cloud_draft_ms / 1000))
        companion = Companion(EngineRunner(beside), setup.verifier.draft_length, setup.verifier.max_rows)
    made = stack(replay(), draft, full, times.round_trip_ms, setup.agent, setup.verifier, companion)
    async with made as agent:
        done = await last_event(agent, replay().request(index, setup.mode))
    check(full, [done])
    num_tokens = len(done.token_ids)
    took_s = num_tokens / done.figures["tokens_per_s"]["value"] - times.round_trip_ms / 2000
    return num_tokens / took_s, done.usage["passes"], num_tokens, draft.use.made_up_share


def measure(cell: Cell, num_traces: int) -> Row:
    """One cell, every way."""
    ways = {"cloud alone": cloud_alone(), "adaptive": adaptive()}
    ways |= {name: branches(width) for name, width in (("one branch", 1), ("two branches", 2), ("four branches", 4))}
    found = {name: reached(setup, cell, num_traces) for name, setup in ways.items()}
    figures = {name: reach[0] for name, reach in found.items()}
    figures["device alone"] = Figures(1000 / cell.times.draft_ms, 0.0)
    lengths = {}
    for name, make in (("stop and wait", stop_and_wait), ("inside the cloud", inside_the_cloud)):
        tried = {length: reached(make(length), cell, num_traces)[0] for length in LENGTHS}
        lengths[name] = max(tried, key=lambda length: tried[length].tokens_per_s)
        figures[name] = tried[lengths[name]]
    return Row(cell, figures, lengths, found["adaptive"][1])


def all_cells() -> list[Cell]:
    timings = itertools.product(TEMPERATURES, DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS)
    return [Cell(Times(*timing), temperature) for temperature, *timing in timings]


def ratios(rows: Sequence[Row], num_traces: int) -> Grid:
    """The grid at a glance, the round trips beside each other: adaptive over cloud alone, and over stop-and-wait."""
    trips = sorted({row.cell.times.round_trip_ms for row in rows})
    by_machine: dict[tuple[str, ...], dict[float, str]] = {}
    for row in rows:
        reached = by_machine.setdefault(tuple(row.cells()[:3]), {})
        reached[row.cell.times.round_trip_ms] = f"{row.over_cloud:.2f} ({row.over_waiting:.1f})"
    title = (
        f"Emulated, the bundled pair's traces ({num_traces} a temperature): tokens a second over cloud alone"
        " (over the best stop-and-wait), by round trip"
    )
    columns = (*COLUMNS[:3], *(f"{trip:g} ms" for trip in trips))
    return Grid(title, columns, [[*machine, *(reached.get(t, "") for t in trips)] for machine, reached in by_machine.items()])


def measured(cells: Sequence[Cell], num_traces: int, num_processes: int) -> list[Row]:
    """Every cell, in order."""
    return in_processes(partial(measure, num_traces=num_traces), cells, num_processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    choices = range(1, NUM_TRACES + 1)
    parser.add_argument("--traces", type=int, choices=choices, default=NUM_TRACES, help="of each temperature (%(default)s)")
    arguments = parser.parse_args()
    cells = all_cells()[1::72] if arguments.quick else all_cells()
    num_traces = NUM_TRACES_QUICK if arguments.quick else arguments.traces
    rows = measured(cells, num_traces, 1 if arguments.quick else arguments.processes)
    made_up = mean(row.made_up_share for row in rows)
    title = (
        f"Emulated, the bundled pair's traces: final tokens a second (passes a token), {num_traces} traces a temperature;"
        f" {made_up:.0%} of adaptive's draft rows lie off what was recorded"
    )
    worst = min(rows, key=lambda row: row.over_cloud)
    summary = Grid(
        "Worst cell of adaptive",
        ("over cloud alone", "temperature", "draft, ms", "pass, ms", "round trip, ms"),
        [[f"{worst.over_cloud:.2f}", *worst.cells()[:4]]],
    )
    blocks = {
        "pair-grid": [summary, Grid(title, COLUMNS, [r.cells() for r in rows])],
        "pair-ratios": [ratios(rows, num_traces)],
    }
    publish_blocks(arguments, blocks, [asdict(r) for r in rows])


if __name__ == "__main__":
    main()
