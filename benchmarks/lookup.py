"""What looking things up in the text adds to the bundled pair's draft: agreement with the full model, and what a row costs.

    python -m benchmarks.lookup [--quick] [--json FILE] [--fill PAGE]

Along the full model's own paths of the committed traces: the draft model as the phone runs it, the draft without a model
(``speculation/engines/lookup.py``), and blends of both (``blended.py``) at several shares. Agreement is of shared-noise
choices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import trace_file
from benchmarks.clock import reading_s
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.trace_file import Trace
from device_agent.build import DRAFT_VARIANT
from speculation.choice import choose_ranked
from speculation.engines.base import Chunk, Engine
from speculation.engines.blended import BlendedEngine
from speculation.engines.lookup import LookupEngine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Pair, load_pair
from speculation.parameters import SamplingParameters

BLOCK = "lookup"
SHARES = (0.05, 0.1, 0.2, 0.4)
NUM_CHOICES = 4
TRACES_QUICK = 2
COLUMNS = ("draft", "temperature", "agreement", "misses that choices 2 to 4 cover", "CPU us a row")


@dataclass(frozen=True, slots=True)
class Row:
    """One way to draft at one temperature. ``row_us``: CPU time of a row of logits, all in."""

    way: str
    temperature: float
    num_tokens: int
    agreement: float
    covered: float
    row_us: float


def ways(pair: Pair) -> dict[str, Callable[[], Engine]]:
    """All drafts, by name."""

    def model() -> OnnxEngine:
        return OnnxEngine(pair.draft, DRAFT_VARIANT, num_slots=1)

    size, context_length = pair.draft.architecture.vocabulary_size, pair.draft.context_length
    blends = {f"both, share {share:g}": lambda share=share: BlendedEngine(model(), share) for share in SHARES}
    return {"model": model, "lookup": lambda: LookupEngine(size, context_length, num_slots=1), **blends}


def measure(pair: Pair, traces: Sequence[Trace]) -> list[Row]:
    cells = [
        (way, make, temperature) for way, make in ways(pair).items() for temperature in sorted({t.temperature for t in traces})
    ]
    return [
        row_of(way, make(), pair, [trace for trace in traces if trace.temperature == temperature])
        for way, make, temperature in track(cells, "drafts", transient=True)
    ]


def row_of(way: str, engine: Engine, pair: Pair, traces: Sequence[Trace]) -> Row:
    """One way along the paths of some traces, a token at a time, as a device meets them."""
    hits, spent_s = [], 0.0
    for trace in traces:
        found, took_s = hits_of(engine, pair, trace)
        hits.append(found)
        spent_s += took_s
    joined = np.concatenate(hits)
    first, any_of = joined[:, 0], joined.any(axis=1)
    missed = np.count_nonzero(~first)
    covered = np.count_nonzero(any_of & ~first) / missed if missed else 0.0
    return Row(way, traces[0].temperature, len(joined), float(first.mean()), covered, 1e6 * spent_s / len(joined))


def hits_of(engine: Engine, pair: Pair, trace: Trace) -> tuple[NDArray[np.bool_], float]:
    """Which of the first choices is the full model's, bool [n, NUM_CHOICES]; and the CPU seconds of the rows, without what
    reading the clock takes."""
    prompt = pair.draft.tokenizer.encode(text_of(pair, trace)).ids
    asked = SamplingParameters(temperature=trace.temperature, seed=trace.seed)
    cache, fed, hits, spent_s, clock_s = engine.open(), list(prompt), [], 0.0, reading_s(time.process_time)
    for index, token_id in enumerate(trace.token_ids):
        began_s = time.process_time()
        logits = engine.extend([Chunk(cache, fed, 1)])
        spent_s += time.process_time() - began_s - clock_s if index else 0.0  # the first reads the prompt
        ranked = choose_ranked(logits, [len(prompt) + index], [asked], NUM_CHOICES)
        hits.append(ranked.token_ids[0] == token_id)
        fed = [int(token_id)]
    engine.close(cache)
    return np.array(hits), spent_s


def text_of(pair: Pair, trace: Trace) -> str:
    """Raises ``StopIteration`` where the pair has no such prompt: the traces are another pair's."""
    return next(prompt["text"] for prompt in pair.prompts if prompt["source"] == trace.prompt)


def told_tokens(counts: Mapping[float, int]) -> str:
    """How many tokens, by temperature: texts that are drawn end sooner."""
    (first, num_tokens), *others = counts.items()
    told = [
        f"{num_tokens:,} tokens at temperature {first:g}",
        *(f"{count:,} at {temperature:g}" for temperature, count in others),
    ]
    return " and ".join(told)


def grid(rows: Sequence[Row]) -> Grid:
    title = f"Measured along the full model's own paths, {told_tokens({row.temperature: row.num_tokens for row in rows})}"
    cells = [
        [row.way, f"{row.temperature:g}", f"{row.agreement:.3f}", f"{row.covered:.3f}", f"{row.row_us:.0f}"] for row in rows
    ]
    return Grid(title, COLUMNS, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    traces = trace_file.load().traces
    if arguments.quick:
        temperatures = {trace.temperature for trace in traces}
        traces = [t for wanted in temperatures for t in [t for t in traces if t.temperature == wanted][:TRACES_QUICK]]
    rows = measure(load_pair(), traces)
    publish(arguments, BLOCK, [grid(rows)], [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
