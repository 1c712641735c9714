"""Who thinks: mode ``auto`` beside always the device, always the cloud and always both, on held-out prompts.

The bundled pair writes, the production code runs under the virtual clock (``routing_runs.py``). The second table asks what a
draft's confidence is good for: agreement with the full model over passes spent, for many thresholds, beside sending the same
share of prompts by lot and by knowledge of what each draft is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, picture, publish_blocks
from benchmarks.routing_runs import CONFIDENCE, STABILITY, Answered, Prompts, Summary, Way, passes, point, policy_of, summary
from benchmarks.routing_texts import Point, best, skill
from benchmarks.virtual import Bench, Setting
from device_agent.request import Mode

COLUMNS = (
    "who thinks",
    "left to the device",
    "agreement",
    "distance",
    "first visible, ms",
    "whole answer, ms",
    "passes a token",
    "joules a token",
)
DEVICE, CLOUD, BOTH = Way("always the device", Mode.DEVICE), Way("always the cloud", Mode.CLOUD), Way("both", Mode.COLLABORATE)
HOT, LOW, FAR = {"heat": "hot"}, {"battery_percent": 10.0}, "lte"
WAYS = (
    DEVICE,
    CLOUD,
    BOTH,
    Way("auto", Mode.AUTO),
    Way("both, lte", Mode.COLLABORATE, FAR),
    Way("auto, lte", Mode.AUTO, FAR),
    Way("both, hot phone", Mode.COLLABORATE, agent=HOT),
    Way("auto, hot phone", Mode.AUTO, agent=HOT),
    Way("both, battery at 10 %", Mode.COLLABORATE, agent=LOW),
    Way("auto, battery at 10 %", Mode.AUTO, agent=LOW),
)
LEAST = {STABILITY: (1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5), CONFIDENCE: (0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)}
LENGTHS, NUM_PROMPTS = (4, 64), 49
QUICK_LENGTHS, QUICK_PROMPTS, QUICK_LEAST = (4,), 2, {STABILITY: (0.2,), CONFIDENCE: (0.5,)}


@dataclass(frozen=True, slots=True)
class Curve:
    """What thresholds of one signal get, and its share of what knowledge would get."""

    signal: str
    num_tokens: int
    points: Sequence[Point]
    ideal: Sequence[Point]

    @property
    def skill(self) -> float | None:
        return skill(self.points, self.ideal)


def curve(prompts: Prompts, signal: str, least: Sequence[float], num_tokens: int, ends: Sequence[Sequence[Answered]]) -> Curve:
    """``ends``: the answers of always the device and of always both."""
    alone, both = ends
    ways = [Way(signal, Mode.AUTO, routing=policy_of(signal, each)) for each in least]
    points = [point(prompts.answered(way), sum(passes(both))) for way in ways]
    return Curve(signal, num_tokens, points, best([answer.agreement for answer in alone], passes(both)))


def curve_grid(curves: Sequence[Curve]) -> Grid:
    columns = ("tokens", "signal", "passes spent : agreement, by threshold", "share of what knowledge gets")
    rows = []
    for each in curves:
        told = ", ".join(f"{p.passes:.2f} : {p.agreement:.2f}" for p in sorted(each.points, key=lambda p: p.passes))
        rows.append([str(each.num_tokens), each.signal, told, "-" if each.skill is None else f"{each.skill:.2f}"])
    return Grid("Emulated: what the draft's confidence is good for (0 is by lot, 1 is by knowledge)", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw the curves (needs outrider[plot])")
    arguments = parser.parse_args()
    lengths, count, least = (QUICK_LENGTHS, QUICK_PROMPTS, QUICK_LEAST) if arguments.quick else (LENGTHS, NUM_PROMPTS, LEAST)
    ways = WAYS[:4] if arguments.quick else WAYS
    bench, tables, curves, figures = Bench(Setting()), [], list[Curve](), dict[str, object]()
    with Progress(transient=True) as progress:
        task = progress.add_task("routing", total=len(lengths) * (len(ways) + len(least)))
        for num_tokens in lengths:
            prompts = Prompts(bench, count, num_tokens)
            answers: dict[str, list[Answered]] = {}
            for way in ways:
                answers[way.name] = prompts.answered(way)
                progress.advance(task)
            summaries = [summary(way, answers[way.name]) for way in ways]
            tables.append(_table(summaries, num_tokens))
            figures[f"{num_tokens} tokens"] = [asdict(each) for each in summaries]
            for signal, values in least.items():
                curves.append(curve(prompts, signal, values, num_tokens, [answers[DEVICE.name], answers[BOTH.name]]))
                progress.advance(task)
    figures["curves"] = [asdict(each) | {"skill": each.skill} for each in curves]
    publish_blocks(arguments, {"routing": tables, "routing-curves": [curve_grid(curves)]}, figures)
    if arguments.plot is not None:
        from benchmarks import plots

        plots.routing(curves, arguments.plot)


def _table(summaries: Sequence[Summary], num_tokens: int) -> Grid:
    title = f"Emulated: answers of at most {num_tokens} tokens to {summaries[0].num_prompts} held-out prompts, greedy"
    return Grid(title, COLUMNS, [each.cells() for each in summaries])


if __name__ == "__main__":
    main()
