"""Is collaboration slower than the cloud alone in wall time, nothing emulated? Verifier and agent in processes of their own.

    python -m benchmarks.wall_clock [--quick] [--rounds N] [--json FILE] [--fill README.md]

Real gRPC and HTTP on loopback. Once each service has a core of its own, once both share one. The reader is on the agent's core,
as an app is on the phone, and only collects bytes: what an app does with the events is its own affair. All figures are the
agent's own, those of its ``done`` event: what HTTP adds to a reader's first token is not in them (``kept_connection.py``).

Cloud and collaborative answers to the same prompt take turns, either first, so that drift of the machine meets both alike;
rates are medians over prompts and rounds, and the ratio is the median of each pair's own ratio, with its 95 % interval by the
bootstrap (Efron, 1979) over prompts, each drawn with all its pairs: rounds repeat a text and are no further texts, so that
intervals over pairs would be too narrow. Every round starts the services anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from speculation.engines.package import load_pair

EACH, SHARED = "one each", "one shared"
NUM_ROUNDS = 4
NUM_RESAMPLES = 10_000
DONE = re.compile(rb"^event: done\r?\ndata: (.*)$", re.MULTILINE)
TEMPERATURES = (0.0, 0.8)
DRAFTS = {"real draft": "q4", "random draft": "random"}
COLUMNS = (
    "cores",
    "temperature",
    "draft",
    "tokens a second",
    "cloud alone",
    "ratio (95 %)",
    "worst ratio",
    "passes a token",
    "first visible, ms",
    "cloud alone",
)


Answer = dict[str, float]
"""Figures of one answer, by name."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured in a round, and on which layouts of cores."""

    num_tokens: int = 128
    num_prompts: int = 16
    layouts: tuple[str, ...] = (EACH, SHARED)


QUICK = Size(16, 1, (SHARED,))


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: a draft at a temperature, on a layout of cores."""

    cores: str
    draft: str
    temperature: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, which has a number, one after the other."""

    prompt: int
    ours: Answer
    cloud: Answer

    @property
    def ratio(self) -> float:
        return self.ours["tokens_per_s"] / self.cloud["tokens_per_s"]


@dataclass(frozen=True, slots=True)
class Row:
    """One draft at one temperature on one layout of cores."""

    cores: str
    temperature: float
    draft: str
    tokens_per_s: float
    cloud_tokens_per_s: float
    ratio: float
    ratio_interval: tuple[float, float]
    worst_ratio: float
    passes_per_token: float
    first_visible_ms: float
    cloud_first_visible_ms: float

    def cells(self) -> list[str]:
        rates = (self.tokens_per_s, self.cloud_tokens_per_s)
        low, high = self.ratio_interval
        shares = (self.worst_ratio, self.passes_per_token)
        firsts = (self.first_visible_ms, self.cloud_first_visible_ms)
        head = [self.cores, f"{self.temperature}", self.draft, *(f"{x:.0f}" for x in rates)]
        ratio = f"{self.ratio:.3f} ({low:.3f} to {high:.3f})"
        return [*head, ratio, *(f"{x:.2f}" for x in shares), *(f"{x:.1f}" for x in firsts)]


