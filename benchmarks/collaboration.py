"""Do the drafts do work? The real pair at the demo's default emulation, with the real draft and a random one, and cloud alone.

Emulated rows run the production code under the virtual clock and are exact; unshaped rows run over real gRPC and HTTP on
loopback in wall time and are noisy: medians over the same prompts.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from rich.progress import Progress

import cloud_verifier.server
import device_agent.build
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import Bench, Setting, last_event
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from speculation.shaping.profiles import UNSHAPED

NUM_TOKENS, NUM_PROMPTS, NUM_PROMPTS_QUICK = 128, 16, 2
TEMPERATURES = (0.0, 0.8)
VARIANTS = {"real draft": "q4", "random draft": "random"}
COLUMNS = (
    "temperature",
    "draft",
    "tokens a second",
    "cloud alone",
    "ratio",
    "passes a token",
    "acceptance",
    "revoked share",
    "first visible, ms",
    "same text",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting over all prompts, beside the cloud alone."""

    temperature: float
    draft: str
    tokens_per_s: float
    cloud_tokens_per_s: float
    passes_per_token: float
    acceptance: float
    revoked_share: float
    first_visible_ms: float
    is_same_text: bool

    def cells(self) -> list[str]:
        figures = (self.tokens_per_s, self.cloud_tokens_per_s, self.tokens_per_s / self.cloud_tokens_per_s)
        shares = (self.passes_per_token, self.acceptance, self.revoked_share)
        head = [f"{self.temperature}", self.draft, *(f"{x:.2f}" for x in figures), *(f"{x:.2f}" for x in shares)]
        return [*head, f"{self.first_visible_ms:.0f}", "yes" if self.is_same_text else "NO"]


def requests(prompts: Sequence[str], temperature: float, mode: Mode) -> list[StreamRequest]:
    return [
        StreamRequest(prompt, max_tokens=NUM_TOKENS, temperature=temperature, seed=seed, mode=mode)
        for seed, prompt in enumerate(prompts)
    ]


def values(answers: Sequence[DoneEvent], name: str) -> list[float]:
    return [answer.figures[name]["value"] or 0.0 for answer in answers]


def row(temperature: float, draft: str, ours: Sequence[DoneEvent], cloud: Sequence[DoneEvent], is_exact: bool) -> Row:
    """Passes over all tokens, shares as means over answers; rates as the mean of exact times, the median of noisy ones."""
    middle = mean if is_exact else median
    tokens = sum(a.verified_count for a in ours)
    return Row(
        temperature,
        draft,
        middle(values(ours, "tokens_per_s")),
        middle(values(cloud, "tokens_per_s")),
        sum(a.usage["passes"] for a in ours) / tokens,
        mean(values(ours, "acceptance")),
        mean(values(ours, "revoked_share")),
        middle(values(ours, "first_visible_ms")),
        [a.token_ids for a in ours] == [a.token_ids for a in cloud],
    )


def emulated(prompts_count: int, progress: Progress) -> list[Row]:
    """Under the virtual clock, at the demo's default phone, network and cloud."""
    bench, rows = Bench(Setting()), []
    prompts = bench.prompts(prompts_count)
    task = progress.add_task("emulated", total=len(TEMPERATURES) * (1 + len(VARIANTS)))
    for temperature in TEMPERATURES:
        cloud = bench.run(Setting(), requests(prompts, temperature, Mode.CLOUD))
        progress.advance(task)
        for draft, variant in VARIANTS.items():
            ours = bench.run(Setting(variant=variant), requests(prompts, temperature, Mode.COLLABORATE))
            rows.append(row(temperature, draft, ours, cloud, is_exact=True))
            progress.advance(task)
    return rows


async def unshaped(prompts: Sequence[str], progress: Progress) -> list[Row]:
    """In wall time over real gRPC, nothing emulated; cloud and collaborative answers take turns."""
    rows = []
    task = progress.add_task("unshaped", total=len(TEMPERATURES) * len(VARIANTS) * len(prompts))
    async with cloud_verifier.server.serve(VerifierConfig(port=0, cloud=UNSHAPED)) as verifier:
        for draft, variant in VARIANTS.items():
            agent = device_agent.build.build_agent(AgentConfig(verifier=verifier.target, variant=variant))
            async with agent:
                await last_event(agent, StreamRequest(prompts[0], max_tokens=4))
                for temperature in TEMPERATURES:
                    cloud, ours = [], []
                    for alone, both in zip(
                        requests(prompts, temperature, Mode.CLOUD),
                        requests(prompts, temperature, Mode.COLLABORATE),
                        strict=True,
                    ):
                        cloud.append(await last_event(agent, alone))
                        ours.append(await last_event(agent, both))
                        progress.advance(task)
                    rows.append(row(temperature, draft, ours, cloud, is_exact=False))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    count = NUM_PROMPTS_QUICK if arguments.quick else NUM_PROMPTS
    with Progress(transient=True) as progress:
        shaped = emulated(count, progress)
        prompts = Bench(Setting()).prompts(count)
        measured = asyncio.run(unshaped(prompts, progress))
    titles = (
        "Emulated: a 0.9B draft on the default phone, 60 ms round trip, a 70B full model (virtual clock, exact)",
        "Measured: the bundled pair itself, unshaped, on loopback (wall clock, medians)",
    )
    grids = [Grid(title, COLUMNS, [r.cells() for r in rows]) for title, rows in zip(titles, (shaped, measured), strict=True)]
    publish(
        arguments,
        "collaboration",
        grids,
        {"emulated": [as_json(r) for r in shaped], "measured": [as_json(r) for r in measured]},
    )


def as_json(r: Row) -> dict[str, object]:
    return {name: getattr(r, name) for name in Row.__slots__}


if __name__ == "__main__":
    main()
