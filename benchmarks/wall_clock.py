"""Is collaboration slower than the cloud alone in wall time, nothing emulated? Verifier and agent in processes of their own.

Real gRPC and HTTP on loopback. Once each service has a core of its own, once both share one; the client runs where the kernel
puts it. Cloud and collaborative answers to the same prompt take turns, so that drift of the machine meets both alike; rates are
medians over prompts, and the ratio is the median of each prompt's own ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import last_of
from outrider.client import Client
from speculation.engines.package import load_pair

NUM_TOKENS, NUM_PROMPTS, NUM_PROMPTS_QUICK = 128, 16, 2
TEMPERATURES = (0.0, 0.8)
DRAFTS = {"real draft": "q4", "random draft": "random"}
COLUMNS = (
    "cores",
    "temperature",
    "draft",
    "tokens a second",
    "cloud alone",
    "ratio",
    "worst ratio",
    "passes a token",
    "first visible, ms",
    "cloud alone",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One draft at one temperature on one layout of cores."""

    cores: str
    temperature: float
    draft: str
    tokens_per_s: float
    cloud_tokens_per_s: float
    ratio: float
    worst_ratio: float
    passes_per_token: float
    first_visible_ms: float
    cloud_first_visible_ms: float

    def cells(self) -> list[str]:
        rates = (self.tokens_per_s, self.cloud_tokens_per_s)
        shares = (self.ratio, self.worst_ratio, self.passes_per_token)
        firsts = (self.first_visible_ms, self.cloud_first_visible_ms)
        head = [self.cores, f"{self.temperature}", self.draft, *(f"{x:.0f}" for x in rates)]
        return [*head, *(f"{x:.2f}" for x in shares), *(f"{x:.1f}" for x in firsts)]


@asynccontextmanager
async def service(core: int, *arguments: str) -> AsyncIterator[str]:
    """An ``outrider`` service on one core; yields the address that it says it is on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "outrider", *arguments, "--port", "0"), stderr=asyncio.subprocess.PIPE
    )
    try:
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


async def answer(client: Client, prompt: str, temperature: float, mode: Literal["cloud", "collaborate"]) -> dict[str, float]:
    done = await last_of(client.stream(prompt, max_tokens=NUM_TOKENS, temperature=temperature, seed=1, mode=mode))
    return {name: figure["value"] or 0.0 for name, figure in done.figures.items()}


async def rows(cores: str, layout: tuple[int, int], prompts: Sequence[str], progress: Progress) -> list[Row]:
    found = []
    async with service(layout[0], "verifier") as target:
        for draft, variant in DRAFTS.items():
            async with (
                service(layout[1], "agent", "--verifier", target, "--variant", variant) as url,
                Client(url) as client,
            ):
                await answer(client, prompts[0], 0.0, "collaborate")
                for temperature in TEMPERATURES:
                    found.append(await row(cores, draft, client, prompts, temperature, progress))
    return found


async def row(cores: str, draft: str, client: Client, prompts: Sequence[str], temperature: float, progress: Progress) -> Row:
    task = progress.add_task(f"{cores}, {draft}, temperature {temperature}", total=len(prompts))
    ours, cloud = [], []
    for prompt in prompts:
        cloud.append(await answer(client, prompt, temperature, "cloud"))
        ours.append(await answer(client, prompt, temperature, "collaborate"))
        progress.advance(task)
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(ours, cloud, strict=True)]

    def middle(figures: Sequence[dict[str, float]], name: str) -> float:
        return median(f[name] for f in figures)

    return Row(
        cores,
        temperature,
        draft,
        middle(ours, "tokens_per_s"),
        middle(cloud, "tokens_per_s"),
        median(ratios),
        min(ratios),
        middle(ours, "passes_per_token"),
        middle(ours, "first_visible_ms"),
        middle(cloud, "first_visible_ms"),
    )


async def measure(num_prompts: int) -> list[Row]:
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts[:num_prompts]]
    cores = sorted(os.sched_getaffinity(0))
    layouts = {"one each": (cores[0], cores[-1]), "one shared": (cores[0], cores[0])}
    if len(cores) == 1:
        del layouts["one each"]
    with Progress(transient=True) as progress:
        return [r for name, layout in layouts.items() for r in await rows(name, layout, prompts, progress)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    found = asyncio.run(measure(NUM_PROMPTS_QUICK if arguments.quick else NUM_PROMPTS))
    title = f"Measured, wall clock: the bundled pair, unshaped, each service a process ({NUM_TOKENS} tokens, medians)"
    publish(arguments, "wall-clock", [Grid(title, COLUMNS, [r.cells() for r in found])], [asdict(r) for r in found])


if __name__ == "__main__":
    main()
