"""How a draft's acceptance grew, from a run's log: its points, and a picture of them. The picture needs the extra ``plot``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from outrider.training.distillation import GREEDY, HELD_OUT_TEMPERATURE, SAMPLED

Point = tuple[int, float, float]
"""A step, and the agreement there: greedy, and at temperature 0.8."""


def points_of(log: Path) -> list[Point]:
    """What a log says of held-out text, in order of steps; what was trained twice counts as it was the last time."""
    found = {entry["step"]: (entry[GREEDY], entry[SAMPLED]) for entry in _entries(log) if SAMPLED in entry}
    return [(step, *found[step]) for step in sorted(found)]


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    """Those that are whole: a run that the disk, or somebody, ended in the middle of a line goes on behind it."""
    for line in log.read_text("utf-8", "replace").splitlines() if log.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def picture(points: list[Point], title: str, file: Path) -> None:
    """Acceptance against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [step for step, _, _ in points]
    axes.plot(steps, [greedy for _, greedy, _ in points], "s-", markersize=3, label="greedy")
    axes.plot(steps, [sampled for _, _, sampled in points], "o-", markersize=3, label=f"temperature {HELD_OUT_TEMPERATURE}")
    axes.set_title(title)
    axes.set(xlabel="steps", ylabel="acceptance on held-out text (measured)", ylim=(0, 1))
    axes.legend(fontsize=8)
    figure.savefig(file)
