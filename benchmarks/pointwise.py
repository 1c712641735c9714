"""What a pass gains where matrices are multiplied as pointwise convolutions: the same engine with and without, taking turns.

    python -m benchmarks.pointwise [--quick] [--json FILE] [--fill PAGE]

The bundled full model, whose weights lie in the processor's caches and which is left alone for that, and random Llamas of 30
and 100 million parameters, in float32. A cell is a pass over 1 or 16 sessions behind 64 tokens, by CPU time, of the middle one;
the first of a turn is left out, since it finds the other engine's weights in the processor's caches.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.progress import track

from benchmarks.in_turns import NUM_SLOTS, Sessions, middle_ms
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.shootout_forms import SIZES, weights_of, write_checkpoint
from speculation.engines import loading, pointwise
from speculation.engines.convert import Conversion, convert
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair

BUNDLED, QUICK, VARIANT = "bundled full model", "tiny", "fp32"
PASSES = {
    "1 session": (1, 1),
    "1 session x 9": (1, 9),
    "16 sessions": (16, 1),
    "16 sessions x 9": (16, 9),
    "1 session x 256": (1, 256),
}
"""Sessions and rows of each pass that is timed."""
ROUNDS, ROUNDS_QUICK = 30, 2
MATRICES, CONVOLVED = "matrices", "convolved"


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of the middle pass, by form and pass. ``is_default``: whether an engine takes convolutions by itself."""

    model: str
    is_default: bool
    ms: Mapping[str, Mapping[str, float]]

    def cells(self) -> list[str]:
        by_matrices, by_convolutions = self.ms[MATRICES], self.ms[CONVOLVED]
        found = [f"{by_matrices[p]:.2f}, {by_convolutions[p]:.2f}: {by_matrices[p] / by_convolutions[p]:.2f}" for p in PASSES]
        return [self.model, "yes" if self.is_default else "no", *found]


def measured(model: str, package: Package, rounds: int) -> Measured:
    """To be run in a process of its own, so that no engine lies where another has been."""
    is_default = OnnxEngine(package, VARIANT, NUM_SLOTS).is_convolved
    with ExitStack() as always:
        for limit in ("MODEL_LEAST_BYTES", "MATRIX_LEAST_BYTES"):
            always.enter_context(patch.object(pointwise, limit, 0))
        made = Sessions(OnnxEngine(package, VARIANT, NUM_SLOTS))
    with patch.object(loading, "convolved", lambda path, model: None):
        plain = Sessions(OnnxEngine(package, VARIANT, NUM_SLOTS))
    return Measured(model, is_default, middle_ms({MATRICES: plain, CONVOLVED: made}, PASSES, rounds))


def packages(folder: Path, is_quick: bool) -> Iterator[tuple[str, Package]]:
    yield BUNDLED, load_pair().full
    for name in [QUICK] if is_quick else [size for size in SIZES if size != QUICK]:
        checkpoint = write_checkpoint(folder / f"{name}-checkpoint", SIZES[name], weights_of(SIZES[name]))
        convert(Conversion(checkpoint, folder / name, (VARIANT,)))
        yield name, Package(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    if not pointwise.can_convolve():
        Console(stderr=True).print(
            "this processor, or this ONNX Runtime, has no such convolutions: there is nothing to compare"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        made, rounds = list(packages(Path(folder), arguments.quick)), ROUNDS_QUICK if arguments.quick else ROUNDS
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as apart:
            waited_for = [apart.submit(measured, *one, rounds) for one in made]
            found = [one.result() for one in track(waited_for, "models", transient=True)]
    columns = ["parameters", "convolved by default", *PASSES]
    title = "Measured: CPU ms of a pass by products of matrices, by pointwise convolutions, and how many times as fast"
    publish(arguments, "pointwise", [Grid(title, columns, [one.cells() for one in found])], [asdict(one) for one in found])


if __name__ == "__main__":
    main()
