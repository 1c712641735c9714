"""A load test as a picture: how many users there were, what they got, and how long they waited, over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.answers import Answer, End, Ledger
from loadtest.scenario import Scenario

# The same answers give the same bytes: no date, no random names, text as text.
STYLE = {"svg.hashsalt": "outrider", "svg.fonttype": "none", "font.size": 9}
ABOVE: dict[str, Any] = {"fontsize": 8, "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 5, "frameon": False}
NUM_WINDOWS = 30
PERCENTS = (50, 95)
KINDS = {"well-behaved": True, "abusers": False}

Point = tuple[float, float]


def draw(scenario: Scenario, ledger: Ledger, files: Sequence[Path]) -> None:
    """Users and tokens a second on top; below the times of the well-behaved, by the moment at which they were waited for."""
    began_s = min([at_s for at_s, _, _ in ledger.crowd] + [answer.times.began_s for answer in ledger.answers], default=0.0)
    good = {group.name for group in scenario.groups if group.is_well_behaved}
    answers = [answer for answer in ledger.answers if answer.group in good]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 8), layout="constrained")
        figure.suptitle(scenario.title)
        top, first, between = figure.subplots(3, 1, sharex=True)
        width_s = max(1.0, scenario.seconds / NUM_WINDOWS)
        _crowd(top, scenario, ledger, began_s, width_s)
        _spread(first, first_tokens(answers, began_s), width_s, "first final token, ms")
        _spread(between, gaps(answers, began_s), width_s, "between tokens, ms")
        between.set(xlabel="seconds", xlim=(0, None))
        for file in files:
            figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=120)


def first_tokens(answers: Sequence[Answer], began_s: float) -> list[Point]:
    """When an answer was asked for, and how long its first final token took, in ms."""
    found = [(answer.times.began_s - began_s, answer.times.first_final_s) for answer in answers]
    return [(at_s, 1000 * first_s) for at_s, first_s in found if first_s is not None]


def gaps(answers: Sequence[Answer], began_s: float) -> list[Point]:
    """When tokens became final, and how long each was waited for, in ms."""
    found = []
    for answer in answers:
        moments = [at_s - began_s for at_s, count in answer.times.updates[1:] for _ in range(count)]
        found += [(at_s, 1000 * gap_s) for at_s, gap_s in zip(moments, answer.times.gaps_s, strict=True)]
    return found


def windows(points: Sequence[Point], width_s: float) -> dict[float, list[float]]:
    """The values of the points by the middle of their window of time; windows without a point are left out."""
    found: dict[float, list[float]] = {}
    for at_s, value in sorted(points):
        found.setdefault((at_s // width_s + 0.5) * width_s, []).append(value)
    return found


def rates(points: Sequence[Point], width_s: float) -> list[Point]:
    """The sum of the values a second by the middle of a window, from 0 to the last; a window without a point is 0."""
    sums = {middle_s: sum(values) / width_s for middle_s, values in windows(points, width_s).items()}
    count = round(max(sums, default=0.0) / width_s + 0.5)
    return [(middle_s, sums.get(middle_s, 0.0)) for middle_s in ((number + 0.5) * width_s for number in range(count))]


def crowd_over_time(ledger: Ledger, groups: set[str], began_s: float) -> list[Point]:
    """How many users of these groups there were, from each moment on at which one came or went."""
    count, found = 0, [(0.0, 0.0)]
    for at_s, group, change in sorted(ledger.crowd):
        if group in groups:
            count += change
            found.append((at_s - began_s, float(count)))
    return found


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [at_s for at_s, _ in points], [value for _, value in points]


def _crowd(axes: Axes, scenario: Scenario, ledger: Ledger, began_s: float, width_s: float) -> None:
    beside = axes.twinx()
    for number, (name, is_good) in enumerate(KINDS.items()):
        groups = {group.name for group in scenario.groups if group.is_well_behaved is is_good}
        if not groups:
            continue
        answers = [answer for answer in ledger.answers if answer.group in groups]
        tokens = [(at_s - began_s, float(count)) for answer in answers for at_s, count in answer.times.updates]
        axes.plot(*_columns(rates(tokens, width_s)), color=f"C{number}", label=f"{name}: tokens a second")
        users = crowd_over_time(ledger, groups, began_s)
        beside.step(*_columns(users), where="post", color=f"C{number}", linestyle=":", label=f"{name}: users")
    _failures(axes, ledger, began_s)
    axes.set(ylabel="final tokens a second", ylim=(0, None))
    beside.set(ylabel="users", ylim=(0, None))
    handles = [axes.get_legend_handles_labels(), beside.get_legend_handles_labels()]
    axes.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], **ABOVE)


def _failures(axes: Axes, ledger: Ledger, began_s: float) -> None:
    failed = [answer.ended_s - began_s for answer in ledger.answers if answer.end is End.FAILED]
    if failed:
        axes.plot(failed, [0] * len(failed), "x", color="C3", label="a failed request", clip_on=False)


def _spread(axes: Axes, points: Sequence[Point], width_s: float, label: str) -> None:
    found = windows(points, width_s)
    for percent, style in zip(PERCENTS, ("-", "--"), strict=True):
        values = [np.percentile(each, percent) for each in found.values()]
        axes.plot(list(found), values, f".{style}", color="C0", label=f"p{percent}")
    axes.set(ylabel=label, ylim=(0, None))
    if points:
        axes.legend(**ABOVE)
