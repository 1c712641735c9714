"""Runs of the capacity benchmark: a verifier in one process, replay devices in another, and what both counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from rich.progress import Progress

WARM_UP_S, WARM_UP_A_DEVICE_S = 1.0, 0.12
LONGEST_WINDOW_S = 60.0
"""Without a token: then something is wrong, and it is not the machine that is slow."""

DEPTH = 8
OURS, ALONE, ONE_ROW, IN_CLOUD = "drafts of devices", "decoding alone", "alone, one-row steps", "speculation in the cloud"
Flags = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class System:
    """How the verifier is started, and how far its devices draft."""

    name: str
    depth: int = 0
    flags: Flags = ()
    temperatures: tuple[float, ...] = (0.0,)


SYSTEMS = (
    System(OURS, DEPTH, temperatures=(0.0, 0.8)),
    System(ALONE, temperatures=(0.0, 0.8)),
    System(ONE_ROW, flags=("--one-row",)),
    System(IN_CLOUD, flags=("--draft-length", "4")),
)
SYSTEMS_QUICK = tuple(replace(system, temperatures=(0.0,)) for system in SYSTEMS[:2])


def at(systems: Sequence[System], temperatures: Collection[float]) -> list[System]:
    """Those of them that are run at one of these temperatures, and at these alone."""
    found = [replace(system, temperatures=tuple([t for t in system.temperatures if t in temperatures])) for system in systems]
    return [system for system in found if system.temperatures]


@dataclass(frozen=True, slots=True)
class Models:
    """More flags of every verifier, and of all devices, that say what is run and on what; none is the bundled pair."""

    verifier: Flags = ()
    devices: Flags = ()


BUNDLED = Models()


@dataclass(frozen=True, slots=True)
class Run:
    """What one system did for some devices within one round. CPU in seconds a second of wall time.

    ``forward_time`` is the share of the time in which a forward was under way: more than its CPU where it waited for a core.
    """

    system: str
    count: int
    temperature: float
    tokens_per_s: float
    passes_per_token: float
    rows_per_pass: float
    forward_cpu: float
    other_cpu: float
    device_cpu: float
    verdicts_per_s: float
    texts: int
    same_texts: int
    forward_time: float = 0.0

    @property
    def ceiling_per_s(self) -> float:
        return self.tokens_per_s / self.forward_cpu

    @property
    def outside_us(self) -> float:
        """CPU of the verifier's process outside the forwards, for each verdict."""
        return 1e6 * self.other_cpu / self.verdicts_per_s


class Service:
    """A verifier in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, target: str) -> None:
        self.target = target
        self.pid = process.pid
        self._process = process

    async def done(self) -> dict[str, float]:
        """What it has done so far, and holds now. Raises ``RuntimeError`` where it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the verifier ended before it was told to")
        return {name: float(value) for name, value in json.loads(line).items()}


@asynccontextmanager
async def service(flags: Flags, slots: int) -> AsyncIterator[Service]:
    command = ("-m", "benchmarks.processes.service", "--slots", str(slots), *flags)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        line = (await process.stdout.readline()).decode().split()
        if not line:
            raise RuntimeError("the verifier ended before it was up")
        yield Service(process, line[-1])
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(
    system: System, verifier: Service, count: int, temperature: float, seconds: float, models: Models = BUNDLED
) -> Run:
    """Devices for a while; twice as long where nothing was written, as on a machine that is busy for a moment. Raises
    ``RuntimeError`` where they fail, or write nothing at all."""
    while True:
        devices, done = await _window(system, verifier, count, temperature, seconds, models)
        if devices["tokens"] and done["passes"]:
            return _run(system, count, temperature, devices, done)
        if seconds > LONGEST_WINDOW_S:
            raise RuntimeError(f"the devices of {system.name} wrote nothing within {seconds:g} s")
        seconds *= 2


