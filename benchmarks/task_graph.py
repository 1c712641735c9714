"""Twelve sub-tasks that wait for each other: in sequence, and by the scheduler of graphs, against what no order could beat.

    python -m benchmarks.task_graph [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md]

Emulated (``tasks_scene.py``): the demo's phone, in modes device and collaborate. The bound is the longer of two: the critical
path, each of its sub-tasks alone on the phone, as it was in sequence; and what the phone's memory allows for all tokens
together, where each step reads the weights once for as many answers as have places, and each answer's own keys and values. In
mode collaborate only tokens that the verifier took from the draft are counted, for others the phone need not read anything.
The aim is a makespan within 1.2 of the bound. It is held with the places that an agent has by default, as many as caches of
the bundled draft's size leave room for on this phone. With the four that any draft gets, however large its caches, there is a
second row: there the bound knows how many have places, and not that a chain cannot be cut to fill them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.tasks_scene import CONTEXT_TOKENS, DRAFT_COST, Setting, phone
from device_agent.build import DRAFT_VARIANT
from device_agent.config import DEFAULT_PLACES, AgentConfig
from device_agent.events import DoneEvent
from device_agent.request import Mode
from device_agent.room import places
from device_agent.tasks.graph import TaskGraph
from device_agent.tasks.graph_events import GraphDoneEvent, OutputEvent
from device_agent.tasks.graph_run import running
from outrider.planning import synthetic
from speculation.engines.pairs import models_of
from speculation.errors import SimulationError
from speculation.shaping import virtual_time
from speculation.shaping.costs import Work

BLOCK = "task-graph"
MOST_OF_BOUND = 1.2
NUM_TASKS = 12
PROMPT_TOKENS = 24

Shape = Mapping[str, tuple[Sequence[str], int]]
"""For each sub-task, which results its prompt takes in, and how many tokens it writes."""

_PARTS = [f"part{number}" for number in range(10)]
_READS, _CHECKS = [f"read{number}" for number in range(4)], [f"check{number}" for number in range(4)]
SHAPES: Mapping[str, Shape] = {
    "a plan, ten parts, a summary": {
        "plan": ((), 40),
        **dict.fromkeys(_PARTS, (("plan",), 60)),
        "summary": (_PARTS, 80),
    },
    "three chains of four": {
        f"c{chain}_{link}": ((f"c{chain}_{link - 1}",) if link else (), 50) for chain in range(3) for link in range(4)
    },
    "four readers, four checks, two drafts, two ends": {
        **{name: ((), 40 + 20 * number) for number, name in enumerate(_READS)},
        **{name: ((read,), 30) for name, read in zip(_CHECKS, _READS, strict=True)},
        "draft0": (_CHECKS[:2], 90),
        "draft1": (_CHECKS[2:], 60),
        "end0": (("draft0", "draft1"), 50),
        "end1": (("draft1",), 20),
    },
    "twelve that wait for nobody": {f"one{number}": ((), 30 + 10 * number) for number in range(12)},
    "one chain of twelve": {f"link{number}": ((f"link{number - 1}",) if number else (), 40) for number in range(12)},
}


@dataclass(frozen=True, slots=True)
class Written:
    """One sub-task: its own time, its prompt and its tokens, and how many of them the phone had to draft."""

    took_s: float
    prompt_tokens: int
    num_tokens: int
    num_drafted: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A whole graph."""

    makespan_s: float
    written: Mapping[str, Written]
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A shape, who writes, how many places there are, and what share of the tokens is written."""

    shape: str
    mode: Mode
    num_places: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds: in sequence, by the scheduler, and the two bounds."""

    asked: Asked
    num_tokens: int
    sequence_s: float
    makespan_s: float
    critical_s: float
    bandwidth_s: float

    @property
    def bound_s(self) -> float:
        return max(self.critical_s, self.bandwidth_s)

    @property
    def of_bound(self) -> float:
        return self.makespan_s / self.bound_s

    @property
    def is_met(self) -> bool:
        return self.of_bound <= MOST_OF_BOUND


def graph_of(asked: Asked) -> TaskGraph:
    """Its prompts begin each with a text of their own, in the synthetic pair's letters."""
    tasks = {
        name: {"prompt": _text(number) + "".join(f"{{{{ {each} }}}}" for each in after), "max_tokens": _tokens(count, asked)}
        for number, (name, (after, count)) in enumerate(SHAPES[asked.shape].items())
    }
    return TaskGraph.from_json({"tasks": tasks, "defaults": {"mode": asked.mode.value}})


def _tokens(count: int, asked: Asked) -> int:
    return max(1, round(count * asked.share))


def _text(number: int) -> str:
    return synthetic.decode([number % synthetic.VOCABULARY] * PROMPT_TOKENS)


def run(graph: TaskGraph, mode: Mode, num_places: int, width: int) -> Ran:
    """On a phone with so many places, at most ``width`` at once. The connection is warm."""
    return virtual_time.run(_run(graph, mode, num_places, width))


