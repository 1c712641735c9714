"""The schedule of a graph of sub-tasks as a picture: a row for each, when it waited, when it ran, and what decided. Pure.

States differ by sign, word and pattern, and the critical path by a mark and a thick line: colour is never the only sign.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from device_agent.tasks.board import State

Json = dict[str, Any]

WIDTH, NAMES, RIGHT, TOP, ROW, BAR = 980, 240, 160, 64, 26, 16
MEDIA_TYPE, NAMESPACE = "image/svg+xml", "http://www.w3.org/2000/svg"
MOST_TICKS = 8
LEAST_BAR = 2.0
INK, QUIET, PAPER = "#1b1b1b", "#6b6b6b", "#ffffff"
LOOKS = {
    State.WAITING: ("·", PAPER),
    State.RUNNING: ("▶", "#9ecae1"),
    State.DONE: ("✓", "#a1d99b"),
    State.FAILED: ("✗", "url(#rising)"),
    State.SKIPPED: ("–", PAPER),
    State.CANCELLED: ("■", "url(#falling)"),
}


def drawn(schedule: Sequence[Json], now_ms: float, critical: Collection[str] = (), status: str = "running") -> bytes:
    """The picture, ``now_ms`` wide. ``schedule`` is as ``Entry.to_json`` tells it."""
    height = TOP + ROW * len(schedule) + 40
    size = {"width": str(WIDTH), "height": str(height), "viewBox": f"0 0 {WIDTH} {height}"}
    named = {
        "role": "img",
        "aria-labelledby": "title",
        "aria-describedby": "desc",
        "font-family": "sans-serif",
        "font-size": "13",
    }
    svg = Element("svg", {"xmlns": NAMESPACE, **size, **named})
    SubElement(svg, "title", id="title").text = f"Schedule of {len(schedule)} sub-tasks: {status}, {_time(now_ms)}"
    SubElement(svg, "desc", id="desc").text = "; ".join(_told(entry) for entry in schedule)
    _patterns(svg)
    SubElement(svg, "rect", width=str(WIDTH), height=str(height), fill=PAPER)
    end_ms = max(now_ms, 1.0)
    _axis(svg, end_ms, TOP + ROW * len(schedule))
    rows = {entry["task"]: TOP + ROW * number for number, entry in enumerate(schedule)}
    for entry in schedule:
        _arrows(svg, entry, {each["task"]: each for each in schedule}, rows, end_ms)
    for entry in schedule:
        _row(svg, entry, rows[entry["task"]], end_ms, entry["task"] in critical)
    _text(
        svg,
        8,
        height - 12,
        "◆ and a thick line: decided how long all of it took. Dotted: ready, and waiting for a place.",
        QUIET,
    )
    picture: bytes = tostring(svg, encoding="utf-8", xml_declaration=True)
    return picture


def _patterns(svg: Element) -> None:
    definitions = SubElement(svg, "defs")
    for name, path, colour in (("rising", "M0,8 L8,0", "#cb181d"), ("falling", "M0,0 L8,8", "#54278f")):
        pattern = SubElement(definitions, "pattern", id=name, width="8", height="8", patternUnits="userSpaceOnUse")
        SubElement(pattern, "path", {"d": path, "stroke": colour, "stroke-width": "2"})


def _axis(svg: Element, end_ms: float, bottom: float) -> None:
    step_ms = _step(end_ms)
    for number in range(math.floor(end_ms / step_ms) + 1):
        x = _x(number * step_ms, end_ms)
        SubElement(svg, "path", {"d": f"M{x:.1f},{TOP - 8} V{bottom}", "stroke": "#d9d9d9"})
        _text(svg, x, TOP - 14, _time(number * step_ms), QUIET, "middle")


def _step(end_ms: float) -> float:
    """A round number of milliseconds that divides the time into a few parts."""
    least = end_ms / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _arrows(svg: Element, entry: Json, entries: dict[str, Json], rows: dict[str, int], end_ms: float) -> None:
    """From the end of what it waited for to where it was ready."""
    if entry["ready_ms"] is None:
        return
    x, y = _x(entry["ready_ms"], end_ms), rows[entry["task"]] + ROW / 2
    for name in entry["after"]:
        if entries[name]["began_ms"] is not None:
            from_x, from_y = _x(_end(entries[name], end_ms), end_ms), rows[name] + ROW / 2
            path = f"M{from_x:.1f},{from_y:.1f} L{x:.1f},{y:.1f}"
            SubElement(svg, "path", {"d": path, "stroke": "#b0b0b0", "fill": "none"})


def _row(svg: Element, entry: Json, y: float, end_ms: float, is_critical: bool) -> None:
    sign, fill = LOOKS[State(entry["state"])]
    middle = y + ROW / 2
    row = SubElement(svg, "g")
    SubElement(row, "title").text = _told(entry)
    _text(row, NAMES - 10, middle + 4, f"{'◆ ' if is_critical else ''}{entry['task']}", INK, "end")
    x = end_x = float(NAMES)
    if entry["began_ms"] is not None:
        x, end_x = _x(entry["began_ms"], end_ms), _x(_end(entry, end_ms), end_ms)
        ready = _x(entry["ready_ms"] or 0.0, end_ms)
        waited = {"d": f"M{ready:.1f},{middle:.1f} H{x:.1f}", "stroke": QUIET, "stroke-dasharray": "1 4", "stroke-width": "2"}
        SubElement(row, "path", waited)
        box = {"x": f"{x:.1f}", "y": f"{middle - BAR / 2:.1f}", "width": f"{max(LEAST_BAR, end_x - x):.1f}", "height": str(BAR)}
        SubElement(row, "rect", {**box, "fill": fill, "stroke": INK, "stroke-width": "3" if is_critical else "1", "rx": "2"})
    label = f"{sign} {entry['tokens']} tokens" if entry["state"] == State.DONE else f"{sign} {entry['state']}"
    _text(row, end_x + 8, middle + 4, label, INK)


def _told(entry: Json) -> str:
    said = f"{entry['task']} {entry['state']}"
    if entry["began_ms"] is not None:
        said += f", from {_time(entry['began_ms'])}"
        said += "" if entry["ended_ms"] is None else f" to {_time(entry['ended_ms'])}"
    return said + (f", behind {' and '.join(entry['after'])}" if entry["after"] else "")


def _end(entry: Json, now_ms: float) -> float:
    return now_ms if entry["ended_ms"] is None else float(entry["ended_ms"])


def _x(time_ms: float, end_ms: float) -> float:
    return NAMES + (WIDTH - NAMES - RIGHT) * min(time_ms, end_ms) / end_ms


def _time(time_ms: float) -> str:
    return f"{time_ms:.0f} ms" if time_ms < 1000 else f"{time_ms / 1000:.2f} s"


def _text(parent: Element, x: float, y: float, text: str, fill: str, anchor: str = "start") -> None:
    SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": fill, "text-anchor": anchor}).text = text
