"""The production agent and verifier beside the first-order model, cell by cell: draft time, pass time, round trip, acceptance.

Both meet the same acceptance process, position by position (``synthetic.py``, ``first_order.py``), so what differs is what the
code does, and not luck. Everything is emulated: virtual clock, inline engines, a link of pure delay, one session, a prompt of
one token. Rates count from the request to the end of the last pass, as the model counts; they are means over the same seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from rich.progress import Progress

from benchmarks import first_order, synthetic
from benchmarks.first_order import Figures, Times, mean_of
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.synthetic import Acceptance, DraftEngine, FullEngine
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import NetworkProfile

DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS = (9.0, 18.0), (30.0, 60.0), (20.0, 60.0, 150.0, 300.0)
ALPHAS = (0.6, 0.7, 0.8, 0.9, 0.95)
NUM_TOKENS, NUM_SEEDS = 2000, 4
NUM_TOKENS_QUICK, NUM_SEEDS_QUICK = 400, 1
MARGIN = 300
"""Positions behind the last token that a device may draft before it is told of the end."""

LEAST_OF_MODEL, LEAST_OF_CLOUD = 0.97, 0.99
PROMPT = synthetic.decode([1])
COLUMNS = (
    "draft, ms",
    "pass, ms",
    "round trip, ms",
    "acceptance",
    "cloud alone",
    "drafting ahead",
    "passes a token",
    "model: best sync",
    "model: ahead",
    "passes a token",
    "of the model",
    "of cloud alone",
    "",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: what the production code reached (``cloud``, ``ours``), and what the model says."""

    times: Times
    alpha: float
    cloud: Figures
    ours: Figures
    sync: Figures
    sync_length: int
    model: Figures

    @property
    def of_model(self) -> float:
        return self.ours.tokens_per_s / self.model.tokens_per_s

    @property
    def of_cloud(self) -> float:
        return self.ours.tokens_per_s / self.cloud.tokens_per_s

    @property
    def is_met(self) -> bool:
        return self.of_model >= LEAST_OF_MODEL and self.of_cloud >= LEAST_OF_CLOUD

    def cells(self) -> list[str]:
        times, sync = self.times, self.sync
        head = [f"{x:g}" for x in (times.draft_ms, times.pass_ms, times.round_trip_ms, self.alpha)]
        ours = [f"{self.cloud.tokens_per_s:.1f}", f"{self.ours.tokens_per_s:.1f}", f"{self.ours.passes_per_token:.2f}"]
        model = [f"{sync.tokens_per_s:.1f} ({sync.passes_per_token:.2f}, k={self.sync_length})"]
        model += [f"{self.model.tokens_per_s:.1f}", f"{self.model.passes_per_token:.2f}"]
        return [*head, *ours, *model, f"{self.of_model:.3f}", f"{self.of_cloud:.2f}", "" if self.is_met else "MISS"]


@dataclass(frozen=True, slots=True)
class Runs:
    """How much is run a cell."""

    num_tokens: int = NUM_TOKENS
    num_seeds: int = NUM_SEEDS


def delay_line(round_trip_ms: float) -> NetworkProfile:
    """A network that holds every message back for half a round trip, and nothing else."""
    delay_s = round_trip_ms / 2000
    return NetworkProfile(
        name="delay",
        title="a delay and nothing else",
        uplink_rate_bytes_per_s=math.inf,
        uplink_delay_s=delay_s,
        uplink_jitter_s=0.0,
        downlink_rate_bytes_per_s=math.inf,
        downlink_delay_s=delay_s,
        downlink_jitter_s=0.0,
        overhead_bytes=0.0,
    )


