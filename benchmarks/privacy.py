"""What a cover costs, and what somebody on the line can still tell with and without it.

The bundled pair's traces on an emulated phone, network and cloud, the agent and the verifier in production form under the
virtual clock. Costs: bytes that the network carries (its framing of 88 bytes a message included) over final tokens, tokens a
second and the time to the first final token; means over the traces. The leak: a watcher has heard every prompt answered before,
with other seeds (temperature 0.8) or other delays of the network (temperature 0, where a text has no seed), and guesses which
prompt it hears now: nearest neighbour by when how much came each way, and by how large and how far apart messages were
(``eavesdropper.py``).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from statistics import mean

from benchmarks.eavesdropper import Sample, accuracy
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.privacy_runs import Heard, Way, beginning, bundled, heard, under_other_seeds
from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.trace_replay import Replay
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.shaping import profiles

COVERS = (UNCOVERED, Cover(128), Cover(256), Cover(128, 20), Cover(256, 20), Cover(128, 50))
LEAK_COVERS = (UNCOVERED, Cover(256), Cover(0, 20), Cover(256, 20))
LEAK_NETWORK = "lte"
LEAK_TOKENS = 64
BEGINNING_S = 0.8
"""All answers run so long: what is told by then is told by speculation, not by an end."""

COST_COLUMNS = ("temperature", "network", "cover", "up, bytes a token", "down, bytes a token", "tokens/s", "first final, ms")
LEAK_COLUMNS = ("temperature", "cover", f"right, first {BEGINNING_S:g} s", "right, to the end", "by chance")


@dataclass(frozen=True, slots=True)
class Part:
    """How much is run: all, or, to see that it works, little."""

    temperatures: tuple[float, ...] = (0.0, 0.8)
    networks: tuple[str, ...] = ("wifi", "lte")
    covers: tuple[Cover, ...] = COVERS
    leak_covers: tuple[Cover, ...] = LEAK_COVERS
    num_traces: int = 4
    num_prompts: int = 10
    num_lots: int = 3


LITTLE = Part((0.0,), ("wifi",), COVERS[3:4], COVERS[3:4], num_traces=1, num_prompts=2, num_lots=2)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one cover costs on one network."""

    temperature: float
    network: str
    cover: Cover
    up_bytes: float
    down_bytes: float
    tokens_per_s: float
    first_final_ms: float

    def cells(self) -> list[str]:
        figures = self.up_bytes, self.down_bytes, self.tokens_per_s, self.first_final_ms
        return [f"{self.temperature:g}", self.network, named(self.cover), *(f"{figure:.1f}" for figure in figures)]


@dataclass(frozen=True, slots=True)
class Leak:
    """How often a watcher is right."""

    temperature: float
    cover: Cover
    beginning: float
    whole: float
    chance: float

    def cells(self) -> list[str]:
        shares = self.beginning, self.whole, self.chance
        return [f"{self.temperature:g}", named(self.cover), *(f"{share:.2f}" for share in shares)]


def named(cover: Cover) -> str:
    """A cover in words."""
    parts = [f"{cover.pad_bytes} bytes"] * bool(cover.pad_bytes) + [f"{cover.tick_ms} ms"] * bool(cover.tick_ms)
    return ", ".join(parts) or "none"


@cache
def replay() -> Replay:
    """The committed traces, read once a process."""
    return bundled()


def cost(cell: tuple[float, str, Cover], num_traces: int) -> Cost:
    """One row, over the first traces."""
    temperature, network, cover = cell
    indices = replay().indices(temperature)[:num_traces]
    answers = [heard(replay(), index, Way(cover, network)) for index in indices]
    overhead_bytes = profiles.network(network).overhead_bytes
    num_tokens = sum(answer.num_tokens for answer in answers)
    up, down = (_carried_bytes(answers, is_up, overhead_bytes) / num_tokens for is_up in (True, False))
    rate, first = mean(answer.tokens_per_s for answer in answers), mean(answer.first_final_ms for answer in answers)
    return Cost(temperature, network, cover, up, down, rate, first)


def _carried_bytes(answers: Sequence[Heard], is_up: bool, overhead_bytes: float) -> float:
    return sum(message.num_bytes + overhead_bytes for answer in answers for message in answer.seen if message.is_up == is_up)


def leak(cover: Cover, temperature: float, lots: Sequence[tuple[Replay, int]], num_prompts: int) -> Leak:
    """One row. ``lots`` are replays that hold the prompts in one order, and a draw of the network's delays for each."""
    answers = [
        [
            Sample(prompt, heard(made, index, Way(cover, LEAK_NETWORK, seed, LEAK_TOKENS)).seen)
            for prompt, index in enumerate(made.indices(temperature)[:num_prompts])
        ]
        for made, seed in lots
    ]
    begun = [[Sample(sample.prompt, beginning(sample.seen, BEGINNING_S)) for sample in lot] for lot in answers]
    return Leak(temperature, cover, accuracy(begun), accuracy(answers), 1 / num_prompts)


def costs(part: Part, num_processes: int) -> list[Cost]:
    """All rows, in order."""
    cells = list(itertools.product(part.temperatures, part.networks, part.covers))
    return in_processes(partial(cost, num_traces=part.num_traces), cells, num_processes)


def leaks(part: Part, num_processes: int) -> list[Leak]:
    """All rows, in order."""
    rows = []
    for temperature in part.temperatures:
        num_others = part.num_lots - 1
        others = [replay()] * num_others
        if temperature:
            others = under_other_seeds(part.num_prompts, num_others, LEAK_TOKENS)
        lots = [(made, seed) for seed, made in enumerate([replay(), *others])]
        job = partial(leak, temperature=temperature, lots=lots, num_prompts=part.num_prompts)
        rows += in_processes(job, part.leak_covers, num_processes)
    return rows


def cost_grid(rows: Sequence[Cost], num_traces: int) -> Grid:
    title = f"Emulated: what a cover costs ({num_traces} traces of the bundled pair a row)"
    return Grid(title, COST_COLUMNS, [row.cells() for row in rows])


def leak_grid(rows: Sequence[Leak], part: Part) -> Grid:
    title = (
        f"Emulated: which of {part.num_prompts} prompts was asked? Share that a watcher of sizes and times guesses right"
        f" ({part.num_prompts * part.num_lots} answers a row, {LEAK_NETWORK})"
    )
    return Grid(title, LEAK_COLUMNS, [row.cells() for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    parser.add_argument("--table", choices=("costs", "leak"), help="only this one of the two")
    arguments = parser.parse_args()
    part, num_processes = (LITTLE, 1) if arguments.quick else (Part(), arguments.processes)
    blocks, figures = {}, {}
    if arguments.table != "leak":
        spent = costs(part, num_processes)
        blocks["privacy-costs"], figures["costs"] = [cost_grid(spent, part.num_traces)], [asdict(row) for row in spent]
    if arguments.table != "costs":
        told = leaks(part, num_processes)
        blocks["privacy-leak"], figures["leak"] = [leak_grid(told, part)], [asdict(row) for row in told]
    publish_blocks(arguments, blocks, figures)


if __name__ == "__main__":
    main()