async def _run(graph: TaskGraph, mode: Mode, num_places: int, width: int) -> Ran:
    warm = TaskGraph.from_json({"tasks": {"warm": {"prompt": _text(200), "max_tokens": 1, "mode": mode.value}}})
    async with phone(Setting(mode, "none"), num_places) as agent:
        for asked, at_once in ((warm, 1), (graph, width)):
            ends: dict[str, DoneEvent] = {}
            async with running(agent, asked, at_once) as ran:
                while events := await ran.take():
                    for event in events:
                        if isinstance(event, OutputEvent) and isinstance(event.output, DoneEvent):
                            ends[event.task] = event.output
    return _ran(events_end=event, ends=ends, mode=mode)


def _ran(events_end: object, ends: Mapping[str, DoneEvent], mode: Mode) -> Ran:
    if not isinstance(events_end, GraphDoneEvent) or events_end.status != "done":
        raise SimulationError(f"the graph did not end well: {events_end}")
    written = {}
    for entry in events_end.schedule:
        end = ends[entry["task"]]
        count = len(end.token_ids)
        drafted = count if mode is Mode.DEVICE else min(count, end.usage["accepted"])
        took_s = (entry["ended_ms"] - entry["began_ms"]) / 1000
        written[entry["task"]] = Written(took_s, len(end.prompt_token_ids), count, drafted)
    texts = {name: result["text"] for name, result in events_end.results.items()}
    return Ran(events_end.makespan_ms / 1000, written, texts)


def bandwidth_s(written: Sequence[Written], num_places: int) -> float:
    """What the phone needs at least for all tokens, in any order, whoever waits for whom."""
    weights = Work(0, 1)
    num_steps = math.ceil(sum(each.num_drafted for each in written) / num_places)
    weights_bytes = DRAFT_COST.bytes_read([weights])
    cache_bytes = sum(
        DRAFT_COST.bytes_read([weights, Work(each.prompt_tokens + place, 1)]) - weights_bytes
        for each in written
        for place in range(each.num_drafted)
    )
    reading_s = cache_bytes / DRAFT_COST.machine.bandwidth_bytes_per_s + num_steps * DRAFT_COST.step_s([weights])
    num_rows = sum(each.prompt_tokens + each.num_drafted for each in written)
    return max(reading_s, DRAFT_COST.model.operations(num_rows) / DRAFT_COST.machine.operations_per_s)


def measure(asked: Asked) -> Found:
    """Raises ``SimulationError`` where the two orders do not write the same."""
    graph = graph_of(asked)
    in_sequence = run(graph, asked.mode, asked.num_places, 1)
    scheduled = run(graph, asked.mode, asked.num_places, asked.num_places)
    if in_sequence.texts != scheduled.texts:
        raise SimulationError("another order wrote another text")
    alone = graph.remaining({name: each.took_s for name, each in in_sequence.written.items()})
    written = list(in_sequence.written.values())
    return Found(
        asked,
        sum(each.num_tokens for each in written),
        in_sequence.makespan_s,
        scheduled.makespan_s,
        max(alone.values()),
        bandwidth_s(written, min(asked.num_places, NUM_TASKS)),
    )


def grid(rows: Sequence[Found]) -> Grid:
    title = (
        f"Emulated, {NUM_TASKS} sub-tasks on one phone, in seconds from the first to the last; the aim is at most"
        f" {MOST_OF_BOUND:g} times the longer of the two bounds"
    )
    columns = (
        "graph",
        "mode",
        "places",
        "tokens",
        "in sequence",
        "scheduled",
        "times as fast",
        "critical path alone",
        "bandwidth",
        "of the longer",
        "",
    )
    return Grid(title, columns, [_cells(row) for row in rows])


def _cells(row: Found) -> list[str]:
    where = [row.asked.shape, row.asked.mode.value, str(row.asked.num_places), str(row.num_tokens)]
    times = [f"{row.sequence_s:.2f}", f"{row.makespan_s:.2f}", f"{row.sequence_s / row.makespan_s:.2f}"]
    bounds = [f"{row.critical_s:.2f}", f"{row.bandwidth_s:.2f}", f"{row.of_bound:.2f}"]
    return [*where, *times, *bounds, "" if row.is_met else "MISS"]


def to_json(row: Found) -> dict[str, Any]:
    return asdict(row) | {"bound_s": row.bound_s, "of_bound": row.of_bound, "is_met": row.is_met}


def settings(is_quick: bool) -> list[Asked]:
    if is_quick:
        return [Asked(shape, Mode.DEVICE, NUM_TASKS, 0.25) for shape in list(SHAPES)[:2]]
    counts = default_places(), DEFAULT_PLACES
    return [Asked(shape, mode, count) for mode in (Mode.DEVICE, Mode.COLLABORATE) for count in counts for shape in SHAPES]


def default_places() -> int:
    """Of an agent with the bundled draft on this phone, with contexts as long as this scene's."""
    draft = models_of(None, None, None).draft
    tokens_per_answer = AgentConfig().policy().width * CONTEXT_TOKENS
    return places(draft.kv_bytes_per_token(DRAFT_VARIANT), tokens_per_answer, DRAFT_COST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    asked = settings(arguments.quick)
    found = in_processes(measure, asked, 1 if arguments.quick else arguments.processes, "graphs")
    publish(arguments, BLOCK, [grid(found)], [to_json(row) for row in found])


if __name__ == "__main__":
    main()
