"""Whether the emulated network does what its figures say: delays, rates, radio, overhead, and that no byte is lost.

In process on a virtual clock (exact, the same everywhere), and through ``outrider proxy`` in a process of its own in real time
(so as good as the machine is idle). Idle: small messages, far apart. Half loaded: full packets that take half of the rate.
Saturated: a sender that never stops. Rates are those on the wire, headers included. Delays of a loaded link are compared where
there is no jitter: with it, nothing overtakes, and messages close to each other wait for the latest of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import track

from benchmarks import pacing_in_process as in_process
from benchmarks import pacing_proxied as proxied
from benchmarks.published_radio import GAPS_S, MEDIANS_MS, gaps_s
from benchmarks.report import Grid, add_arguments, publish_blocks
from speculation.shaping import profiles, virtual_time
from speculation.shaping.lane import PAYLOAD_BYTES, wire_bytes
from speculation.shaping.network import NetworkProfile
from speculation.shaping.pacing import PACKET_BYTES, Direction
from speculation.wire.codec import encoded_size

NETWORKS = ("wifi", "5g-nsa-low", "lte", "wpt-3g", "devtools-slow-3g")
QUICK_NETWORKS = NETWORKS[1:2]
MOST_OFF, MOST_OFF_RADIO = 0.05, 0.15
MOST_OVERHEAD_MS, LEAST_MB_PER_S = 0.5, 200
SMALL_BYTES = 100
RUNS = 5
"""Of delays in real time; a percentile is the median of theirs, so that another process in one of them matters less."""
HARMLESS = (
    {"type": "latency", "attributes": {"latency": 3, "jitter": 2}},
    {"type": "bandwidth", "attributes": {"rate": 40_000}},
    {"type": "slicer", "attributes": {"average_size": 20_000, "size_variation": 5_000, "delay": 20}},
    {"type": "slow_close", "attributes": {"delay": 20}},
)
ALL_TOXICS = "all of them"
COLUMNS = ("network", "way", "form", "link", "figure", "set", "p50", "p90", "off", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one direction: what was set for its 50th and 90th percentile, and what was measured."""

    network: str
    way: str
    form: str
    link: str
    figure: str
    set_50: float
    set_90: float
    p50: float
    p90: float

    @property
    def off(self) -> float:
        """The larger relative distance of the two percentiles."""
        return max(abs(self.p50 / self.set_50 - 1), abs(self.p90 / self.set_90 - 1))

    def cells(self) -> list[str]:
        scale, unit = (1e3, "ms") if self.figure == "delay" else (8e-6, "Mbit/s")
        values = [f"{scale * value:.2f}" for value in (self.set_50, self.set_90, self.p50, self.p90)]
        texts = [f"{values[0]} / {values[1]} {unit}", values[2], values[3], f"{self.off:.1%}"]
        return [self.network, self.way, self.form, self.link, self.figure, *texts, "OVER" if self.off > MOST_OFF else ""]


def row(network: NetworkProfile, is_uplink: bool, form: str, link: str, size: int, *runs: Sequence[float]) -> Row:
    """A row of delays of messages that weigh ``size`` bytes on the wire, in one or more runs."""
    direction = network.uplink if is_uplink else network.downlink
    middle_s = direction.delay_s + size / direction.rate_bytes_per_s
    late_s = middle_s + 0.8 * direction.jitter_s  # the 90th percentile of a uniform jitter
    return _row(network, is_uplink, form, link, "delay", (middle_s, late_s), *runs)


def rate_row(network: NetworkProfile, is_uplink: bool, form: str, found: Sequence[float]) -> Row:
    direction = network.uplink if is_uplink else network.downlink
    rate = direction.rate_bytes_per_s
    return _row(network, is_uplink, form, "saturated", "rate", (rate, rate), found)


def _row(
    network: NetworkProfile,
    is_uplink: bool,
    form: str,
    link: str,
    figure: str,
    asked: tuple[float, float],
    *runs: Sequence[float],
) -> Row:
    deciles = [statistics.quantiles(found, n=10) for found in runs]
    p50, p90 = (statistics.median(run[index] for run in deciles) for index in (4, 8))
    return Row(network.name, "up" if is_uplink else "down", form, link, figure, *asked, p50, p90)


