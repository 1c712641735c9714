"""A plan as a picture: where it pays, and how one answer comes about. Needs the extra ``plot``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from device_agent.events import CommitEvent, CorrectEvent, RevokeEvent, SpeculativeEvent
from device_agent.request import Mode
from outrider.planning.answers import Asked, Effort, Plan
from outrider.planning.plan import warming
from outrider.planning.scene import Setup, Timed, run, timeline
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import Acceptance
from outrider.planning.token_speed import Speeds
from speculation.shaping.engine import PhoneCost

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)
ROUND_TRIPS_MS = (10.0, 30.0, 60.0, 120.0, 240.0, 480.0)
TIMELINE_TOKENS = 48
# The same figures give the same bytes: no date, no random names, text as text.
STYLE = {"svg.hashsalt": "outrider", "svg.fonttype": "none", "font.size": 9}

Tell = Callable[[str], None]


def num_steps(effort: Effort) -> int:
    """How often ``tell`` is called."""
    return len(ALPHAS) * len(ROUND_TRIPS_MS) + 1


def draw(asked: Asked, found: Plan, file: Path, tell: Tell) -> None:
    """The speed-up over round trip and acceptance, a timeline of one answer, and ten minutes of heat where the phone has such
    figures; the first two are run for the picture."""
    cells = speed_ups(asked, tell)
    tell("one answer")
    met = Synthetic(Acceptance(found.acceptance, asked.acceptance.cover2), asked.context_length, asked.prompt_length)
    events = timeline(asked.place, met, Setup.of(Mode.COLLABORATE), 0, TIMELINE_TOKENS)
    with mpl.rc_context(STYLE):
        num_panels = 3 if found.heat else 2
        figure = Figure(figsize=(5.5 * num_panels, 4.6), layout="constrained")
        place = asked.place
        phone, cloud = f"{place.draft.name} on {place.phone.name}", f"{place.full.name} on {place.cloud.name}"
        figure.suptitle(f"{phone}, {place.network.name}, {cloud} (emulated)")
        panels = list(figure.subplots(1, num_panels))
        _map(panels[0], cells)
        _timeline(panels[1], events)
        if found.heat:
            _heat(panels[2], asked, found)
        save(figure, file)


def speed_ups(asked: Asked, tell: Tell) -> list[list[float]]:
    """Collaboration over the cloud alone: a row for each acceptance, a column for each round trip."""
    return [[_speed_up(asked, alpha, ms, tell) for ms in ROUND_TRIPS_MS] for alpha in ALPHAS]


def token_speeds(found: Speeds, file: Path) -> None:
    """Tokens a second over utilisation, a bar for each, with the lines of readers."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        shares, width = list(found.rows[0].tokens_per_s), 0.27
        places = np.arange(len(found.rows))
        for number, share in enumerate(shares):
            speeds = [row.tokens_per_s[share] for row in found.rows]
            axes.bar(
                places + (number - 1) * width, speeds, width, label=f"{share:.0%} of the bandwidth used", color=f"C{number}"
            )
        for (name, speed), style in zip(found.reading_tokens_per_s.items(), (":", "--"), strict=False):
            axes.axhline(speed, color="grey", linestyle=style, label=f"{name}, {speed:.1f} tokens a second")
        axes.set_xticks(places, [f"{row.model}\n{row.number_type.upper()}" for row in found.rows])
        axes.set_yscale("log")
        axes.set_ylabel("tokens a second")
        shared = f", shared by {found.num_streams} streams" if found.num_streams > 1 else ""
        axes.set_title(f"Token speed under {found.bandwidth_bytes_per_s / 1e9:g} GB/s{shared}")
        axes.legend(fontsize=8)
        save(figure, file)


def save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)


def _speed_up(asked: Asked, alpha: float, round_trip_ms: float, tell: Tell) -> float:
    tell(f"acceptance {alpha:g}, {round_trip_ms:g} ms")
    place = asked.place.at_round_trip(round_trip_ms / 1000)
    source = Synthetic(Acceptance(alpha, asked.acceptance.cover2), asked.context_length, asked.prompt_length)
    ours, theirs = (
        mean(
            run(place, source, Setup.of(mode), [draw], asked.effort.num_tokens)[0].tokens_per_s
            for draw in range(asked.effort.num_search_draws)
        )
        for mode in (Mode.COLLABORATE, Mode.CLOUD)
    )
    return ours / theirs


def _map(axes: Axes, cells: Sequence[Sequence[float]]) -> None:
    shown = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis", vmin=1.0, vmax=max(2.0, *map(max, cells)))
    for row, speed_ups in enumerate(cells):
        for column, speed_up in enumerate(speed_ups):
            colour = "white" if speed_up < (1 + shown.get_clim()[1]) / 2 else "black"
            axes.text(column, row, f"{speed_up:.2f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(ROUND_TRIPS_MS)), [f"{ms:g}" for ms in ROUND_TRIPS_MS])
    axes.set_yticks(range(len(ALPHAS)), [f"{alpha:g}" for alpha in ALPHAS])
    axes.set(xlabel="round trip, ms", ylabel="acceptance", title="Times as fast as the cloud alone")


def _heat(axes: Axes, asked: Asked, found: Plan) -> None:
    """Rates over ten minutes of drafting without a pause: the device alone by each second, collaboration where it was asked."""
    cost = PhoneCost(asked.place.phone, asked.place.draft)
    seconds = [float(second) for second in range(int(found.heat[-1].after_s) + 1)]
    speeds = [state.speed for _, state in warming(cost, asked.prompt_length + asked.effort.num_tokens, seconds)]
    cold = found.heat[0].device_tokens_per_s / found.heat[0].phone_speed
    axes.plot(seconds, [cold * speed for speed in speeds], color="C1", label="device alone")
    axes.plot([w.after_s for w in found.heat], [w.tokens_per_s for w in found.heat], "o-", color="C0", label="collaborative")
    axes.axhline(found.cloud.tokens_per_s, color="black", linestyle="--", label="cloud alone")
    axes.set(xlabel="seconds of drafting without a pause", ylabel="tokens a second", ylim=(0, None))
    axes.set_title(f"As {asked.place.phone.name} gets hot")
    axes.legend(fontsize=8)


def _timeline(axes: Axes, events: Sequence[Timed]) -> None:
    """Position over time: shown as drafts, withdrawn, and final."""
    kinds: dict[str, list[tuple[float, int]]] = {"shown as a draft": [], "revoked": [], "final": []}
    for timed in events:
        event, ms = timed.event, 1000 * timed.at_s
        if isinstance(event, SpeculativeEvent):
            kinds["shown as a draft"] += [(ms, event.position + n) for n in range(len(event.token_ids))]
        elif isinstance(event, RevokeEvent):
            kinds["revoked"] += [(ms, event.position + n) for n in range(event.count)]
        elif isinstance(event, CorrectEvent):
            kinds["final"] += [(ms, event.position + n) for n in range(len(event.token_ids))]
        elif isinstance(event, CommitEvent):
            kinds["final"] += [(ms, event.position + n) for n in range(event.count)]
    first = min(position for points in kinds.values() for _, position in points)
    for (name, points), (marker, colour) in zip(kinds.items(), ((".", "0.7"), ("x", "C3"), (".", "C0")), strict=True):
        times, places = [ms for ms, _ in points], [position - first for _, position in points]
        axes.plot(times, places, marker, color=colour, markersize=4, linestyle="", label=name)
    axes.set(
        xlabel="time since the request, ms", ylabel="token", title=f"One answer of {TIMELINE_TOKENS} tokens", xlim=(0, None)
    )
    axes.legend(fontsize=8)
