"""Do the drafts do work? The real pair at the demo's default emulation, with the real draft and a random one, and cloud alone.

The production code under the virtual clock, so times are exact. Exits with 1 where a text differs. What it costs unshaped, in
wall time: ``wall_clock.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import Bench, Setting
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest

NUM_TOKENS, NUM_PROMPTS = 128, 16
NUM_TOKENS_QUICK, NUM_PROMPTS_QUICK = 16, 1
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


def requests(prompts: Sequence[str], num_tokens: int, temperature: float, mode: Mode) -> list[StreamRequest]:
    return [
        StreamRequest(prompt, max_tokens=num_tokens, temperature=temperature, seed=seed, mode=mode)
        for seed, prompt in enumerate(prompts)
    ]


def values(answers: Sequence[DoneEvent], name: str) -> list[float]:
    return [answer.figures[name]["value"] or 0.0 for answer in answers]


def row(temperature: float, draft: str, ours: Sequence[DoneEvent], cloud: Sequence[DoneEvent]) -> Row:
    """Passes over all tokens; rates and shares as means over answers."""
    tokens = sum(a.verified_count for a in ours)
    return Row(
        temperature,
        draft,
        mean(values(ours, "tokens_per_s")),
        mean(values(cloud, "tokens_per_s")),
        sum(a.usage["passes"] for a in ours) / tokens,
        mean(values(ours, "acceptance")),
        mean(values(ours, "revoked_share")),
        mean(values(ours, "first_visible_ms")),
        [a.token_ids for a in ours] == [a.token_ids for a in cloud],
    )


def emulated(prompts_count: int, num_tokens: int, progress: Progress) -> list[Row]:
    """Under the virtual clock, at the demo's default phone, network and cloud."""
    bench, rows = Bench(Setting()), []
    prompts = bench.prompts(prompts_count)
    task = progress.add_task("emulated", total=len(TEMPERATURES) * (1 + len(VARIANTS)))
    for temperature in TEMPERATURES:
        cloud = bench.run(Setting(), requests(prompts, num_tokens, temperature, Mode.CLOUD))
        progress.advance(task)
        for draft, variant in VARIANTS.items():
            ours = bench.run(Setting(variant=variant), requests(prompts, num_tokens, temperature, Mode.COLLABORATE))
            rows.append(row(temperature, draft, ours, cloud))
            progress.advance(task)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    size = (NUM_PROMPTS_QUICK, NUM_TOKENS_QUICK) if arguments.quick else (NUM_PROMPTS, NUM_TOKENS)
    with Progress(transient=True) as progress:
        rows = emulated(*size, progress)
    title = "Emulated: a 0.9B draft on the default phone, 60 ms round trip, a 70B full model (virtual clock, exact)"
    publish(arguments, "collaboration", [Grid(title, COLUMNS, [r.cells() for r in rows])], [as_json(r) for r in rows])
    if not all(r.is_same_text for r in rows):
        sys.exit("a text differs from the cloud alone's")


def as_json(r: Row) -> dict[str, object]:
    return {name: getattr(r, name) for name in Row.__slots__}


if __name__ == "__main__":
    main()
