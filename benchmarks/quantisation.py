"""What fewer bits, and fewer weights, do to the bundled pair: size, loss, agreement with the full model, and speed.

    python -m benchmarks.quantisation [--quick] [--json FILE] [--fill PAGE]

Loss is over the pair's held-out prompts; agreement is of choices along the full model's own paths of the committed traces, at
temperature 0 and with shared noise. Speed is of the engine alone, one thread, behind 64 tokens: rows of logits a second, by the
fastest pass, all variants of a model taking turns. Pruned models are the full model without half of its layers' weights, not
trained again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import track

from benchmarks import trace_file
from benchmarks.lookup import told_tokens
from benchmarks.quantised_models import (
    PASSES,
    WAYS_TO_PRUNE,
    Engines,
    prompts_of,
    pruned,
    quality,
    rows_a_second,
    slots,
    variant_names,
    with_variants,
)
from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.trace_file import Trace
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, Pair, load_pair
from speculation.engines.variants import PLAIN

ROUNDS, ROUNDS_QUICK = 60, 2
TRACES_QUICK, PROMPTS_QUICK = 1, 2
DENSE = "all of them"


@dataclass(frozen=True, slots=True)
class Measured:
    """One model: ``megabytes`` of its graph, nats a token, agreement by temperature, rows a second by pass."""

    model: str
    way: str
    megabytes: float
    loss: float
    agreement: Mapping[float, float]
    rows_a_second: Mapping[str, float]
    zeros: float = 0.0


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. Of the ``models`` (``draft``, ``full``) every variant is made."""

    pair: Pair
    models: Sequence[str]
    traces: Sequence[Trace]
    num_prompts: int
    num_rounds: int


def measured(extent: Extent, model: str, packages: Mapping[str, tuple[Package, str]]) -> list[Measured]:
    """A row for each of some packages' variants, by what the table calls it."""
    engines: Engines = {way: OnnxEngine(package, variant, slots()) for way, (package, variant) in packages.items()}
    qualities = {
        way: quality(engine, extent.pair, extent.traces, extent.num_prompts)
        for way, engine in track(engines.items(), f"choices, {model}", transient=True)
    }
    speeds = rows_a_second(engines, extent.num_rounds, model)
    sizes = {way: package.graph(variant).stat().st_size / 1e6 for way, (package, variant) in packages.items()}
    return [Measured(model, way, sizes[way], found.loss, found.agreement, speeds[way]) for way, found in qualities.items()]


def quantised(extent: Extent, folder: Path) -> list[Measured]:
    """Every variant of the models."""
    rows: list[Measured] = []
    halves = {"draft": extent.pair.draft, "full": extent.pair.full}
    for model in extent.models:
        package = with_variants(halves[model], folder / model)
        rows += measured(extent, model, {variant: (package, variant) for variant in variant_names()})
    return rows


def sparse(extent: Extent, folder: Path) -> list[Measured]:
    """The full model whole, and pruned in every way."""
    full = extent.pair.full
    made = {way: pruned(full, folder / f"pruned-{number}", way) for number, way in enumerate(WAYS_TO_PRUNE)}
    rows = measured(extent, "full", {DENSE: (full, PLAIN), **{way: (package, PLAIN) for way, (package, _) in made.items()}})
    zeros = {DENSE: 0.0, **{way: share for way, (_, share) in made.items()}}
    return [Measured(**{**asdict(row), "zeros": zeros[row.way]}) for row in rows]


def cells(row: Measured, plain: Measured) -> list[str]:
    """Loss, agreement, and speeds with their ratio to ``plain``'s."""
    speeds = [f"{speed:,.0f} ({speed / plain.rows_a_second[label]:.2f})" for label, speed in row.rows_a_second.items()]
    return [f"{row.loss:.3f}", *(f"{share:.3f}" for share in row.agreement.values()), *speeds]


def columns(rows: Sequence[Measured]) -> list[str]:
    temperatures = ["greedy" if not t else f"temperature {t:g}" for t in rows[0].agreement]
    return ["loss", *(f"agreement, {name}" for name in temperatures), *PASSES]


def quantised_grid(rows: Sequence[Measured], extent: Extent) -> Grid:
    plain = {row.model: row for row in rows if row.way == PLAIN}
    lost = sum(len(prompt) - 1 for prompt in prompts_of(extent.pair, extent.num_prompts))
    title = (
        f"Measured: loss in nats a token over {lost:,} tokens of held-out prompts, agreement over "
        f"{told_tokens(tokens(extent))}, speeds with their ratio to fp32"
    )
    table = [[row.model, row.way, f"{row.megabytes:.1f}", *cells(row, plain[row.model])] for row in rows]
    return Grid(title, ["model", "variant", "graph, MB", *columns(rows)], table)


def sparse_grid(rows: Sequence[Measured]) -> Grid:
    title = "Measured: the full model in fp32, its layers' matrices pruned by magnitude and not trained again"
    table = [[row.way, f"{row.zeros:.2f}", f"{row.megabytes:.1f}", *cells(row, rows[0])] for row in rows]
    return Grid(title, ["weights that stay", "zeros", "graph, MB", *columns(rows)], table)


def tokens(extent: Extent) -> dict[float, int]:
    """Generated tokens of the traces, by temperature."""
    temperatures = sorted({trace.temperature for trace in extent.traces})
    return {wanted: sum(len(t.token_ids) for t in extent.traces if t.temperature == wanted) for wanted in temperatures}


def chosen(is_quick: bool) -> Extent:
    pair, traces = load_pair(), trace_file.load().traces
    if not is_quick:
        return Extent(pair, ("draft", "full"), traces, len(pair.prompts), ROUNDS)
    temperatures = sorted({trace.temperature for trace in traces})
    few = [trace for wanted in temperatures for trace in [t for t in traces if t.temperature == wanted][:TRACES_QUICK]]
    return Extent(pair, ("draft",), few, PROMPTS_QUICK, ROUNDS_QUICK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    extent = chosen(arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        fewer_bits, fewer_weights = quantised(extent, Path(folder)), sparse(extent, Path(folder))
    blocks = {"quantisation": [quantised_grid(fewer_bits, extent)], "sparsity": [sparse_grid(fewer_weights)]}
    publish_blocks(
        arguments,
        blocks,
        {name: [asdict(r) for r in rows] for name, rows in (("quantisation", fewer_bits), ("sparsity", fewer_weights))},
    )


if __name__ == "__main__":
    main()
