"""What large pages for the weights save a pass: the same engine with and without them, taking turns.

    python -m benchmarks.large_pages [--quick] [--json FILE] [--fill PAGE]

The bundled full model, and random Llamas of 30 and 100 million parameters in float32, 8 and 4 bits. A cell is a step of 1 or 16
sessions behind 64 tokens, by CPU time, of the middle pass; the first pass of a turn is left out, since it finds the other
engine's weights in the processor's caches. Two engines without them, made one after the other, show what mere chance does.
"""

from __future__ import annotations

import argparse
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from rich.progress import track

from benchmarks.in_turns import NUM_SLOTS, Sessions, middle_ms
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.shootout_forms import SIZES, weights_of, write_checkpoint
from speculation.engines import loading, pointwise
from speculation.engines.convert import Conversion, convert
from speculation.engines.large_pages import reserved
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair

BUNDLED, QUICK = "bundled full model", "tiny"
VARIANTS = ("fp32", "i8", "q4")
PASSES = {"1 session": (1, 1), "1 session x 9": (1, 9), "16 sessions": (16, 1)}
ROUNDS, ROUNDS_QUICK = 60, 2
LARGE, SMALL, OTHER = "large", "small", "small, made apart"


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of the middle pass, by kind of pages and pass."""

    model: str
    variant: str
    ms: Mapping[str, Mapping[str, float]]

    def cells(self) -> list[str]:
        found = []
        for label in PASSES:
            small = (self.ms[SMALL][label] + self.ms[OTHER][label]) / 2
            apart = abs(self.ms[SMALL][label] - self.ms[OTHER][label]) / small
            found += [f"{self.ms[LARGE][label]:.2f}", f"{small:.2f}", f"{self.ms[LARGE][label] / small:.2f} ({apart:.2f})"]
        return [self.model, self.variant, *found]


def measured(model: str, package: Package, variant: str, rounds: int) -> Measured:
    """To be run in a process of its own: what an engine leaves free, in large pages or not, is where the next one's weights are
    put."""
    stages = {LARGE: Sessions(OnnxEngine(package, variant, NUM_SLOTS))}
    with patch.object(loading, "in_large_pages", nullcontext), patch.object(pointwise, "reserved", in_small_pages):
        stages |= {name: Sessions(OnnxEngine(package, variant, NUM_SLOTS)) for name in (SMALL, OTHER)}
    return Measured(model, variant, middle_ms(stages, PASSES, rounds))


def in_small_pages(num_bytes: int, purpose: str) -> mmap.mmap:
    """As ``reserved``, which asks for large pages itself."""
    memory = reserved(num_bytes, purpose)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def packages(folder: Path, is_quick: bool) -> Iterator[tuple[str, Package, str]]:
    """Models, each with the variants that are measured."""
    yield BUNDLED, load_pair().full, "fp32"
    for name in [QUICK] if is_quick else [size for size in SIZES if size != QUICK]:
        checkpoint = write_checkpoint(folder / f"{name}-checkpoint", SIZES[name], weights_of(SIZES[name]))
        convert(Conversion(checkpoint, folder / name, VARIANTS))
        for variant in VARIANTS:
            yield name, Package(folder / name), variant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, rounds = list(packages(Path(folder), arguments.quick)), ROUNDS_QUICK if arguments.quick else ROUNDS
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as apart:
            waited_for = [apart.submit(measured, *one, rounds) for one in made]
            found = [one.result() for one in track(waited_for, "models", transient=True)]
    columns = ["model", "weights"]
    for label in PASSES:
        columns += [f"{label}: large, ms", "small, ms", "ratio (by chance)"]
    title = "Measured: CPU time of a pass whose weights lie in large pages, and in small ones"
    publish(arguments, "large-pages", [Grid(title, columns, [one.cells() for one in found])], [asdict(one) for one in found])


if __name__ == "__main__":
    main()
