"""The report of a load test: files in a folder, a short table, and an exit code."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest import plot
from loadtest.answers import Answer, Ledger
from loadtest.figures import BETWEEN_TOKENS_MS, FIRST_TOKEN_MS, PERCENTILES, WELL_BEHAVED, Figures, by_class
from loadtest.scenario import Scenario

SUMMARY, TABLE, REQUESTS = "summary.json", "percentiles.csv", "requests.jsonl"
PLOTS = ("report.svg", "report.png")
STOOD_STILL = "the users' own process stood still {} times, {:.1f} s in all: the machine is too busy to quote these figures"
FILE_WIDTH = 160
"""Columns of a table that is printed into a file or a pipe."""


def publish(scenario: Scenario, ledger: Ledger, folder: Path) -> int:
    """Write all files, print the table. The exit code: 1 where a well-behaved request failed or never ended."""
    folder.mkdir(parents=True, exist_ok=True)
    found = by_class(scenario, ledger)
    faults = num_faults(scenario, ledger, found)
    write(scenario, ledger, found, folder)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)
    console.print(table(scenario, found))
    if rows_of_ends := endings(found):
        console.print(_ends(rows_of_ends))
    if ledger.stalls_s:
        console.print(STOOD_STILL.format(len(ledger.stalls_s), sum(ledger.stalls_s)), style="yellow", soft_wrap=True)
    verdict = "no well-behaved request failed" if not faults else f"{faults} well-behaved requests failed or never ended"
    console.print(f"{verdict}; the report is in {folder}", style="bold green" if not faults else "bold red", soft_wrap=True)
    return 1 if faults else 0


def num_faults(scenario: Scenario, ledger: Ledger, found: Mapping[str, Figures]) -> int:
    """Failures of the well-behaved, and answers without an end: a request must have one, whoever asked."""
    failed = sum(found[group.name].ends["failed"] for group in scenario.groups if group.is_well_behaved)
    return failed + ledger.num_open


def write(scenario: Scenario, ledger: Ledger, found: Mapping[str, Figures], folder: Path) -> None:
    """The report's own files; Locust's lie beside them."""
    (folder / SUMMARY).write_text(json.dumps(summary(scenario, ledger, found), indent=1) + "\n", "utf-8")
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows(found))
    lines = [json.dumps(_record(answer)) + "\n" for answer in ledger.answers]
    (folder / REQUESTS).write_text("".join(lines), "utf-8")
    plot.draw(scenario, ledger, [folder / name for name in PLOTS])


def summary(scenario: Scenario, ledger: Ledger, found: Mapping[str, Figures]) -> dict[str, Any]:
    """Everything that is worth comparing, as JSON holds it."""
    return {
        "scenario": scenario.model_dump(mode="json"),
        "objectives": {"first_token_ms": FIRST_TOKEN_MS, "between_tokens_ms": BETWEEN_TOKENS_MS},
        "without_an_end": ledger.num_open,
        "users_stood_still_s": ledger.stalls_s,
        "classes": {name: asdict(figures) for name, figures in found.items()},
    }


def rows(found: Mapping[str, Figures]) -> list[list[str]]:
    """Lines of the table of percentiles: a quantity of a class each; one that is no spread has a ``value`` alone."""
    named = [f"p{percent:g}" for percent in PERCENTILES]
    lines = [["class", "figure", "value", "count", "mean", "median", "std", *named]]
    for name, figures in found.items():
        for figure, spread in figures.spreads.items():
            if spread is not None:
                middle = [f"{value:.6g}" for value in (spread.mean, spread.median, spread.std)]
                percentiles = [f"{spread.percentiles[percent]:.6g}" for percent in named]
                lines.append([name, figure, "", str(spread.count), *middle, *percentiles])
        for figure, value in figures.values.items():
            if value is not None:
                lines.append([name, figure, f"{value:.6g}", *[""] * (len(lines[0]) - 3)])
    return lines


def table(scenario: Scenario, found: Mapping[str, Figures]) -> Table:
    """What a person wants to see first."""
    columns = ("class", "done", "failed", "tokens/s", "first visible", "first final", "between tokens", "goodput", "accepted")
    shown = Table(*columns, title=f"{scenario.title} (ms: p50 / p95 / p99)")
    for name, figures in found.items():
        spreads = [_middle(figures, of) for of in ("first_visible_ms", "first_final_ms", "inter_token_ms")]
        counts = (str(figures.ends["done"]), str(figures.ends["failed"]))
        rates = [_number(figures.values["output_tokens_per_s"], ".1f"), *spreads]
        shares = [_number(figures.values[of], ".0%") for of in ("goodput_final_share", "acceptance")]
        shown.add_row(name, *counts, *rates, *shares)
    return shown


def endings(found: Mapping[str, Figures]) -> list[tuple[str, int, str]]:
    """A class, how many of its answers ended otherwise than just by themselves, and how; all classes together left out."""
    classes = [(name, figures) for name, figures in found.items() if name != WELL_BEHAVED]
    return [(name, count, how) for name, figures in classes for how, count in figures.reasons.items()]


def _ends(lines: Sequence[tuple[str, int, str]]) -> Table:
    shown = Table("class", "answers", "how they ended", title="Other ends")
    for name, count, how in lines:
        shown.add_row(name, str(count), how)
    return shown


def _record(answer: Answer) -> dict[str, Any]:
    times = answer.times
    return {
        "class": answer.group,
        "end": answer.end.value,
        "how": answer.how,
        "began_s": round(times.began_s, 6),
        "ended_s": round(answer.ended_s, 6),
        "first_visible_s": times.first_visible_s,
        "updates": [[round(at_s - times.began_s, 6), count] for at_s, count in times.updates],
        "drafts": asdict(answer.drafts),
    }


def _middle(figures: Figures, name: str) -> str:
    spread = figures.spreads[name]
    return "" if spread is None else " / ".join(f"{spread.percentiles[percent]:.0f}" for percent in ("p50", "p95", "p99"))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
