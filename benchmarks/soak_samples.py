"""What the verifier's process holds at a moment of the soak, and what it must not hold when the devices are gone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capacity_runs import Service
from benchmarks.slope import Slope, slope_of
from benchmarks.soak_behaviour import WAVE_S

ROLLUP = "smaps_rollup"
FDS_SPARE = 4
"""gRPC opens its pollers when the first connection comes, and keeps them."""
WARM_UP_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory in KiB: resident, and of it what is this process's alone. The rest are counts (``processes/service.held_now``)."""

    at_s: float
    rss_kib: int
    uss_kib: int
    fds: int
    threads: int
    sessions: int
    running: int
    waiting: int
    kept: int
    caches: int
    bindings: int
    reused_tokens: int
    tasks: int
    blocks: int
    malloc_kib: int
    passes: int


async def sample(verifier: Service) -> Sample:
    """Of now. Linux alone tells it this way."""
    figures = await verifier.done()
    folder = Path("/proc") / str(verifier.pid)
    memory = memory_kib((folder / ROLLUP).read_text("ascii"))
    counts = {name: int(figures[name]) for name in Sample.__dataclass_fields__ if name in figures and name != "at_s"}
    return Sample(
        at_s=time.monotonic(),
        rss_kib=memory["Rss"],
        uss_kib=memory["Private_Clean"] + memory["Private_Dirty"],
        fds=len(os.listdir(folder / "fd")),
        threads=len(os.listdir(folder / "task")),
        **counts,
    )


def memory_kib(rollup: str) -> dict[str, int]:
    """The figures of a ``smaps_rollup``, whose first line is an address."""
    lines = [line.split() for line in rollup.splitlines()[1:]]
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def left_open(start: Sample, end: Sample) -> list[str]:
    """What the verifier still holds for nobody; ``start`` is of before the first device."""
    held = {
        "sessions": (end.sessions, 0),
        "sessions with a seat": (end.running, 0),
        "sessions that wait": (end.waiting, 0),
        "caches that are not kept": (end.caches - end.kept, 0),
        "tasks": (end.tasks, start.tasks),
        "files and sockets": (end.fds, start.fds + FDS_SPARE),
    }
    return [f"{count} {name}, not {most}" for name, (count, most) in held.items() if count > most]


def settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those behind the warm-up, in which allocators and buffers reach their size."""
    return samples[round(len(samples) * WARM_UP_SHARE) :]


def slope_a_minute(samples: Sequence[Sample], name: str, interval_s: float) -> Slope:
    """How fast a figure grows behind the warm-up. The lags are a whole wave of devices."""
    rest = settled(samples)
    minutes = [sample.at_s / 60 for sample in rest]
    return slope_of(minutes, [getattr(sample, name) for sample in rest], round(2 * WAVE_S / interval_s))
