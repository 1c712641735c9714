"""Can a tenant tell by the time of its first token what another tenant asked before? Real gRPC, real clock, the bundled pair.

    python -m benchmarks.prefix_timing [--probes N] [--quick] [--json FILE] [--fill docs/benchmarks.md]

The verifier keeps the caches of texts that ended (``max_kept``). Before each probe the victim asks a prompt of its own; then
somebody asks that prompt, and somebody asks another of the same length that nobody asked before, in a random order. Where the
kept cache is used, the first is quicker. The table says in which share of the pairs it was (0.5: it cannot be told; ties count
half), by how much, and what a watcher could get right who knows the best threshold. The victim's own second ask is the proof
that the measure sees a difference where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.report import Grid, add_arguments, publish
from cloud_verifier.config import VerifierConfig
from cloud_verifier.server import serve
from speculation.engines.package import Pair, load_pair
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession

BLOCK = "prefix-timing"
PROMPT_TOKENS = 256
VICTIM, OTHER = "victim", "other"
KEYS = {VICTIM: "victim-key-of-the-benchmark-0001", OTHER: "other-key-of-the-benchmark-00001"}
COLUMNS = ("who asks the victim's prompt", "probes", "asked before, ms", "new, ms", "quicker", "95 %", "best guess")
NUM_RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Row:
    """What one asker sees: milliseconds to the first token of prompts that the victim asked before, and of new ones."""

    asker: str
    known_ms: tuple[float, ...]
    new_ms: tuple[float, ...]

    @property
    def quicker(self) -> float:
        return float(np.mean(_wins(self.known_ms, self.new_ms)))

    def interval(self) -> tuple[float, float]:
        """By the bootstrap over pairs (Efron, 1979)."""
        wins = _wins(self.known_ms, self.new_ms)
        means = np.random.default_rng(1).choice(wins, (NUM_RESAMPLES, len(wins))).mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        return float(low), float(high)

    @property
    def best_guess(self) -> float:
        """Right answers of who calls every time below the best threshold known; about 0.5 and a little where nothing shows."""
        both = [(ms, 1) for ms in self.known_ms] + [(ms, 0) for ms in self.new_ms]
        labels = np.array([label for _, label in sorted(both)])
        below = np.concatenate(([0], np.cumsum(labels)))
        above = (len(labels) - np.arange(len(labels) + 1)) - (labels.sum() - below)
        return float((below + above).max() / len(labels))

    def cells(self) -> list[str]:
        low, high = self.interval()
        times = [f"{median(taken):.2f}" for taken in (self.known_ms, self.new_ms)]
        return [
            self.asker,
            f"{len(self.new_ms)}",
            *times,
            f"{self.quicker:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{self.best_guess:.2f}",
        ]


def _wins(known_ms: Sequence[float], new_ms: Sequence[float]) -> NDArray[np.float64]:
    known, new = np.asarray(known_ms), np.asarray(new_ms)
    wins: NDArray[np.float64] = (known < new) + 0.5 * (known == new)
    return wins


class Asker:
    """A tenant with a connection of its own."""

    def __init__(self, tenant: str, target: str, pair: Pair) -> None:
        self._connector = GrpcConnector(target, key=KEYS[tenant])
        self._pair, self._tenant, self._number = pair, tenant, 0

    async def ask(self, prompt: Sequence[int]) -> float:
        """Milliseconds from the request to the first token; the text ends in order, so that its cache may be kept."""
        self._number += 1
        name = f"{self._tenant}-{self._number}"
        session = DeviceSession(name, self._pair.identity, prompt, SamplingParameters(), 2, self._pair.full.end_token_ids)
        link = await self._connector.connect()
        first_ms, began_s = 0.0, time.perf_counter()
        try:
            await link.send(session.open())
            while session.finish_reason is None:
                message = await link.receive()
                if message is None:
                    raise RuntimeError("the stream ended without Finished")
                if session.receive(message).tokens and not first_ms:
                    first_ms = (time.perf_counter() - began_s) * 1000
        finally:
            await link.aclose()
        return first_ms

    async def aclose(self) -> None:
        await self._connector.aclose()


async def probed(who: Asker, victim: Asker, chance: random.Random, vocabulary: int, num_probes: int, bar: Progress) -> Row:
    known_ms: list[float] = []
    new_ms: list[float] = []
    for _ in bar.track(range(num_probes), description="probes"):
        known, new = ([chance.randrange(1, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(2))
        await victim.ask(known)
        order = [(known, known_ms), (new, new_ms)]
        chance.shuffle(order)
        for prompt, times in order:
            times.append(await who.ask(prompt))
    name = "the victim itself" if who is victim else "another tenant"
    return Row(name, tuple(known_ms), tuple(new_ms))


async def measure(num_probes: int) -> list[Row]:
    pair, chance = load_pair(), random.Random(5)
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as bar:
        keys = Path(folder) / "keys.toml"
        keys.touch(0o600)
        keys.write_text("".join(f'[[keys]]\ntenant = "{name}"\nkey = "{key}"\n' for name, key in KEYS.items()), "utf-8")
        async with serve(VerifierConfig(port=0, keys=keys, max_kept=4)) as running:
            victim, other = (Asker(name, running.target, pair) for name in (VICTIM, OTHER))
            try:
                size = pair.full.vocabulary_size
                return [await probed(who, victim, chance, size, num_probes, bar) for who in (victim, other)]
            finally:
                await victim.aclose()
                await other.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--probes", type=int, default=200)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(4 if arguments.quick else arguments.probes))
    title = f"Measured: time to the first token of a prompt of {PROMPT_TOKENS} tokens, medians"
    publish(arguments, BLOCK, [Grid(title, COLUMNS, [row.cells() for row in rows])], [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
