"""What a soak showed, as tables and as a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report import Grid
from benchmarks.soak_behaviour import Behaviour, End, is_allowed
from benchmarks.soak_run import Outcome
from benchmarks.soak_samples import Sample, settled, slope_a_minute

KIB_IN_MIB = 1024
GROWTHS = {
    "uss_kib": "memory of its own, KiB",
    "rss_kib": "resident memory, KiB",
    "blocks": "blocks of Python's allocator",
    "malloc_kib": "what malloc has given out, KiB",
    "bindings": "ranges of slots bound to the graph, 256 at most",
}


def faults(outcome: Outcome) -> list[str]:
    """What must not be; empty where the soak was passed. How fast memory grows is shown, and for a reader to judge."""
    devices, found = outcome.devices, []
    if different := devices["texts"] - devices["same_texts"]:
        found.append(f"{different} finished texts differ from plain decoding's")
    if different := devices["parts"] - devices["same_parts"]:
        found.append(f"{different} unfinished texts are no beginning of plain decoding's")
    for who, end, count in devices["ends"]:
        if not is_allowed(Behaviour(who), End(end)):
            found.append(f"{count} ended with {end}: a device that {who}")
    return [*found, *(f"left open: {what}" for what in outcome.left_open), *devices["problems"]]


def grids(outcome: Outcome, judges_growth: bool) -> list[Grid]:
    tables = [_ends_grid(outcome), _figures_grid(outcome)]
    return [*tables, _growth_grid(outcome)] if judges_growth else tables


def _ends_grid(outcome: Outcome) -> Grid:
    counts = {(who, end): count for who, end, count in outcome.devices["ends"]}
    rows = [[who.value, *(str(counts.get((who.value, end.value), 0)) for end in End)] for who in Behaviour]
    totals = [str(sum(counts.get((who.value, end.value), 0) for who in Behaviour)) for end in End]
    return Grid(
        "Measured: sessions by what their device did, and how they ended", ["a device that", *End], [*rows, ["all", *totals]]
    )


def _figures_grid(outcome: Outcome) -> Grid:
    devices, samples = outcome.devices, outcome.samples
    first_ms = devices["first_ms"] or [0.0]
    rows = [
        *_setting_rows(outcome),
        ["finished texts; of them plain decoding's", f"{devices['texts']}; {devices['same_texts']}"],
        ["unfinished texts; of them beginnings of plain decoding's", f"{devices['parts']}; {devices['same_parts']}"],
        ["refusals, after each of which the device kept the delay", str(devices["refusals"])],
        ["first final token behind Open, ms: p50, p99", ", ".join(f"{np.percentile(first_ms, q):.0f}" for q in (50, 99))],
        ["sessions at once, with those that wait: median, most", _median_and_most(samples, "sessions")],
        ["of them waiting: median, most", _median_and_most(samples, "waiting")],
        ["caches kept: median, most", _median_and_most(samples, "kept")],
        ["tokens of prompts that a kept cache had", str(outcome.end.reused_tokens)],
        ["passes of the full model", str(outcome.end.passes)],
        ["left open at the end", "; ".join(outcome.left_open) or "nothing"],
    ]
    return Grid("Measured: the soak", ["figure", "value"], rows)


def _setting_rows(outcome: Outcome) -> list[list[str]]:
    setting, minutes = outcome.setting, (outcome.samples[-1].at_s - outcome.samples[0].at_s) / 60
    size = f"{setting.slots}; {setting.max_queued}; {setting.max_kept}"
    return [
        ["minutes; devices", f"{minutes:.1f}; {setting.devices}"],
        ["the verifier's seats; places to wait; caches kept at most", size],
    ]


def _median_and_most(samples: Sequence[Sample], name: str) -> str:
    values = [getattr(sample, name) for sample in samples]
    return f"{np.median(values):.0f}, {max(values)}"


def _growth_grid(outcome: Outcome) -> Grid:
    rest = settled(outcome.samples)
    columns = ["the verifier's", "a minute (95 % interval)", "at the start", "behind the warm-up", "in the last sample"]
    rows = []
    for name, title in GROWTHS.items():
        slope = slope_a_minute(outcome.samples, name, outcome.setting.interval_s)
        rows.append([title, str(slope), *(f"{getattr(at, name)}" for at in (outcome.start, rest[0], rest[-1]))])
    return Grid("Measured: growth behind the warm-up, the first third", columns, rows)