def rows_in_process(network: NetworkProfile, count: int) -> list[Row]:
    rows = []
    for is_uplink in (True, False):
        message = in_process.draft(2) if is_uplink else in_process.verdict(2)
        small = encoded_size(message) + round(network.overhead_bytes)
        idle = virtual_time.run(in_process.delays_s(network, 2.0, count, is_uplink))
        rows.append(row(network, is_uplink, "in process", "idle", small, idle))
        large = in_process.weighing(network, PACKET_BYTES)
        direction = network.uplink if is_uplink else network.downlink
        if not direction.jitter_s:
            loaded = virtual_time.run(in_process.loaded_delays_s(large, _interval_s(direction), count, is_uplink))
            rows.append(row(network, is_uplink, "in process", "half loaded", PACKET_BYTES, loaded))
        window_s = 200 * PACKET_BYTES / direction.rate_bytes_per_s
        rates = virtual_time.run(in_process.rates_bytes_per_s(large, 20, window_s, is_uplink))
        rows.append(rate_row(network, is_uplink, "in process", rates))
    return rows


def rows_through_proxy(network: NetworkProfile, count: int, length_s: float) -> list[Row]:
    rows = []
    with proxied.proxied(network.name) as running:
        for is_uplink in (True, False):
            with running.connected() as pair:
                ends = (pair.client, pair.server) if is_uplink else (pair.server, pair.client)
                direction = network.uplink if is_uplink else network.downlink
                gap_s = max(0.02, 2.5 * direction.jitter_s)
                runs = [proxied.delays_s(*ends, SMALL_BYTES, count // RUNS, gap_s) for _ in range(RUNS)]
                rows.append(row(network, is_uplink, "proxy", "idle", wire_bytes(SMALL_BYTES), *runs))
                if not direction.jitter_s:
                    num_packets = max(1, round(0.01 / _interval_s(direction)))  # no more than a hundred messages a second
                    size, interval_s = num_packets * PAYLOAD_BYTES, num_packets * _interval_s(direction)
                    most = max(2, min(count, int(length_s / interval_s)) // RUNS)
                    runs = [proxied.delays_s(*ends, size, most, interval_s) for _ in range(RUNS)]
                    rows.append(row(network, is_uplink, "proxy", "half loaded", wire_bytes(size), *runs))
                rates = proxied.rates_bytes_per_s(*ends, 1.5 + direction.delay_s, length_s, length_s / 10)
                on_the_wire = [rate * PACKET_BYTES / PAYLOAD_BYTES for rate in rates]
                rows.append(rate_row(network, is_uplink, "proxy", on_the_wire))
    return rows


def _interval_s(direction: Direction) -> float:
    """Between packets that take half of the rate."""
    return 2 * PACKET_BYTES / direction.rate_bytes_per_s


def radio_table(count: int) -> dict[str, list[tuple[float, float]]]:
    """Published and emulated median round trips in milliseconds, by profile, in the order of the gaps."""
    table = {}
    for name, published in track(MEDIANS_MS.items(), "radio", transient=True):
        network, found = profiles.network(name), []
        for gap, published_ms in zip(GAPS_S, published, strict=True):
            trips_s = virtual_time.run(in_process.probe_s(network, gaps_s(name, gap, count), seed=1))
            found.append((published_ms, 1e3 * statistics.median(trips_s)))
        table[name] = found
    return table


def radio_cells(name: str, cells: Sequence[tuple[float, float]]) -> list[str]:
    worst = max(abs(found / published - 1) for published, found in cells)
    texts = [f"{published:.0f}: {found:.0f}" for published, found in cells]
    return [name, *texts, f"{worst:.0%}", "OVER" if worst > MOST_OFF_RADIO else ""]


def overhead(num_round_trips: int, num_bytes: int) -> dict[str, dict[str, float]]:
    """Round trip and throughput, direct and through a proxy with nothing set, in turns; each the median of its runs."""
    found: dict[str, list[tuple[float, ...]]] = {"direct": [], "proxy": []}
    with proxied.direct() as plain, proxied.proxied("none") as through:
        for _ in range(RUNS):
            for form, running in (("direct", plain), ("proxy", through)):
                with running.connected() as pair:
                    deciles = statistics.quantiles(proxied.round_trips_s(pair, num_round_trips), n=10)
                    rate = proxied.throughput_bytes_per_s(pair, num_bytes)
                    found[form].append((1e3 * deciles[4], 1e3 * deciles[8], rate / 1e6))
    names = ("p50_ms", "p90_ms", "mb_per_s")
    return {
        form: dict(zip(names, map(statistics.median, zip(*runs, strict=True)), strict=True)) for form, runs in found.items()
    }


def overhead_grid(figures: dict[str, dict[str, float]]) -> Grid:
    added_ms = figures["proxy"]["p50_ms"] - figures["direct"]["p50_ms"]
    is_fine = added_ms < MOST_OVERHEAD_MS and figures["proxy"]["mb_per_s"] >= LEAST_MB_PER_S
    rows = [[form, f"{f['p50_ms']:.3f}", f"{f['p90_ms']:.3f}", f"{f['mb_per_s']:.0f}"] for form, f in figures.items()]
    rows.append(["added by the proxy", f"{added_ms:.3f}", "", "" if is_fine else "OVER"])
    title = f"A proxy with nothing set (aims: under {MOST_OVERHEAD_MS} ms a round trip, at least {LEAST_MB_PER_S} MB/s)"
    return Grid(title, ("", "round trip p50, ms", "p90, ms", "MB/s"), rows)


def kept_bytes(num_bytes: int, is_quick: bool) -> dict[str, dict[str, float]]:
    """By toxic: whether every byte arrived, both ways, and how often toxics came or went meanwhile. The short form has only
    all of them at once: each set is a proxy process of its own."""
    figures = {}
    each = {} if is_quick else {str(toxic["type"]): [toxic] for toxic in HARMLESS}
    sets = each | {ALL_TOXICS: list(HARMLESS)}
    for name, toxics in track(sets.items(), "bytes", transient=True):
        both_ways = [toxic | {"stream": stream} for toxic in toxics for stream in ("upstream", "downstream")]
        with proxied.proxied("none") as running:
            is_kept, toggles = proxied.are_bytes_kept(running, both_ways, num_bytes)
        figures[name] = {"is_kept": is_kept, "toggles": toggles, "megabytes_each_way": num_bytes / 1e6}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    sys.setswitchinterval(1e-4)  # else one thread of this process keeps the other from reading the clock for up to 5 ms
    quick = arguments.quick
    networks = [profiles.network(name) for name in (QUICK_NETWORKS if quick else NETWORKS)]
    rows = [r for network in networks for r in rows_in_process(network, 50 if quick else 1000)]
    for network in track(networks, "through the proxy", transient=True):
        rows += rows_through_proxy(network, 30 if quick else 300, 0.5 if quick else 5.0)
    radio = radio_table(20 if quick else 500)
    plain = overhead(100 if quick else 2000, 2**24 if quick else 2**29)
    kept = kept_bytes(2**20 if quick else 2**26, quick)
    tables = {
        "pacing": [
            Grid(f"What was set and what was measured (aim: within {MOST_OFF:.0%})", COLUMNS, [r.cells() for r in rows])
        ],
        "radio": [
            Grid(
                f"Round trip by idle gap, published: emulated, ms (medians; aim: within {MOST_OFF_RADIO:.0%})",
                ("network", *GAPS_S, "worst", ""),
                [radio_cells(name, cells) for name, cells in radio.items()],
            )
        ],
        "proxy": [
            overhead_grid(plain),
            Grid(
                f"Random bytes, {kept[ALL_TOXICS]['megabytes_each_way']:.0f} MB each way at once, while toxics come and go",
                ("toxics", "changes", "arrived unchanged"),
                [[name, f"{f['toggles']:.0f}", "yes" if f["is_kept"] else "NO"] for name, f in kept.items()],
            ),
        ],
    }
    measured = [{name: getattr(r, name) for name in Row.__dataclass_fields__} | {"off": r.off} for r in rows]
    publish_blocks(arguments, tables, {"pacing": measured, "radio": radio, "overhead": plain, "bytes": kept})


if __name__ == "__main__":
    main()
