"""What the committed traces of the real pair say of its draft; with ``--record``, records them anew first.

python -m benchmarks.traces [--record] [--json FILE] [--fill docs/benchmarks.md]

``trace_replay.py`` plays the traces to the production code. Agreement is along the full model's own paths.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from benchmarks import trace_statistics as statistics
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.trace_file import BUNDLED, PLACES, SECOND, Recording, load, save
from benchmarks.trace_statistics import Bin, Lead, Signal

BLOCK = "traces"
CONFIDENCE, PROBABILITY = "softmax over the choice's scores", "probability without noise"


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a recording, by temperature. ``leads``: how far the noisy confidence's AUC is above the probability's."""

    pair: str
    pair_digest: str
    paths: list[statistics.Path]
    signals: list[Signal]
    leads: dict[float, Lead]


def measure(recording: Recording) -> Figures:
    """Figures of the paths. A greedy choice has no noise, so its two signals are one."""
    paths, signals, leads = [], [], {}
    for temperature in sorted({trace.temperature for trace in recording.traces}):
        traces = [trace for trace in recording.traces if trace.temperature == temperature]
        noisy, plain = statistics.confidences(traces), statistics.probabilities(traces)
        paths.append(statistics.along(traces))
        signals.append(statistics.signal(CONFIDENCE, traces, noisy))
        if temperature > 0:
            signals.append(statistics.signal(PROBABILITY, traces, plain))
            leads[temperature] = statistics.lead(traces, noisy, plain)
    return Figures(recording.pair, recording.pair_digest, paths, signals, leads)


def grids(figures: Figures) -> list[Grid]:
    return [_path_grid(figures), _signal_grid(figures), *(_bin_grid(signal) for signal in figures.signals)]


def _path_grid(figures: Figures) -> Grid:
    covers = [f"the {place}" for place in PLACES[SECOND + 1 :]]
    columns = ["temperature", "prompts", "tokens", "acceptance", "misses that the second choice covers", *covers, "mean run"]
    rows = [
        [
            f"{path.temperature:g}",
            str(path.num_prompts),
            str(path.num_tokens),
            f"{path.acceptance:.3f} ± {path.acceptance_error:.3f}",
            *(_share(share) for share, _ in zip_longest(path.covered, PLACES[SECOND:])),
            _share(path.mean_run),
        ]
        for path in figures.paths
    ]
    return Grid(f"Measured: {figures.pair}, the draft along the full model's own path (± one standard error)", columns, rows)


def _signal_grid(figures: Figures) -> Grid:
    columns = ["temperature", "signal", "AUC", "expected calibration error", "Brier score"]
    rows = [
        [f"{s.temperature:g}", s.name, f"{s.auc:.3f} ± {s.auc_error:.3f}", _share(s.calibration_error), _share(s.brier)]
        for s in figures.signals
    ]
    leads = [
        f"at {temperature:g} the first AUC is above the second by {lead.auc:.3f} ± {lead.error:.3f}"
        for temperature, lead in figures.leads.items()
    ]
    return Grid("; ".join(["Measured: which signal tells that a first choice agrees", *leads]), columns, rows)


def _bin_grid(signal: Signal) -> Grid:
    rows = [[f"{place / 10:.1f} to {(place + 1) / 10:.1f}", *_cells(found)] for place, found in enumerate(signal.bins)]
    title = f"Measured: {signal.name}, temperature {signal.temperature:g}"
    return Grid(title, ["signal", "proposals", "mean signal", "agreement"], rows)


def _cells(found: Bin) -> list[str]:
    return [str(found.count), _share(found.mean_signal), _share(found.agreement)]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _record(path: Path) -> None:
    # The recorder loads both models, which the tables do without.
    from benchmarks.trace_recorder import Plan, record

    path.parent.mkdir(exist_ok=True)
    save(record(Plan()), path)
    print(f"wrote {path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="run the bundled pair and write the traces anew (minutes)")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.record and arguments.quick:
        parser.error("--quick would record too little to keep; leave it out")
    if arguments.record:
        _record(BUNDLED)
    figures = measure(load())
    publish(arguments, BLOCK, grids(figures), asdict(figures))


if __name__ == "__main__":
    main()
