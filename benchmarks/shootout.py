"""Our engine against onnxruntime-genai, llama.cpp and transformers on the same weights: decode and verify, one thread each.

    python -m benchmarks.shootout [--quick] [--rivals NAME ...] [--sizes NAME ...] [--past N] [--json FILE] [--fill PAGE]

Weights are random Llamas of about 30 and 100 million parameters, written once and converted to the form of each engine by its
own tools. A cell is a step of 1 or 16 sessions behind ``--past`` tokens: decode is one row a session, verify nine rows whose
logits are all read, and the way back. All engines take turns, round by round; the first pass of a turn is left out, since it
finds another engine's weights in the processor's caches. Time is the process's CPU time, which other work beside it moves
least; wall time is in the JSON. The bare forward is our graph with everything bound beforehand: what our engine adds is the
difference. Engines that are not installed are left out. Other engines' logs go to standard error.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from benchmarks.rivals.base import Form, Rival, Tokens
from benchmarks.rivals.ours import BareForward
from benchmarks.shootout_forms import (
    BARE,
    BLOCK_IN_8_BITS,
    FORMS,
    IN_8_BITS,
    INSTALL,
    LLAMA,
    NEEDS,
    OURS,
    SIZES,
    Forms,
    lacking,
    versions_of,
)
from speculation.engines.whole_sums import are_whole

BLOCK = "shootout"
PAST, VERIFY_ROWS, MANY = 64, 9, 16
CELLS = {
    "decode, 1 session": (1, 1),
    "decode, 16 sessions": (MANY, 1),
    "verify, 1 session x 9": (1, VERIFY_ROWS),
    "verify, 16 sessions x 9": (MANY, VERIFY_ROWS),
}
"""Sessions and rows of each step that is timed."""
IN_A_ROW = {1: 8, VERIFY_ROWS: 5, MANY: 4, MANY * VERIFY_ROWS: 2}
"""Passes of one turn by their rows, beside the first: short ones more often."""
ROUNDS, ROUNDS_QUICK = 8, 1
QUICK = "tiny"
FULL_BITS = "32"
DECODE_GOAL, VERIFY_GOAL, OVERHEAD_GOAL = 0.97, 1.5, 0.10


@dataclass(slots=True)
class Measured:
    """One form of one size. ``cpu_s`` and ``wall_s``: seconds of every pass, by cell; ``engine_s``: CPU seconds of our engine's
    pass just before each, where this is the bare forward."""

    size: str
    engine: str
    variant: str
    bits: str
    largest_difference: float = 0.0
    agreement: float = 1.0
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    engine_s: dict[str, list[float]] = field(default_factory=dict)

    def rows_a_second(self, cell: str, fastest: bool = False) -> float:
        """By CPU time: of the middle pass, or of the fastest."""
        sessions, rows = CELLS[cell]
        return sessions * rows / (min if fastest else median)(self.cpu_s[cell])


def tokens_of(sessions: int, start: int, rows: int, vocabulary_size: int) -> Tokens:
    """Text of its own for each session, the same at every call; no token of it ends a text."""
    positions = np.arange(start, start + rows)[None, :]
    return 2 + (positions * 7919 + np.arange(sessions)[:, None] * 104729 + 13) % (vocabulary_size - 2)


def timed(rival: Rival, tokens: Tokens) -> tuple[float, float]:
    """CPU and wall seconds of one step. The way back belongs to a verification; after a decoding step it only tidies up."""
    is_verify = tokens.shape[1] > 1
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    rival.step(tokens)
    if is_verify:
        rival.rewind(len(tokens))
    taken = time.process_time() - cpu_s, time.perf_counter() - wall_s
    if not is_verify:
        rival.rewind(len(tokens))
    return taken


def compare(found: Measured, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    """How far logits are from those of the reference, and how often the likeliest token is the same."""
    found.largest_difference = float(np.abs(logits - reference).max())
    found.agreement = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())


def measured(name: str, forms: Sequence[Form], rounds: int, past: int, progress: Progress) -> list[Measured]:
    """Every form of one size, those of the same number of bits taking turns."""
    vocabulary_size, found = SIZES[name]["vocabulary"], list[Measured]()
    steps = {cell: tokens_of(sessions, past, rows, vocabulary_size) for cell, (sessions, rows) in CELLS.items()}
    reference: NDArray[np.float32] | None = None
    with tempfile.TemporaryDirectory() as folder:
        made = Forms(Path(folder), SIZES[name], MANY)
        task = progress.add_task(name, total=len(forms) + rounds * len({form.bits for form in forms}))
        for bits in dict.fromkeys(form.bits for form in forms):
            rivals = list(made.made([f for f in forms if f.bits == bits], lambda said: progress.update(task, description=said)))
            group = [Measured(name, form.engine, form.variant, bits) for form, _ in rivals]
            for one, (_, rival) in zip(group, rivals, strict=True):
                rival.fill(tokens_of(MANY, 0, past, vocabulary_size))
                logits = checked(rival, steps)
                reference = logits if reference is None else reference
                compare(one, logits, reference)
                progress.advance(task)
            for number in range(rounds):
                progress.update(task, description=f"{name}, {bits} bits, round {number + 1}")
                turn(group, [rival for _, rival in rivals], steps, number)
                progress.advance(task)
            found += group
    return found


def checked(rival: Rival, steps: Mapping[str, Tokens]) -> NDArray[np.float32]:
    """The logits of the largest step, copied."""
    tokens = max(steps.values(), key=lambda step: step.size)
    rival.ready(tokens)
    logits = rival.step(tokens).copy()
    rival.rewind(len(tokens))
    return logits


def turn(group: Sequence[Measured], rivals: Sequence[Rival], steps: Mapping[str, Tokens], number: int) -> None:
    """One round: for each cell every rival in turn, another one first each time."""
    for cell, tokens in steps.items():
        for index in rotated(len(rivals), number):
            for attempt in range(1 + IN_A_ROW[tokens.size]):
                rivals[index].ready(tokens)
                cpu_s, wall_s = timed(rivals[index], tokens)
                if attempt:
                    group[index].cpu_s.setdefault(cell, []).append(cpu_s)
                    group[index].wall_s.setdefault(cell, []).append(wall_s)
                    if isinstance(rival := rivals[index], BareForward):
                        group[index].engine_s.setdefault(cell, []).append(rival.engine_s)


def rotated(count: int, by: int) -> Iterator[int]:
    yield from ((index + by) % count for index in range(count))


def speeds(found: Sequence[Measured]) -> Grid:
    """Rows a second of CPU time, the middle pass and in brackets the fastest."""
    columns = ["parameters", "engine", "weights", *CELLS, "largest difference of a logit", "same likeliest token"]
    rows = [
        [
            one.size,
            one.engine,
            one.variant,
            *(f"{one.rows_a_second(cell):,.0f} ({one.rows_a_second(cell, fastest=True):,.0f})" for cell in CELLS),
            f"{one.largest_difference:.1e}",
            f"{one.agreement:.3f}",
        ]
        for one in found
    ]
    return Grid("Measured: rows a CPU second on one thread, of the middle pass (of the fastest)", columns, rows)


def goals(found: Sequence[Measured]) -> Grid:
    """Where we stand: decode by the best other engine, verify by llama.cpp, and our engine by the bare forward."""
    columns = ["parameters", "ours", "step", "to the best other", "to llama.cpp", "our engine adds", "goals", "met"]
    rows = [standing(ours, found, cell) for ours in found if ours.engine == OURS for cell in CELLS]
    return Grid("Against the goals, by the middle pass (by the fastest)", columns, rows)


def quantised(found: Sequence[Measured]) -> Grid:
    """As ``goals``, every engine in whichever of its quantised forms is fastest at that step."""
    columns = ["parameters", "step", "ours", "best other", "to best other", "llama.cpp", "to llama.cpp", "goal", "met"]
    forms = [one for one in found if one.engine != BARE and one.bits != FULL_BITS]
    rows = [fastest(size, forms, cell) for size in dict.fromkeys(one.size for one in forms) for cell in CELLS]
    return Grid("Each engine in its fastest quantised form, by the middle pass (by the fastest)", columns, rows)


def fastest(size: str, forms: Sequence[Measured], cell: str) -> list[str]:
    """One step of one size."""
    best: dict[str, Measured] = {}
    for one in sorted((one for one in forms if one.size == size), key=lambda one: one.rows_a_second(cell)):
        best[one.engine] = one
    ours, llama = best.pop(OURS), best.get(LLAMA)
    other = max(best.values(), key=lambda one: one.rows_a_second(cell), default=None)
    is_decode = CELLS[cell][1] == 1
    asked, goal = (other, DECODE_GOAL) if is_decode else (llama, VERIFY_GOAL)
    met = "" if asked is None else "yes" if ours.rows_a_second(cell) / asked.rows_a_second(cell) >= goal else "no"
    return [
        size,
        cell,
        ours.variant,
        f"{other.engine} {other.variant}" if other else "",
        ratio(ours, other, cell) if other else "",
        llama.variant if llama else "",
        ratio(ours, llama, cell) if llama else "",
        f"{goal} x {'the best' if is_decode else LLAMA}",
        met,
    ]


def standing(ours: Measured, found: Sequence[Measured], cell: str) -> list[str]:
    """One step of our engine beside those with as many bits."""
    beside = [one for one in found if (one.size, one.bits) == (ours.size, ours.bits)]
    others = [one for one in beside if one.engine not in (OURS, BARE)]
    best = max(others, key=lambda one: one.rows_a_second(cell), default=None)
    llama = next((one for one in others if one.engine == LLAMA), None)
    bare = next((one for one in beside if (one.engine, one.variant) == (BARE, ours.variant)), None)
    adds = added(bare.engine_s[cell], bare.cpu_s[cell]) if bare else None
    is_decode = CELLS[cell][1] == 1
    asked, goal = (best, DECODE_GOAL) if is_decode else (llama, VERIFY_GOAL)
    held = [] if asked is None else [ours.rows_a_second(cell) / asked.rows_a_second(cell) >= goal]
    held += [] if adds is None else [adds < OVERHEAD_GOAL]
    return [
        ours.size,
        ours.variant,
        cell,
        f"{ratio(ours, best, cell)}, {best.engine}" if best else "",
        ratio(ours, llama, cell) if llama else "",
        "" if adds is None else f"{adds:+.1%}",
        f"{goal} x {'the best' if is_decode else LLAMA}, under {OVERHEAD_GOAL:.0%}",
        ("yes" if all(held) else "no") if held else "",
    ]


def ratio(ours: Measured, other: Measured, cell: str) -> str:
    """Our rows a second to another's, by the middle pass and in brackets by the fastest."""
    middle, fastest = (ours.rows_a_second(cell, by) / other.rows_a_second(cell, by) for by in (False, True))
    return f"{middle:.2f} ({fastest:.2f})"