@asynccontextmanager
async def service(core: int | None, *arguments: str) -> AsyncIterator[str]:
    """An ``outrider`` service on one core, or on any; yields the address that it says it is on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outrider", *arguments, "--port", "0"), stderr=asyncio.subprocess.PIPE
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        assert process.stderr is not None
        async for line in process.stderr:
            if found := re.search(r"(?:verifier|agent) on (\S+)", line.decode()):
                yield found.group(1)
                return
        raise RuntimeError(f"outrider {arguments[0]} ended before it was up")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def answer(url: str, prompt: str, temperature: float, mode: Literal["cloud", "collaborate"], num_tokens: int) -> Answer:
    """The figures of the ``done`` event. Raises ``RuntimeError`` where the stream ends without one."""
    asked = {"prompt": prompt, "max_tokens": num_tokens, "temperature": temperature, "seed": 1, "mode": mode}
    found = DONE.search(await post(url, "/v1/stream", json.dumps(asked).encode()))
    if found is None:
        raise RuntimeError(f"an answer in mode {mode} ended without a done event")
    return {name: figure["value"] or 0.0 for name, figure in json.loads(found.group(1))["figures"].items()}


async def post(url: str, path: str, body: bytes) -> bytes:
    """All that comes back. HTTP/1.0, where a stream is not cut into chunks and ends with its connection."""
    address = urlsplit(url)
    headers = {"Host": address.netloc, "Content-Type": "application/json", "Content-Length": len(body)}
    head = f"POST {path} HTTP/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(head.encode() + body)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def pair(url: str, number: int, prompt: str, temperature: float, is_cloud_first: bool, num_tokens: int) -> Pair:
    if is_cloud_first:
        cloud = await answer(url, prompt, temperature, "cloud", num_tokens)
        return Pair(number, await answer(url, prompt, temperature, "collaborate", num_tokens), cloud)
    ours = await answer(url, prompt, temperature, "collaborate", num_tokens)
    return Pair(number, ours, await answer(url, prompt, temperature, "cloud", num_tokens))


async def one_round(
    number: int, cores: str, layout: tuple[int, int], size: Size, found: dict[Case, list[Pair]], progress: Progress
) -> None:
    """All drafts at all temperatures, added to ``found``."""
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts[: size.num_prompts]]
    os.sched_setaffinity(0, {layout[1]})
    async with service(layout[0], "verifier") as target:
        for draft, variant in DRAFTS.items():
            async with service(layout[1], "agent", "--verifier", target, "--variant", variant) as url:
                await answer(url, prompts[0], 0.0, "collaborate", size.num_tokens)
                for temperature in TEMPERATURES:
                    task = progress.add_task(f"round {number}, {cores}, {draft}, temperature {temperature}", total=len(prompts))
                    pairs = found.setdefault(Case(cores, draft, temperature), [])
                    for index, prompt in enumerate(prompts):
                        is_cloud_first = (number + index) % 2 == 1
                        pairs.append(await pair(url, index, prompt, temperature, is_cloud_first, size.num_tokens))
                        progress.advance(task)
                    progress.remove_task(task)


def interval(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The 95 % interval of the median of their ratios, by the bootstrap's percentiles. Each prompt has as many pairs as the
    next."""
    by_prompt = np.array([[p.ratio for p in pairs if p.prompt == prompt] for prompt in sorted({p.prompt for p in pairs})])
    drawn = np.random.default_rng(1).integers(0, len(by_prompt), (NUM_RESAMPLES, len(by_prompt)))
    medians = np.median(by_prompt[drawn].reshape(NUM_RESAMPLES, -1), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def row(case: Case, pairs: Sequence[Pair]) -> Row:
    ratios = [p.ratio for p in pairs]

    def middle(answers: Sequence[Answer], name: str) -> float:
        return median(a[name] for a in answers)

    ours, cloud = [p.ours for p in pairs], [p.cloud for p in pairs]
    return Row(
        case.cores,
        case.temperature,
        case.draft,
        middle(ours, "tokens_per_s"),
        middle(cloud, "tokens_per_s"),
        median(ratios),
        interval(pairs),
        min(ratios),
        middle(ours, "passes_per_token"),
        middle(ours, "first_visible_ms"),
        middle(cloud, "first_visible_ms"),
    )


async def measure(size: Size, num_rounds: int) -> list[Row]:
    cores = sorted(os.sched_getaffinity(0))
    layouts = {EACH: (cores[0], cores[-1]), SHARED: (cores[0], cores[0])}
    layouts = {name: layouts[name] for name in size.layouts if len(cores) > 1 or name == SHARED}
    found: dict[Case, list[Pair]] = {}
    with Progress(transient=True) as progress:
        for name, layout in layouts.items():
            for number in range(1, num_rounds + 1):
                await one_round(number, name, layout, size, found, progress)
    return [row(case, pairs) for case, pairs in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often all of it is measured ({NUM_ROUNDS})")
    arguments = parser.parse_args()
    size, usual_rounds = (QUICK, 1) if arguments.quick else (Size(), NUM_ROUNDS)
    num_rounds = usual_rounds if arguments.rounds is None else arguments.rounds
    if num_rounds < 1:
        parser.error(f"--rounds must be at least 1, not {num_rounds}")
    found = asyncio.run(measure(size, num_rounds))
    title = (
        f"Measured, wall clock: the bundled pair, unshaped, each service a process ({size.num_tokens} tokens, medians of"
        f" {num_rounds} rounds of {size.num_prompts} prompts)"
    )
    publish(arguments, "wall-clock", [Grid(title, COLUMNS, [r.cells() for r in found])], [asdict(r) for r in found])


if __name__ == "__main__":
    main()
