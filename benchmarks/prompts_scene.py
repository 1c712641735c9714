"""Prompts at one verifier, and when the first token of each is there. Production, virtual clock.

The machine is that of ``capacity_settings.py`` with empty caches: a row of a prompt is computed for its own price as soon as a
pass has more of them than hide behind the reading of the weights. Devices are next door and send no drafts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from unittest.mock import patch

from benchmarks.capacity_settings import ACCEPTANCE, FULL_MODEL, HeldCosts, machine
from benchmarks.roofline import HeldContext
from cloud_verifier import scheduling
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassShape
from cloud_verifier.scheduling import Claim
from cloud_verifier.verification import Verifier
from outrider.planning.scene import PROVED
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import VOCABULARY, Acceptance
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Open, Verdict
from speculation.shaping import virtual_time
from speculation.shaping.engine import ShapedEngine
from speculation.shaping.models import parse_model

SEED = 1
NUM_TOKENS = 4
"""Of an answer whose first token is waited for."""
MOST_TOKENS = 3000
"""Of an answer that is being written beside: nobody comes to its end."""


class Order(StrEnum):
    """How prompts of one tenant share the rows of a pass."""

    OURS = "the shortest first"
    ARRIVAL = "in order of arrival"
    SHARED = "all in every pass"


@dataclass(frozen=True, slots=True)
class Crowd:
    """``num_prompts`` whose lengths lie between two bounds, evenly on a logarithmic scale, in a drawn order. ``load`` 0: all at
    once; else they come at drawn moments, so that the machine reads for this share of its time. ``num_writing`` answers are
    being written all the while."""

    name: str
    shortest: int
    longest: int
    num_prompts: int
    load: float = 0.0
    num_writing: int = 0

    def lengths(self) -> list[int]:
        """Tokens of the prompts, in the order in which they come."""
        ratio, last = self.longest / self.shortest, max(1, self.num_prompts - 1)
        lengths = [round(self.shortest * ratio ** (place / last)) for place in range(self.num_prompts)]
        Random(SEED).shuffle(lengths)
        return lengths


@dataclass(frozen=True, slots=True)
class Felt:
    """Milliseconds to the first token of each prompt, how long that was, and milliseconds between tokens of the others."""

    lengths: list[int] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    between_ms: list[float] = field(default_factory=list)


def run(case: tuple[Crowd, Order]) -> Felt:
    """One crowd by one order."""
    crowd, order = case
    with _ordered(order):
        return virtual_time.run(_run(crowd))


@contextmanager
def _ordered(order: Order) -> Iterator[None]:
    """The scheduler without its order of prompts, or with another: the baselines beside it."""
    readers = {Order.ARRIVAL: _by_arrival, Order.SHARED: lambda _: ()}.get(order)
    if readers is None:
        yield
        return
    with patch.object(scheduling, "_readers", readers):
        yield


def _by_arrival(claims: Sequence[Claim]) -> Iterable[list[int]]:
    """All are of one tenant, and sessions stand in the order in which they came."""
    return ([index for index, claim in enumerate(claims) if not claim.is_decoding],)


async def _run(crowd: Crowd) -> Felt:
    lengths = crowd.lengths()
    num_sessions = crowd.num_prompts + crowd.num_writing
    source = Synthetic(Acceptance(ACCEPTANCE), crowd.longest + MOST_TOKENS, 1)
    cost = HeldContext(machine(), parse_model(FULL_MODEL))
    config = VerifierConfig(num_slots=num_sessions, max_sessions=num_sessions, patience=0.0)
    runner = EngineRunner[Engine](ShapedEngine(source.full_engine(num_sessions), cost))
    verifier = Verifier(runner, source.identity, PROVED, config, costs=HeldCosts(cost))
    connector, felt = MemoryConnector(verifier), Felt()
    moments = _moments(crowd, lengths, config.max_rows, cost)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        writing = [tasks.create_task(_write(connector, source, number, felt)) for number in range(crowd.num_writing)]
        await asyncio.sleep(1.0)
        felt.between_ms.clear()
        async with asyncio.TaskGroup() as prompts:
            for number, (length, at_s) in enumerate(zip(lengths, moments, strict=True), crowd.num_writing):
                prompts.create_task(_ask(connector, source, number, length, at_s, felt))
        for task in writing:
            task.cancel()
        verifier.stop()
    return felt


def _moments(crowd: Crowd, lengths: Sequence[int], max_rows: int, cost: HeldContext) -> list[float]:
    """Seconds from the start at which prompts come: at once, or with drawn pauses that make the load."""
    if not crowd.load:
        return [0.0] * len(lengths)
    row_s = HeldCosts(cost).seconds(PassShape(1, max_rows, max_rows)) / max_rows
    mean_s = sum(lengths) / len(lengths) * row_s / crowd.load
    random, now_s, moments = Random(SEED), 0.0, []
    for _ in lengths:
        moments.append(now_s)
        now_s += random.expovariate(1 / mean_s)
    return moments


async def _ask(connector: MemoryConnector, source: Synthetic, number: int, length: int, at_s: float, felt: Felt) -> None:
    await asyncio.sleep(at_s)
    loop = asyncio.get_running_loop()
    began_s, link = loop.time(), await connector.connect()
    await link.send(_open(source, number, length, NUM_TOKENS))
    is_first = True
    while (message := await link.receive()) is not None:
        if isinstance(message, Verdict) and is_first:
            felt.lengths.append(length)
            felt.first_ms.append(1000 * (loop.time() - began_s))
            is_first = False
    await link.aclose()


async def _write(connector: MemoryConnector, source: Synthetic, number: int, felt: Felt) -> None:
    loop, link = asyncio.get_running_loop(), await connector.connect()
    await link.send(_open(source, number, 2, MOST_TOKENS))
    last_s = loop.time()
    while (message := await link.receive()) is not None:
        if isinstance(message, Verdict):
            felt.between_ms.append(1000 * (loop.time() - last_s))
            last_s = loop.time()


def _open(source: Synthetic, number: int, length: int, num_tokens: int) -> Open:
    """A prompt that begins with its number, so that each has another text."""
    prompt = (number // VOCABULARY, number % VOCABULARY, *[0] * (length - 2))
    return Open(f"session {number}", 1, source.identity, prompt, length, SamplingParameters(), num_tokens)