async def _window(
    system: System, verifier: Service, count: int, temperature: float, seconds: float, models: Models
) -> tuple[dict[str, float], dict[str, float]]:
    """What devices did for a while, and what the verifier did meanwhile."""
    warm_up_s = WARM_UP_S + count * WARM_UP_A_DEVICE_S
    flags = {
        "--count": count,
        "--seconds": seconds,
        "--warm-up": warm_up_s,
        "--temperature": temperature,
        "--depth": system.depth,
    }
    given = (*(str(part) for flag in flags.items() for part in flag), *models.devices)
    command = ["-m", "benchmarks.processes.devices", verifier.target, *given]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    if (await process.stdout.readline()).strip() != b"begin":
        raise RuntimeError(f"the devices of {system.name} failed")
    before = await verifier.done()
    line = await process.stdout.readline()
    after = await verifier.done()
    await process.wait()
    if not line:
        raise RuntimeError(f"the devices of {system.name} failed")
    return json.loads(line), {name: after[name] - before[name] for name in after}


def _run(system: System, count: int, temperature: float, devices: dict[str, float], done: dict[str, float]) -> Run:
    forward_cpu = (done["forward_s"] + done["draft_forward_s"]) / done["at_s"]
    return Run(
        system=system.name,
        count=count,
        temperature=temperature,
        tokens_per_s=devices["tokens"] / devices["seconds"],
        passes_per_token=done["passes"] / devices["tokens"],
        rows_per_pass=done["rows"] / done["passes"],
        forward_cpu=forward_cpu,
        other_cpu=done["cpu_s"] / done["at_s"] - forward_cpu,
        device_cpu=devices["cpu_s"] / devices["seconds"],
        verdicts_per_s=devices["verdicts"] / devices["seconds"],
        texts=int(devices["texts"]),
        same_texts=int(devices["same_texts"]),
        forward_time=done["forward_wall_s"] / done["at_s"],
    )


async def measure(
    systems: Sequence[System],
    counts: Sequence[int],
    num_rounds: int,
    seconds: float,
    models: Models = BUNDLED,
    a_device_s: float = 0.0,
) -> list[list[Run]]:
    """Runs by round; each counts for so many seconds, and ``a_device_s`` more for each device.

    Where many share a verifier each needs long for a text. A window that is shorter than that holds more ends, and so more
    prompts, of one system than of another, by where their devices happen to be in their texts.
    """
    rounds = []
    # Systems that differ in their devices alone share a verifier.
    verifiers = list(dict.fromkeys(system.flags for system in systems))
    with Progress(transient=True) as progress:
        total = num_rounds * sum(len(system.temperatures) * len(counts) for system in systems)
        task = progress.add_task("capacity", total=total)
        for number in range(num_rounds):
            runs = []
            # Whoever begins is another one in every round.
            for flags in _turned(verifiers, number):
                async with service((*flags, *models.verifier), max(counts)) as verifier:
                    for count, system, temperature in _runs_of(_turned(systems, number), flags, counts):
                        progress.update(task, description=f"round {number + 1}, {system.name}, {count} devices")
                        window_s = seconds + count * a_device_s
                        runs.append(await run(system, verifier, count, temperature, window_s, models))
                        progress.advance(task)
                        # Hours later, or cut off, one wants to know what there was.
                        print(_told(number + 1, runs[-1]), file=sys.stderr, flush=True)
            rounds.append(runs)
    return rounds


def _told(number: int, found: Run) -> str:
    at = f"round {number}: {found.system}, {found.count} devices, temperature {found.temperature:g}"
    return f"{at}: {found.tokens_per_s:.0f} tokens/s, a forward under way {found.forward_time:.2f} of the time"


def _turned(things: Sequence[T], number: int) -> list[T]:
    start = number % len(things)
    return [*things[start:], *things[:start]]


def _runs_of(systems: Sequence[System], flags: Flags, counts: Sequence[int]) -> Iterator[tuple[int, System, float]]:
    """What is compared, systems at one temperature, stands side by side: the machine's speed changes within minutes."""
    temperatures = sorted({temperature for system in systems for temperature in system.temperatures})
    for count, temperature in product(counts, temperatures):
        for system in systems:
            if system.flags == flags and temperature in system.temperatures:
                yield count, system, temperature
