"""The grid's tables: the worst cells first, then rates, shares and baselines, cell by cell. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import first_order
from benchmarks.first_order import Figures
from benchmarks.grid_cells import ADAPTIVE, LEAST_OF_CLOUD, LEAST_OF_MODEL, WIDTHS, Beside, Cell, Row, Runs, worst
from benchmarks.report import Grid

HEAD = ("draft, ms", "pass, ms", "round trip, ms", "acceptance")
NEVER_WAITING = (*WIDTHS.values(), ADAPTIVE)
WORST = ("share", "at least wanted", "worst cell", "where (draft, pass, round trip in ms; acceptance)", "cells that reach it")
RATES = (*HEAD, "cloud alone", *NEVER_WAITING)
OF_MODEL = tuple(f"{name}: of the model" for name in WIDTHS.values())
OF_CLOUD = tuple(f"{name}: of cloud alone" for name in NEVER_WAITING)
SHARES = (*HEAD, *OF_MODEL, *OF_CLOUD, "")
BASELINES = (
    *HEAD,
    "device alone",
    "stop-and-wait",
    "the model's",
    "ratio",
    "inside the cloud",
    "the model's",
    "ratio",
    "two branches over stop-and-wait",
)


def grids(rows: Sequence[Row], runs: Runs) -> list[Grid]:
    """All tables. Every rate is in final tokens a second."""
    num_met = sum(not row.misses for row in rows)
    ran = f"{runs.num_tokens} tokens x {runs.num_seeds} draws a cell"
    return [
        Grid(f"Emulated, {ran}: {num_met} of {len(rows)} cells reach every bound", WORST, _worst(rows)),
        Grid("Emulated: final tokens a second (passes a token)", RATES, [_rates(row) for row in rows]),
        Grid("Emulated: shares of the model's rate and of cloud alone", SHARES, [_shares(row) for row in rows]),
        Grid(
            "Emulated: baselines, final tokens a second (passes a token, k: drafts a round at the model's best)",
            BASELINES,
            [_baselines(row) for row in rows],
        ),
    ]


def _worst(rows: Sequence[Row]) -> list[list[str]]:
    of_model = [
        (title, [row.of_model[name] for row in rows], LEAST_OF_MODEL)
        for title, name in zip(OF_MODEL, WIDTHS.values(), strict=True)
    ]
    of_cloud = [
        (title, [row.of_cloud[name] for row in rows], LEAST_OF_CLOUD)
        for title, name in zip(OF_CLOUD, NEVER_WAITING, strict=True)
    ]
    lines = []
    for title, shares, least in of_model + of_cloud:
        share, row = worst(rows, shares)
        num_met = sum(reached >= least for reached in shares)
        lines.append([title, f"{least}", f"{share:.3f}", "; ".join(_head(row.cell)), f"{num_met} of {len(rows)}"])
    return lines


def _rates(row: Row) -> list[str]:
    ours = [row.ahead[width].ours for width in WIDTHS]
    return [*_head(row.cell), f"{row.cloud.tokens_per_s:.1f}", *(_rate(figures) for figures in (*ours, row.adaptive))]


def _shares(row: Row) -> list[str]:
    shares = [f"{share:.3f}" for share in row.of_model.values()] + [f"{share:.2f}" for share in row.of_cloud.values()]
    return [*_head(row.cell), *shares, "MISS " + ", ".join(row.misses) if row.misses else ""]


def _baselines(row: Row) -> list[str]:
    sync = _with_length(row.sync, row.sync_length)
    inside = _with_length(row.inside, row.inside_length)
    gain = row.ahead[2].ours.tokens_per_s / row.sync.ours.tokens_per_s
    return [*_head(row.cell), f"{first_order.device(row.cell.times).tokens_per_s:.1f}", *sync, *inside, f"{gain:.2f}"]


def _with_length(beside: Beside, length: int) -> list[str]:
    ours = beside.ours
    rate = f"{ours.tokens_per_s:.1f} ({ours.passes_per_token:.2f}, k={length})"
    return [rate, f"{beside.model.tokens_per_s:.1f}", f"{beside.share:.3f}"]


def _head(cell: Cell) -> list[str]:
    times = cell.times
    return [f"{value:g}" for value in (times.draft_ms, times.pass_ms, times.round_trip_ms, cell.alpha)]


def _rate(figures: Figures) -> str:
    return f"{figures.tokens_per_s:.1f} ({figures.passes_per_token:.2f})"
