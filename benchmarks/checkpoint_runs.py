"""Collaboration with a checkpoint as the full model, run by PyTorch, on the CPU or a GPU: are the texts the same, and how fast?

    python -m benchmarks.checkpoint_runs [--provider cuda] [--grow 2048x32x5632 ...] [--prompts 8] [--json FILE] [--fill PAGE]

Verifier and agent in processes of their own, real gRPC and HTTP, nothing emulated; the draft is the bundled one on the CPU. The
full model is the bundled one, and for each ``--grow`` that model with zeros round its weights (``grown.py``): the same function
at a larger model's price. Each prompt is answered by the cloud alone and in collaboration, either first in turn, behind an
answer of each that is not counted: what a GPU does for the first time is nobody's. Then all are answered at once, in
collaboration.

Exits with 1 where a text differs. Needs the extra ``transformers``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from benchmarks.grown import Shape, grow
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.wall_clock import service
from outrider.client import Client, DoneEvent
from speculation.engines.package import bundled_pair_path, load_pair

BLOCK = "checkpoint-runs"
TEMPERATURES = (0.0, 0.8)
SEED = 7
COLUMNS = ("full model", "temperature", "texts the same", "cloud alone", "collaborating", "ratio", "all at once")


@dataclass(frozen=True, slots=True)
class Row:
    """One model at one temperature; rates are final tokens a second over all prompts."""

    model: str
    temperature: float
    num_texts: int
    num_same: int
    cloud_tokens_per_s: float
    tokens_per_s: float
    together_tokens_per_s: float

    def cells(self) -> list[str]:
        rates = [f"{rate:.0f}" for rate in (self.cloud_tokens_per_s, self.tokens_per_s)]
        ratio, together = self.tokens_per_s / self.cloud_tokens_per_s, f"{self.together_tokens_per_s:.0f}"
        return [self.model, f"{self.temperature}", f"{self.num_same} of {self.num_texts}", *rates, f"{ratio:.2f}", together]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for."""

    prompts: list[str]
    num_tokens: int
    provider: str


Way = Literal["cloud", "collaborate"]


async def answered(client: Client, prompt: str, mode: Way, temperature: float, num_tokens: int) -> tuple[int, ...]:
    """The final tokens. Raises what the client raises."""
    last = None
    async for event in client.stream(prompt, mode=mode, temperature=temperature, seed=SEED, max_tokens=num_tokens):
        last = event
    if not isinstance(last, DoneEvent):
        raise RuntimeError(f"an answer in mode {mode} ended without a done event")
    return tuple(last.token_ids)


async def row(client: Client, model: str, temperature: float, asked: Asked) -> Row:
    async def ask(prompt: str, mode: Way) -> tuple[int, ...]:
        return await answered(client, prompt, mode, temperature, asked.num_tokens)

    ways: tuple[Way, Way] = ("cloud", "collaborate")
    for mode in ways:
        await ask(asked.prompts[0], mode)
    texts: dict[Way, list[tuple[int, ...]]] = {mode: [] for mode in ways}
    spent_s: dict[Way, float] = dict.fromkeys(ways, 0.0)
    for number, prompt in enumerate(asked.prompts):
        for mode in ways if number % 2 == 0 else reversed(ways):
            began_s = time.monotonic()
            texts[mode].append(await ask(prompt, mode))
            spent_s[mode] += time.monotonic() - began_s
    began_s = time.monotonic()
    together = await asyncio.gather(*(ask(prompt, "collaborate") for prompt in asked.prompts))
    spans_s = (*spent_s.values(), time.monotonic() - began_s)
    num_tokens = sum(map(len, texts["cloud"]))
    num_same = sum(text == other == third for text, other, third in zip(*texts.values(), together, strict=True))
    return Row(model, temperature, len(together), num_same, *(num_tokens / span_s for span_s in spans_s))


async def measured(model: str, folder: Path, asked: Asked, progress: Progress) -> list[Row]:
    task = progress.add_task(f"{model}: starting", total=len(TEMPERATURES))
    pair = ("--draft", str(bundled_pair_path() / "draft"), "--full", str(folder))
    async with AsyncExitStack() as stack:
        config = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "agent.toml"
        config.write_text(f"max_streams = {len(asked.prompts)}\n", "utf-8")
        run = ("--provider", asked.provider, "--variant", "transformers")
        target = await stack.enter_async_context(service(None, "verifier", *pair, *run))
        url = await stack.enter_async_context(service(None, "agent", "--verifier", target, "--config", str(config), *pair))
        client = await stack.enter_async_context(Client(url))
        rows = []
        for temperature in TEMPERATURES:
            progress.update(task, description=f"{model}: temperature {temperature}")
            rows.append(await row(client, model, temperature, asked))
            progress.advance(task)
    return rows


async def measure(asked: Asked, shapes: list[Shape]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        rows = await measured("bundled, 5.5 M", bundled_pair_path() / "full", asked, progress)
        for shape in shapes:
            target = Path(folder) / f"{shape.hidden}"
            size = grow(bundled_pair_path() / "full", target, shape)
            rows += await measured(f"grown, {size / 1e9:.2f} B", target, asked, progress)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--grow", type=Shape.parse, nargs="*", default=[], metavar="HxLxF", help="hidden x layers x feed-forward"
    )
    parser.add_argument("--prompts", type=int, default=8)
    arguments = parser.parse_args()
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        print(f"skipped: {' and '.join(missing)} not installed (pip install 'outrider[transformers]')")
        return 0
    num_prompts, num_tokens = (1, 8) if arguments.quick else (arguments.prompts, 96)
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts[:num_prompts]]
    rows = asyncio.run(measure(Asked(prompts, num_tokens, arguments.provider), arguments.grow))
    title = (
        f"Measured, wall clock: a checkpoint on PyTorch ({arguments.provider}), final tokens a second, {num_prompts} prompts"
    )
    publish(arguments, BLOCK, [Grid(title, COLUMNS, [found.cells() for found in rows])], [asdict(found) for found in rows])
    return int(any(found.num_same < found.num_texts for found in rows))


if __name__ == "__main__":
    sys.exit(main())
