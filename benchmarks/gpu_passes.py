"""What a pass costs on a GPU: sessions in shared steps beside sessions run one after the other by ``transformers``.

    python -m benchmarks.gpu_passes [--provider cpu] [--grow 2048x32x5632] [--bandwidth 3350] [--quick] [--json FILE]
        [--fill PAGE]

Engines alone, no service round them: the variants ``torch`` and ``transformers`` on the same weights, which are the bundled
full model's with zeros round them (``grown.py``). Each session has so many tokens in its cache, and feeds so many rows; all of
their logits are brought back. The middle of several passes counts. *Weights alone* is the time in which memory of
``--bandwidth`` GB/s gives what a step reads of them.

Exits with 1 where the self-test finds either engine not exact. Needs the extra ``transformers``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.grown import Shape, grow
from benchmarks.report import Grid, add_arguments, publish
from speculation.engines import self_test
from speculation.engines.base import Chunk, Engine
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.model import TORCH, TRANSFORMERS
from speculation.engines.package import bundled_pair_path
from speculation.engines.providers import Provider

BLOCK = "gpu-passes"
H100_GB_S = 3350.0
SESSIONS, ROWS, CONTEXTS = (1, 16, 64), (1, 4, 8), (64, 900)
SINGLY = 16
"""With more sessions than these ``transformers`` is not waited for."""
REPEATS = 9
FED = 5
"""Any token."""
COLUMNS = ("sessions", "rows of each", "tokens behind", "torch, ms", "rows a second", "transformers, ms", "times as fast")


@dataclass(frozen=True, slots=True)
class Cell:
    """One shape of pass; times in milliseconds."""

    sessions: int
    rows: int
    context: int
    shared_ms: float
    singly_ms: float | None

    def cells(self) -> list[str]:
        rate = f"{1e3 * self.sessions * self.rows / self.shared_ms:,.0f}"
        singly = ["-", "-"] if self.singly_ms is None else [f"{self.singly_ms:.1f}", f"{self.singly_ms / self.shared_ms:.1f}"]
        return [str(self.sessions), str(self.rows), str(self.context), f"{self.shared_ms:.2f}", rate, *singly]


def passes_ms(engine: Engine, shapes: Sequence[tuple[int, int, int]], repeats: int) -> Iterator[float]:
    """The middle time of passes of each shape: sessions, rows, context."""
    for sessions, rows, context in shapes:
        caches = [engine.open() for _ in range(sessions)]
        engine.extend([Chunk(cache, [FED] * context, 0) for cache in caches])
        taken_s = []
        for _ in range(1 + repeats):
            began_s = time.perf_counter()
            engine.extend([Chunk(cache, [FED] * rows, rows) for cache in caches])
            taken_s.append(time.perf_counter() - began_s)
            for cache in caches:
                engine.truncate(cache, context)
        for cache in caches:
            engine.close(cache)
        yield 1e3 * median(taken_s[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--provider", type=Provider, choices=tuple(Provider), default=Provider.CPU)
    parser.add_argument("--grow", type=Shape.parse, default=Shape(256, 6, 704), metavar="HxLxF")
    parser.add_argument("--bandwidth", type=float, default=H100_GB_S, metavar="GB/S", help=f"of the memory ({H100_GB_S:g})")
    arguments = parser.parse_args()
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        print(f"skipped: {' and '.join(missing)} not installed (pip install 'outrider[transformers]')")
        return 0
    quick = arguments.quick
    sizes = ((1, 2), (1, 4), (16,)) if quick else (SESSIONS, ROWS, CONTEXTS)
    shapes = [(sessions, rows, context) for context in sizes[2] for sessions in sizes[0] for rows in sizes[1]]
    repeats = 1 if quick else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        size = grow(bundled_pair_path() / "full", Path(folder) / "full", arguments.grow)
        model = CheckpointFolder(Path(folder) / "full")
        engine = model.engine(TORCH, max(sizes[0]), 1, arguments.provider)
        exact = [self_test.run(engine).is_exact]
        shared = list(passes_ms(engine, shapes, repeats))
        step_ms = engine.description.weight_bytes / arguments.bandwidth / 1e6
        del engine
        other = model.engine(TRANSFORMERS, SINGLY, 1, arguments.provider)
        exact.append(self_test.run(other).is_exact)
        few = [shape for shape in shapes if shape[0] <= SINGLY]
        singly = dict(zip(few, passes_ms(other, few, min(repeats, 3)), strict=True))
    cells = [Cell(*shape, ms, singly.get(shape)) for shape, ms in zip(shapes, shared, strict=True)]
    told = f"both exact: {all(exact)}; weights alone {step_ms:.2f} ms a step"
    title = f"Measured: a pass of {size / 1e9:.2f} billion parameters on {arguments.provider} ({told})"
    publish(arguments, BLOCK, [Grid(title, COLUMNS, [cell.cells() for cell in cells])], [asdict(cell) for cell in cells])
    return int(not all(exact))


if __name__ == "__main__":
    sys.exit(main())