def added(ours_s: Sequence[float], bare_s: Sequence[float]) -> float:
    """What our engine adds to the bare forward, as a share of it: the middle of all pairs of passes that were made one after
    the other, so that a slow minute counts for both."""
    return median(ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)) - 1


def chosen(names: Sequence[str] | None, console: Console) -> list[Form]:
    """The forms to measure; says what is left out and how it would be there."""
    kept = [form for form in FORMS if form.engine in (OURS, BARE) or names is None or form.engine in names]
    if not are_whole(BLOCK_IN_8_BITS):
        console.print(f"left out: {IN_8_BITS}, whose sums this processor cuts off", highlight=False)
        kept = [form for form in kept if form.variant != IN_8_BITS]
    for engine in dict.fromkeys(form.engine for form in kept):
        if missing := lacking(engine):
            console.print(
                f"left out: {engine}, which needs {', '.join(missing)} ({INSTALL})",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            kept = [form for form in kept if form.engine != engine]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    rivals = [name for name in NEEDS if name not in (OURS, BARE)]
    parser.add_argument("--rivals", nargs="*", choices=rivals, metavar="NAME", help=f"only these of {', '.join(rivals)}")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), metavar="NAME", help=f"only these of {', '.join(SIZES)}")
    parser.add_argument("--past", type=int, default=PAST, metavar="N", help=f"tokens behind each session ({PAST})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"turns of each engine ({ROUNDS})")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    forms = chosen(arguments.rivals, console)
    rounds = ROUNDS_QUICK if arguments.quick else arguments.rounds
    sizes = arguments.sizes or ([QUICK] if arguments.quick else [name for name in SIZES if name != QUICK])
    with Progress(console=console, transient=True) as progress:
        found = [one for size in sizes for one in measured(size, forms, rounds, arguments.past, progress)]
    versions = [version for engine in dict.fromkeys(form.engine for form in forms) for version in versions_of(engine)]
    table = speeds(found)
    titled = Grid(
        f"{table.title}; {arguments.past} tokens behind each session; {', '.join(versions)}", table.columns, table.rows
    )
    figures = {"versions": versions, "past": arguments.past, "rounds": rounds, "rows": [asdict(one) for one in found]}
    publish(arguments, BLOCK, [titled, goals(found), quantised(found)], figures)


if __name__ == "__main__":
    main()
