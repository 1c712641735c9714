"""Pictures of what the benchmarks found, for those who would rather look than read. Needs the extra ``plot``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import capacity_tables
from benchmarks.grid_cells import WIDTHS, Row
from benchmarks.heat import Curve as HeatCurve
from benchmarks.heat import Sample
from benchmarks.routing import Curve
from benchmarks.soak_samples import Sample as Held
from benchmarks.thrift_front import BUDGET, Point

ACCEPTANCE = 0.8
# The same figures give the same bytes: no date, no random names, text as text.
mpl.rcParams.update({"svg.hashsalt": "outrider", "svg.fonttype": "none", "font.size": 9})


def grid(rows: Sequence[Row], file: Path) -> None:
    """Rates over the round trip, a panel for each draft and pass time, at one acceptance."""
    chosen = [row for row in rows if row.cell.alpha == ACCEPTANCE]
    panels = sorted({(row.cell.times.draft_ms, row.cell.times.pass_ms) for row in chosen})
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(f"Final tokens a second over the round trip, acceptance {ACCEPTANCE:g} (emulated)")
    all_axes = figure.subplots(2, 2, sharex=True, sharey=True).flat
    for axes, (draft_ms, pass_ms) in zip(all_axes, panels, strict=False):
        here = [row for row in chosen if (row.cell.times.draft_ms, row.cell.times.pass_ms) == (draft_ms, pass_ms)]
        axes.set_title(f"draft {draft_ms:g} ms, pass {pass_ms:g} ms")
        _lines(axes, sorted(here, key=lambda row: row.cell.times.round_trip_ms))
    figure.supxlabel("round trip, ms")
    figure.supylabel("tokens a second")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def thrift(ours: Sequence[Point], theirs: Sequence[Point], where: str, file: Path) -> None:
    """Two fronts of rate over passes a token."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    most = max(BUDGET, *(point.figures.passes_per_token for point in (*ours, *theirs)))
    for points, label, colour in ((ours, "drafting ahead, patience and gathering", "C0"), (theirs, "stop and wait", "C1")):
        passes = [point.figures.passes_per_token for point in points]
        rates = [point.figures.tokens_per_s for point in points]
        axes.plot(passes, rates, "o-", color=colour, label=label)
        # Behind the last point more passes buy nothing.
        axes.plot([passes[-1], most], [rates[-1]] * 2, "--", color=colour)
    axes.axvline(BUDGET, color="grey", linestyle=":", label=f"{BUDGET:g} passes a token")
    axes.set_title(f"How fast at how few passes (emulated)\n{where}")
    axes.set(xlabel="passes of the full model a token", ylabel="final tokens a second", ylim=(0, None))
    axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def routing(curves: Sequence[Curve], file: Path) -> None:
    """Agreement over passes for each signal, between sending prompts by lot and by knowledge; a panel for each length."""
    lengths = list(dict.fromkeys(curve.num_tokens for curve in curves))
    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle("Which answers may stay on the device? (emulated, bundled pair, greedy)")
    for axes, num_tokens in zip(figure.subplots(1, len(lengths), squeeze=False).flat, lengths, strict=True):
        here = [curve for curve in curves if curve.num_tokens == num_tokens]
        ideal = here[0].ideal
        axes.plot([p.passes for p in ideal], [p.agreement for p in ideal], "k-", linewidth=0.8, label="by knowledge")
        axes.plot([0, 1], [ideal[0].agreement, ideal[-1].agreement], "k--", linewidth=0.8, label="by lot")
        for curve, mark in zip(here, "os", strict=False):
            points = sorted(curve.points, key=lambda p: p.passes)
            axes.plot([p.passes for p in points], [p.agreement for p in points], f"{mark}-", markersize=4, label=curve.signal)
        axes.set_title(f"answers of {num_tokens} tokens")
        axes.grid(alpha=0.3)
    figure.supxlabel("passes of the full model, as a share of those of always both")
    figure.supylabel("same token at the same place")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def heat(runs: Mapping[str, Sequence[Sample]], published: Sequence[HeatCurve], file: Path) -> None:
    """Decode speeds of hot phones: the model's as lines, what was published as marks."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(published):
        samples, colour = runs[curve.label], f"C{number}"
        axes.plot([s.at_s for s in samples], [s.tokens_per_s for s in samples], color=colour, label=curve.label)
        for marks, marker in ((curve.bound, "o"), (curve.shown, "x")):
            axes.plot(list(marks), list(marks.values()), marker, color=colour)
    axes.set_title("Decoding on an iPhone 17 Pro that gets hot: emulated (lines), published (marks)")
    axes.set(xlabel="seconds of decoding without a pause", ylabel="tokens a second", ylim=(0, None))
    axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def soak(samples: Sequence[Held], file: Path) -> None:
    """Memory of a verifier over time, and below it what it served."""
    minutes = [(sample.at_s - samples[0].at_s) / 60 for sample in samples]
    figure = Figure(figsize=(7, 5), layout="constrained")
    memory, counts = figure.subplots(2, 1, sharex=True)
    memory.set_title("A verifier while devices come, go, cut and cancel (measured)")
    memory.plot(minutes, [sample.rss_kib / 1024 for sample in samples], label="resident")
    memory.plot(minutes, [sample.uss_kib / 1024 for sample in samples], label="its own")
    memory.set(ylabel="memory, MiB", ylim=(0, None))
    for name, label in (("sessions", "sessions"), ("waiting", "of them waiting"), ("kept", "caches kept")):
        counts.plot(minutes, [getattr(sample, name) for sample in samples], linewidth=0.8, label=label)
    counts.set(xlabel="minutes", ylabel="at once", ylim=(0, None))
    for axes in (memory, counts):
        axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _lines(axes: Axes, rows: Sequence[Row]) -> None:
    round_trips_ms = [row.cell.times.round_trip_ms for row in rows]
    axes.plot(round_trips_ms, [row.cloud.tokens_per_s for row in rows], "k--", label="cloud alone")
    axes.plot(round_trips_ms, [row.sync.ours.tokens_per_s for row in rows], "s-", markersize=3, label="stop and wait")
    for width, name in WIDTHS.items():
        rates = [row.ahead[width].ours.tokens_per_s for row in rows]
        axes.plot(round_trips_ms, rates, "o-", markersize=3, label=name)
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)


def capacity(rows: Sequence[capacity_tables.Row], file: Path) -> None:
    """How many times cheaper than decoding alone, over the devices: a panel for each rate."""
    rates = list(dict.fromkeys(row.tokens_per_s for row in rows))
    figure = Figure(figsize=(11, 4), layout="constrained")
    figure.suptitle("GPU milliseconds a token: times cheaper than decoding alone (emulated)")
    for axes, rate in zip(figure.subplots(1, len(rates), sharey=True, squeeze=False).flat, rates, strict=True):
        here = [row for row in rows if row.tokens_per_s == rate]
        axes.plot([row.num_devices for row in here], [row.ceiling for row in here], "k--", label="ceiling")
        for name in here[0].systems:
            held = [(row.num_devices, row.ratio(name)) for row in here if row.systems[name].is_held]
            axes.plot([count for count, _ in held], [ratio for _, ratio in held], "o-", markersize=3, label=name)
        axes.set_title(f"{rate:g} tokens a second a device")
        axes.set_xscale("log", base=2)
        axes.set_xticks([row.num_devices for row in here], [str(row.num_devices) for row in here])
        axes.grid(alpha=0.3)
    figure.supxlabel("devices")
    figure.axes[0].set_ylim(0, None)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
