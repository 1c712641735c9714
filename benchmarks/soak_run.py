"""A run of the soak: the verifier in one process, its devices in another, and samples of the first while both work."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.capacity_runs import Service, service
from benchmarks.soak_samples import Sample, left_open, sample

DRAIN_LOOKS, LOOK_S = 80, 0.25


@dataclass(frozen=True, slots=True)
class Setting:
    """How long, how many devices, and how large the verifier is."""

    seconds: float
    devices: int
    slots: int
    max_queued: int
    max_kept: int
    interval_s: float
    seed: int
    run_drafts: str = "paying"

    @property
    def flags(self) -> tuple[str, ...]:
        queue = ("--max-queued", str(self.max_queued), "--max-kept", str(self.max_kept))
        return (*queue, "--run-drafts", self.run_drafts, "--touch")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``devices`` is what ``processes/soak_devices.Tally`` counted.

    ``start`` and ``end`` are of before the first device and after the last.
    """

    setting: Setting
    start: Sample
    samples: Sequence[Sample]
    end: Sample
    devices: dict[str, Any]

    @property
    def left_open(self) -> list[str]:
        return left_open(self.start, self.end)

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"left_open": self.left_open}


async def soak(setting: Setting) -> Outcome:
    """Raises ``RuntimeError`` where a process fails."""
    async with service(setting.flags, setting.slots) as verifier:
        start = await sample(verifier)
        devices, samples = await _with_devices(setting, verifier)
        end = await _drained(verifier, start)
    return Outcome(setting, start, samples, end, devices)


async def _with_devices(setting: Setting, verifier: Service) -> tuple[dict[str, Any], list[Sample]]:
    flags = {"--count": setting.devices, "--seconds": setting.seconds, "--seed": setting.seed}
    command = (
        "-m",
        "benchmarks.processes.soak_devices",
        verifier.target,
        *(str(part) for flag in flags.items() for part in flag),
    )
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    samples = []
    try:
        async with asyncio.TaskGroup() as group:
            said = group.create_task(process.communicate())
            while not said.done():
                samples.append(await sample(verifier))
                await asyncio.wait({said}, timeout=setting.interval_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError("the devices failed")
    return json.loads(said.result()[0]), samples


async def _drained(verifier: Service, start: Sample) -> Sample:
    """The verifier once it holds nothing any more, else as it is when that takes too long."""
    for _ in range(DRAIN_LOOKS):
        end = await sample(verifier)
        if not left_open(start, end):
            break
        await asyncio.sleep(LOOK_S)
    return end