@asynccontextmanager
async def stack(acceptance: Acceptance, seed: int, times: Times, num_tokens: int) -> AsyncIterator[DeviceAgent]:
    """The production agent and verifier with a delay line between them, on the synthetic pair; the connection is warm."""
    context = num_tokens + 1
    draft = DraftEngine(acceptance, seed, context, times.draft_ms / 1000)
    full = FullEngine(acceptance, seed, context, times.pass_ms / 1000)
    verifier = Verifier(EngineRunner(full), synthetic.IDENTITY, SelfTest(True, "f" * 16, 0.0, ()), VerifierConfig())
    connector = ShapedConnector(MemoryConnector(verifier), delay_line(times.round_trip_ms))
    agent = DeviceAgent(synthetic.facts(context), EngineRunner(draft), connector, AgentConfig())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        async with agent:
            await last_event(agent, StreamRequest(PROMPT, max_tokens=1))
            yield agent
        verifier.stop()


def produced(acceptance: Acceptance, seed: int, times: Times, num_tokens: int, mode: Mode) -> Figures:
    """What the production code reaches."""
    return virtual_time.run(_produced(acceptance, seed, times, num_tokens, mode))


async def _produced(acceptance: Acceptance, seed: int, times: Times, num_tokens: int, mode: Mode) -> Figures:
    async with stack(acceptance, seed, times, num_tokens) as agent:
        done = await last_event(agent, StreamRequest(PROMPT, max_tokens=num_tokens, mode=mode))
    seen_s = num_tokens / done.figures["tokens_per_s"]["value"]
    return Figures(num_tokens / (seen_s - times.round_trip_ms / 2000), done.usage["passes"] / num_tokens)


@functools.cache
def cloud_alone(pass_ms: float, round_trip_ms: float, num_tokens: int) -> Figures:
    """The production code in mode cloud: neither the draft nor what it is worth matters to it."""
    times = Times(DRAFTS_MS[0], pass_ms, round_trip_ms)
    return produced(Acceptance(ALPHAS[0]), 0, times, num_tokens, Mode.CLOUD)


@functools.cache
def true_hits(alpha: float, seed: int, num_tokens: int) -> tuple[bool, ...]:
    """Where the draft's first choice is right, on the full model's own path."""
    ranks = synthetic.true_ranks(Acceptance(alpha), seed, synthetic.encode(PROMPT), num_tokens + MARGIN)
    return tuple([rank == synthetic.FIRST for rank in ranks])


def row(times: Times, alpha: float, runs: Runs) -> Row:
    """One cell, over all its seeds."""
    seeds, count = range(runs.num_seeds), runs.num_tokens
    draws = [true_hits(alpha, seed, count) for seed in seeds]
    sync, sync_length = first_order.best_sync(draws, times, count)
    return Row(
        times=times,
        alpha=alpha,
        cloud=cloud_alone(times.pass_ms, times.round_trip_ms, count),
        ours=mean_of([produced(Acceptance(alpha), seed, times, count, Mode.COLLABORATE) for seed in seeds]),
        sync=sync,
        sync_length=sync_length,
        model=mean_of([first_order.ahead(hits, times, count) for hits in draws]),
    )


def cells() -> list[tuple[Times, float]]:
    """All cells of the grid."""
    timings = itertools.product(DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS)
    return [(Times(*timing), alpha) for timing in timings for alpha in ALPHAS]


def measure(runs: Runs) -> list[Row]:
    """Every cell, with a bar that tells how far it is."""
    with Progress(transient=True) as progress:
        task = progress.add_task("cells", total=len(cells()))
        rows = []
        for times, alpha in cells():
            rows.append(row(times, alpha, runs))
            progress.advance(task)
    return rows


def as_json(r: Row) -> dict[str, object]:
    return asdict(r) | {"of_model": r.of_model, "of_cloud": r.of_cloud, "is_met": r.is_met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    runs = Runs(NUM_TOKENS_QUICK, NUM_SEEDS_QUICK) if arguments.quick else Runs()
    rows = measure(runs)
    num_met = sum(r.is_met for r in rows)
    title = (
        f"Emulated: final tokens a second, {runs.num_tokens} tokens x {runs.num_seeds} seeds a cell; {num_met} of {len(rows)}"
        f" cells reach {LEAST_OF_MODEL} of the model and {LEAST_OF_CLOUD} of cloud alone"
    )
    publish(arguments, "grid", [Grid(title, COLUMNS, [r.cells() for r in rows])], [as_json(r) for r in rows])


if __name__ == "__main__":
    main()
