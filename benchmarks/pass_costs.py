"""What a pass costs by sessions, drafted rows and context, beside the forward alone; and what a verified chunk costs beside it.

    python -m benchmarks.pass_costs [--quick] [--json FILE] [--fill docs/benchmarks.md]

Measured on the bundled full model, one thread, in this process. *Forward alone* is ONNX Runtime's own run within the same
passes, by the same clock; *priced* is what the verifier's own prices say, which it takes at its start
(``cloud_verifier/profiling.py``).

A chunk is what one pass verifies of one session (``chunk_costs.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.chunk_costs import MAX_ROWS, WAYS, Bench, chunk_grid, chunks_in_turns
from benchmarks.processes.devices import scripts
from benchmarks.processes.service import Timed, timed
from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.trace_file import load
from cloud_verifier import profiling
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts, PassShape
from cloud_verifier.engine import build_engine
from cloud_verifier.passes import Entry, Pass
from speculation.compiled import use_compiled
from speculation.engines.base import CacheId, Engine
from speculation.engines.package import load_pair
from speculation.engines.sharing import share_interpreter
from speculation.parameters import SamplingParameters


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how often."""

    sessions: tuple[int, ...]
    drafted: tuple[int, ...]
    contexts: tuple[int, ...]
    repeats: int
    chunk_sessions: tuple[int, ...]
    num_passes: int
    num_rounds: int


WHOLE = Plan((1, 4, 16, 64), (0, 1, 3, 7), (64, 256, 480), 9, (1, 16, 64), 30, 7)
QUICK = Plan((1, 2), (0, 1), (64,), 1, (2,), 2, 1)


@dataclass(frozen=True, slots=True)
class Cell:
    """One shape of a pass: medians in milliseconds."""

    sessions: int
    drafted: int
    context: int
    pass_ms: float
    forward_ms: float
    priced_ms: float


def cells(engine: Engine, clock: Timed, costs: PassCosts, plan: Plan) -> Iterator[Cell]:
    """Passes of every shape, greedy."""
    caches = [engine.open() for _ in range(max(plan.sessions))]
    for context in plan.contexts:
        for cache in caches:
            Pass((), [_entry(cache, 0, (1,) * context, 0)]).run(engine)
        for sessions in plan.sessions:
            for drafted in plan.drafted:
                yield _cell(engine, clock, costs, caches[:sessions], drafted, context, plan.repeats)
    for cache in caches:
        engine.close(cache)


def _cell(
    engine: Engine, clock: Timed, costs: PassCosts, caches: Sequence[CacheId], drafted: int, context: int, repeats: int
) -> Cell:
    passes, forwards = [], []
    for _ in range(1 + repeats):
        entries = [_entry(cache, context, (1,) * (1 + drafted), 1 + drafted) for cache in caches]
        began_s, forward_s = time.perf_counter(), clock.wall_s
        Pass((), entries).run(engine)
        passes.append(time.perf_counter() - began_s)
        forwards.append(clock.wall_s - forward_s)
        if entries[0].error is not None:
            raise entries[0].error
    shape = PassShape()
    for _ in caches:
        shape = shape.with_session(1 + drafted, context)
    figures_ms = (1e3 * x for x in (median(passes[1:]), median(forwards[1:]), costs.seconds(shape)))
    return Cell(len(caches), drafted, context, *figures_ms)


def _entry(cache: CacheId, cached: int, token_ids: Sequence[int], num_logits: int) -> Entry:
    return Entry(cache, cached, token_ids, num_logits, cached, token_ids[1:] if num_logits else (), SamplingParameters())


def cell_grid(found: Sequence[Cell]) -> Grid:
    columns = [
        "context",
        "sessions",
        "drafted a session",
        "rows",
        "pass, ms",
        "forward alone, ms",
        "share",
        "priced, ms",
        "priced / pass",
    ]
    rows = [
        [
            str(cell.context),
            str(cell.sessions),
            str(cell.drafted),
            str(cell.sessions * (1 + cell.drafted)),
            f"{cell.pass_ms:.2f}",
            f"{cell.forward_ms:.2f}",
            f"{cell.forward_ms / cell.pass_ms:.2f}",
            f"{cell.priced_ms:.2f}",
            f"{cell.priced_ms / cell.pass_ms:.2f}",
        ]
        for cell in found
    ]
    return Grid("Measured: a pass of the bundled full model, greedy (fp32, one thread; medians)", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    share_interpreter()
    use_compiled()
    plan = QUICK if arguments.quick else WHOLE
    slots = max(plan.sessions)
    full = build_engine(VerifierConfig(num_slots=slots, max_sessions=slots))
    costs = profiling.measure(full.engine, MAX_ROWS)
    clock = timed(full.engine)
    shapes = list(cells(full.engine, clock, costs, plan))
    texts = scripts(load(), load_pair(), 0.0)
    benches = [Bench(full, clock, texts, sessions, way) for way in WAYS for sessions in plan.chunk_sessions]
    chunks = asyncio.run(chunks_in_turns(benches, plan.num_passes, plan.num_rounds))
    blocks = {"pass-costs": [cell_grid(shapes)], "chunk-costs": [chunk_grid(chunks)]}
    figures = {"passes": [asdict(cell) for cell in shapes], "chunks": [asdict(chunk) for chunk in chunks]}
    publish_blocks(arguments, blocks, figures)


if __name__ == "__main__":
    main()
