"""What the ways of attention take: each query head alone, heads of a group together, and those with caches in 16 bits.

    python -m benchmarks.attention [--quick] [--json FILE] [--fill PAGE]

The same engine in three forms that take turns. Random Llamas of 30 million parameters with groups of two query heads, of 25
million with one of seven, and of 100 million with groups of three, behind texts of several lengths, by CPU time, of the middle
pass. Where heads are not grouped in a pass (few tokens before it, or many in it), the second form does what the first does,
beside a node that is idle.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import track

from benchmarks.even_rows import PASTS, QUICK, ROUNDS, ROUNDS_QUICK
from benchmarks.in_turns import NUM_SLOTS, Sessions, middle_ms
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.shootout_forms import SIZES, weights_of, write_checkpoint
from speculation.engines.convert import Conversion, convert
from speculation.engines.model import HALF_CACHES
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package

MODELS = {
    "30 M": (SIZES["30 M"], "fp32"),
    "30 M, in 4 bits": (SIZES["30 M"], "q4_b256"),
    "25 M, a group of 7, in 8 bits": ({**SIZES["30 M"], "width": 448, "heads": 7, "kv_heads": 1}, "i8"),
    "100 M, in 8 bits": (SIZES["100 M"], "i8"),
}
MODELS_QUICK = {QUICK: (SIZES[QUICK], "fp32")}
PASSES = {f"{sessions} x {rows}": (sessions, rows) for sessions, rows in ((1, 1), (1, 9), (16, 1), (16, 3), (16, 9))}
"""Sessions and rows of each pass that is timed."""
ALONE, GROUPED, HALF = "alone", "grouped", "grouped, caches in 16 bits"


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of the middle pass, by form and pass, behind ``past`` tokens."""

    model: str
    past: int
    ms: Mapping[str, Mapping[str, float]]

    def cells(self) -> list[str]:
        return [self.model, str(self.past), *map(self._cell, PASSES)]

    def _cell(self, label: str) -> str:
        alone, *others = (self.ms[form][label] for form in (ALONE, GROUPED, HALF))
        return ", ".join([f"{alone:.2f}", *(f"{ms:.2f} ({alone / ms:.2f})" for ms in others)])


def packages(folder: Path, models: Mapping[str, tuple[Mapping[str, int], str]]) -> Iterator[tuple[str, Package, str]]:
    for number, (name, (shape, variant)) in enumerate(models.items()):
        checkpoint = write_checkpoint(folder / f"{number}-checkpoint", shape, weights_of(shape))
        convert(Conversion(checkpoint, folder / str(number), (variant,)))
        yield name, Package(folder / str(number)), variant


def measured(model: str, package: Package, variant: str, past: int, rounds: int) -> Measured:
    variants = {ALONE: variant, GROUPED: variant, HALF: variant + HALF_CACHES}
    engines = {form: OnnxEngine(package, asked, NUM_SLOTS) for form, asked in variants.items()}
    engines[ALONE].group_heads(False)
    stages = {form: Sessions(engine, past) for form, engine in engines.items()}
    return Measured(model, past, middle_ms(stages, PASSES, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    rounds, models = (ROUNDS_QUICK, MODELS_QUICK) if arguments.quick else (ROUNDS, MODELS)
    with tempfile.TemporaryDirectory() as folder:
        cases = [(*one, past, rounds) for one in packages(Path(folder), models) for past in PASTS]
        found = [measured(*case) for case in track(cases, "models", transient=True)]
    columns = ["parameters", "tokens behind each session", *PASSES]
    title = (
        "Measured: CPU ms of a pass of sessions x rows: each query head alone; heads in groups, and how much faster that is; "
        "those with caches in 16 bits, and how much faster than alone"
    )
    publish(arguments, "attention", [Grid(title, columns, [one.cells() for one in found])], [asdict(one) for one in found])


if __name__ == "__main__":
    main()
