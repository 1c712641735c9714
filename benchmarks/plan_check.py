"""The planner's predictions beside real runs: the same pair, prompts and profiles, under the virtual clock and by the services.

    python -m benchmarks.plan_check [--quick] [--json FILE] [--fill PAGE]

Real runs are both services, each a process, over real gRPC and HTTP, whose engines and links take the emulated time on a real
clock; a client reads the events. So this checks the simulator against the emulator, and what the services themselves cost; how
far the emulator is from a real phone is told by the published figures in ``docs/shaping.md``. A request goes to each cell first
that nobody counts, for the real connection has to be made; here as there one agent answers prompt after prompt, with what it
has learned, over one draw of the network's delays. An error is the prediction over the real figure, less one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from benchmarks.wall_clock import service
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from outrider.client import Client, Options
from outrider.local import Emulation
from outrider.planning.scene import Place, Setup, Written, in_turn, last_event, written
from outrider.planning.sources import RealPair
from speculation.shaping import profiles
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL

NUM_TOKENS, NUM_PROMPTS = 96, 4
NUM_TOKENS_QUICK, NUM_PROMPTS_QUICK = 24, 1
TEMPERATURE = 0.8
MODES = (Mode.COLLABORATE, Mode.CLOUD, Mode.DEVICE)
RATE = "tokens_per_s"
FIGURES = {RATE: "tokens a second", "first_visible_s": "first visible", "first_final_s": "first final"}
GOAL = 0.05
CELLS = (
    Emulation("dimensity-9300", "5g-nsa-low", "mi300x"),
    Emulation("dimensity-9300", "lte", "mi300x"),
    Emulation("dimensity-9300", "wifi", "mi300x"),
    Emulation("dimensity-9300", "5g-nsa-low", "h200x2"),
)
"""Machines slower than this computer runs the bundled models: an emulated step takes no less than the real one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One answer, planned and real. Seconds and tokens a second; None where a figure has no meaning."""

    cell: Emulation
    mode: Mode
    prompt: int
    planned: Written
    real: Written

    def error(self, figure: str) -> float | None:
        """The prediction over the real figure, less one."""
        planned, real = getattr(self.planned, figure), getattr(self.real, figure)
        return planned / real - 1 if planned and real else None

    def late_ms(self, figure: str) -> float | None:
        """Milliseconds that the real moment came later than planned."""
        planned, real = getattr(self.planned, figure), getattr(self.real, figure)
        return 1000 * (real - planned) if planned and real else None


def place_of(cell: Emulation) -> Place:
    draft, full = parse_model(DEFAULT_DRAFT_MODEL), parse_model(DEFAULT_FULL_MODEL)
    return Place(profiles.phone(cell.phone), profiles.network(cell.network), profiles.cloud(cell.cloud), draft, full)


async def really(cell: Emulation, source: RealPair, prompts: int, num_tokens: int, progress: Progress) -> list[Written]:
    """Every mode and prompt, by the services of one cell."""
    answers, loop = list[Written](), asyncio.get_running_loop()
    task = progress.add_task(f"real: {cell.phone}, {cell.network}, {cell.cloud}", total=len(MODES) * prompts)
    cores = sorted(os.sched_getaffinity(0))
    async with (
        service(cores[0], "verifier", "--cloud", cell.cloud) as target,
        service(cores[-1], "agent", "--verifier", target, "--phone", cell.phone, "--network", cell.network) as url,
        Client(url) as client,
    ):
        for mode in MODES:
            await answered(client, source.request(0, 1, mode))
            for number in range(prompts):
                began_s = loop.time()
                done = await answered(client, source.request(number, num_tokens, mode))
                answers.append(written(done, began_s, loop.time()))
                progress.advance(task)
    return answers


async def answered(client: Client, request: StreamRequest) -> DoneEvent:
    options = Options(max_tokens=request.max_tokens or 1, seed=request.seed or 0, temperature=TEMPERATURE)
    options["mode"] = request.mode.value
    return await last_event(client.stream(request.prompt or "", **options))


def measured(cells: Sequence[Emulation], prompts: int, num_tokens: int, progress: Progress) -> list[Pair]:
    """Both ways, cell by cell."""
    source, found = RealPair(None, (), TEMPERATURE), list[Pair]()
    for cell in cells:
        real = iter(asyncio.run(really(cell, source, prompts, num_tokens, progress)))
        for mode in MODES:
            planned = in_turn(place_of(cell), source, Setup.of(mode), range(prompts), num_tokens)
            found += [Pair(cell, mode, number, answer, next(real)) for number, answer in enumerate(planned)]
    return found


def errors(pairs: Sequence[Pair], figure: str) -> list[float]:
    return [error for pair in pairs if (error := pair.error(figure)) is not None]


def shown_error(pairs: Sequence[Pair], figure: str) -> str:
    """The middle error, and of moments the middle lateness."""
    if not (found := errors(pairs, figure)):
        return ""
    if figure == RATE:
        return f"{median(found):+.1%}"
    return f"{median(found):+.1%} ({median(pair.late_ms(figure) or 0.0 for pair in pairs):+.1f} ms)"


def table(pairs: Sequence[Pair]) -> Grid:
    """The middle of each cell's and mode's errors, with what was planned and what came."""
    columns = ["phone", "network", "cloud", "mode", "planned tokens/s", "real tokens/s", *FIGURES.values(), "same passes"]
    rows = []
    for cell in dict.fromkeys(pair.cell for pair in pairs):
        for mode in MODES:
            here = [pair for pair in pairs if (pair.cell, pair.mode) == (cell, mode)]
            rates = [median(p.planned.tokens_per_s for p in here), median(p.real.tokens_per_s for p in here)]
            shown = [shown_error(here, figure) for figure in FIGURES]
            same = sum(pair.planned.passes_per_token == pair.real.passes_per_token for pair in here)
            cells = [cell.phone, cell.network, cell.cloud, mode.value, *(f"{rate:.1f}" for rate in rates), *shown]
            rows.append([*cells, f"{same} of {len(here)}"])
    return Grid("Planned over real, less one, and how much later moments came: the middle of the prompts", columns, rows)


def summary(pairs: Sequence[Pair]) -> Grid:
    """The middle and the largest error of each figure, whatever its sign."""
    rows, sized = [], {title: [abs(error) for error in errors(pairs, figure)] for figure, title in FIGURES.items()}
    for title, sizes in {**sized, "all of them": [size for some in sized.values() for size in some]}.items():
        met = "yes" if median(sizes) < GOAL else "no"
        rows.append([title, str(len(sizes)), f"{median(sizes):.1%}", f"{max(sizes):.1%}", f"under {GOAL:.0%}", met])
    return Grid("Errors, whatever their sign", ["figure", "answers", "median", "largest", "goal for the median", "met"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    prompts, num_tokens = (NUM_PROMPTS_QUICK, NUM_TOKENS_QUICK) if arguments.quick else (NUM_PROMPTS, NUM_TOKENS)
    with Progress(transient=True) as progress:
        pairs = measured(CELLS[:1] if arguments.quick else CELLS, prompts, num_tokens, progress)
    publish(arguments, "plan-check", [table(pairs), summary(pairs)], [asdict(pair) for pair in pairs])


if __name__ == "__main__":
    main()
