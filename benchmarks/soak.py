"""Whether a verifier stays what it is while devices come, go, cut and cancel for half an hour.

    python -m benchmarks.soak [--minutes 30] [--devices 64] [--quick] [--json FILE] [--fill docs/benchmarks.md] [--plot FILE]

The production verifier in a process of its own, real gRPC, and replay devices in another (``processes/devices.py``); what each
session does is drawn from ``--seed`` (``soak_behaviour.py``). There are more devices than seats and places to wait in every
second minute. Every text is compared with plain decoding's, and the verifier's memory and counts are read every few seconds.

Exits with 1 where a text differs, a session does not end as it was asked to, or something is left open. Linux alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks.report import add_arguments, picture, publish
from benchmarks.soak_report import faults, grids
from benchmarks.soak_run import Setting, soak
from benchmarks.soak_samples import ROLLUP

MINUTES, DEVICES, INTERVAL_S = 30.0, 64, 5.0
SLOTS, MAX_QUEUED, MAX_KEPT = 48, 8, 16
QUICK = Setting(seconds=0.8, devices=4, slots=2, max_queued=1, max_kept=1, interval_s=0.5, seed=0, run_drafts="all")


def setting_of(arguments: argparse.Namespace) -> Setting:
    if arguments.quick:
        return QUICK
    size = (arguments.devices, arguments.slots, arguments.max_queued, arguments.max_kept)
    return Setting(60 * arguments.minutes, *size, interval_s=INTERVAL_S, seed=arguments.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"seats at the verifier ({SLOTS})")
    parser.add_argument("--max-queued", type=int, default=MAX_QUEUED)
    parser.add_argument("--max-kept", type=int, default=MAX_KEPT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw memory and sessions over time (extra plot)")
    arguments = parser.parse_args()
    if not (Path("/proc/self") / ROLLUP).exists():
        print("left out: what a process holds is read from Linux's /proc")
        return
    outcome = asyncio.run(soak(setting_of(arguments)))
    publish(arguments, "soak", grids(outcome, judges_growth=not arguments.quick), outcome.to_json())
    if arguments.plot:
        from benchmarks import plots

        plots.soak(outcome.samples, arguments.plot)
    if found := faults(outcome):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
