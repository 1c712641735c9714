"""What the even rows of attention cost, the price of exactness: the same engine with them and without, taking turns.

    python -m benchmarks.even_rows [--quick] [--json FILE] [--fill PAGE]

A lone row of attention has another kernel than several, and other last bits, so that every session gets an even number
(``docs/model-package.md``). Here each session of a pass has one token, which is the worst for that: without the rule each query
head has one row. With it a head has two, or, grouped, a head of keys has a row for each of two or three query heads, and one
more where those are odd. Random Llamas of 30 and 100 million parameters, behind texts of several lengths, by CPU time, of the
middle pass.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from rich.progress import track

from benchmarks.in_turns import NUM_SLOTS, Sessions, middle_ms
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.shootout_forms import SIZES, weights_of, write_checkpoint
from speculation.engines.convert import Conversion, convert
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package

QUICK = "tiny"
VARIANTS = ("fp32", "i8")
PASTS = (64, 256, 496)
PASSES = {"1 session": (1, 1), "4 sessions": (4, 1), "16 sessions": (16, 1)}
"""Sessions and rows of each pass that is timed."""
ROUNDS, ROUNDS_QUICK = 20, 1
EVEN, ODD = "even", "odd"


class OneRowEngine(OnnxEngine):
    """The engine without its even-row rule, and so without its exactness."""

    _rows_multiple: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of the middle pass, by form and pass, behind ``past`` tokens."""

    model: str
    variant: str
    past: int
    ms: Mapping[str, Mapping[str, float]]

    def cells(self) -> list[str]:
        even, odd = self.ms[EVEN], self.ms[ODD]
        found = [f"{even[label]:.2f}, {odd[label]:.2f}: {even[label] / odd[label]:.2f}" for label in PASSES]
        return [self.model, self.variant, str(self.past), *found]


def packages(folder: Path, is_quick: bool) -> Iterator[tuple[str, Package, str]]:
    """Models, each with the variants that are measured."""
    for name in [QUICK] if is_quick else [size for size in SIZES if size != QUICK]:
        checkpoint = write_checkpoint(folder / f"{name}-checkpoint", SIZES[name], weights_of(SIZES[name]))
        convert(Conversion(checkpoint, folder / name, VARIANTS))
        for variant in VARIANTS:
            yield name, Package(folder / name), variant


def measured(model: str, package: Package, variant: str, past: int, rounds: int) -> Measured:
    forms = {EVEN: OnnxEngine(package, variant, NUM_SLOTS), ODD: OneRowEngine(package, variant, NUM_SLOTS)}
    forms[ODD].group_heads(False)
    stages = {name: Sessions(engine, past) for name, engine in forms.items()}
    return Measured(model, variant, past, middle_ms(stages, PASSES, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    rounds = ROUNDS_QUICK if arguments.quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        cases = [(*one, past, rounds) for one in packages(Path(folder), arguments.quick) for past in PASTS]
        found = [measured(*case) for case in track(cases, "models", transient=True)]
    columns = ["parameters", "weights", "tokens behind each session", *PASSES]
    title = "Measured: CPU ms of a pass with even rows of attention, with one a session, and how much longer even rows take"
    publish(arguments, "even-rows", [Grid(title, columns, [one.cells() for one in found])], [asdict(one) for one in found])


if __name__ == "__main__":
    main()
