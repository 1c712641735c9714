"""A verifier under the virtual clock: every pass takes the same time, and it is noted when it began and with how many rows."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from cloud_verifier.companion import Companion
from cloud_verifier.live import LiveSession
from cloud_verifier.verification import Verifier
from speculation.engines.base import Chunk, Engine
from speculation.engines.runner import EngineRunner
from speculation.links.base import Link
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import CloudMessage, Open
from speculation.shaping import virtual_time
from speculation.tenants import Limits, Tenant
from tests.cloud_verifier.doubles import IDENTITY, SELF_TEST, WatchedEngine, settings

PASS_S = 0.03125
"""A power of two: times add up exactly."""


class TimedEngine(WatchedEngine):
    """Each step takes ``step_s``, whatever is in it. ``began_s`` holds when they began."""

    def __init__(self, num_slots: int = 8, step_s: float = PASS_S) -> None:
        super().__init__(num_slots)
        self.began_s: list[float] = []
        self._step_s = step_s
        self._charge_s = 0.0

    def extend(self, chunks: Sequence[Chunk]) -> np.ndarray:
        self.began_s.append(now_s())
        self._charge_s += self._step_s
        return super().extend(chunks)

    def take_charge_s(self) -> float:
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the verifier, and when it came."""

    at_s: float
    message: CloudMessage


class As:
    """The verifier as one tenant sees it."""

    def __init__(self, verifier: Verifier, tenant: Tenant) -> None:
        self._verifier = verifier
        self._tenant = tenant

    def attach(self, message: Open) -> LiveSession:
        return self._verifier.attach(message, self._tenant)


def connector_of(verifier: Verifier, name: str, **limits) -> MemoryConnector:
    return MemoryConnector(As(verifier, Tenant(name, Limits(**limits))))


def now_s() -> float:
    return asyncio.get_running_loop().time()


def virtually(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """The test under the virtual clock, from time 0."""

    @functools.wraps(test)
    def run(*arguments, **named) -> None:
        virtual_time.run(test(*arguments, **named))

    return run


@asynccontextmanager
async def running(
    engine: TimedEngine | None = None, draft: Engine | None = None, draft_length: int = 0, **changes
) -> AsyncIterator[tuple[TimedEngine, Verifier, MemoryConnector]]:
    """A verifier whose engines compute inline; ``draft`` is a companion's."""
    engine, config = engine or TimedEngine(), settings(**changes)
    companion = None if draft is None else Companion(EngineRunner(draft), draft_length, config.max_rows)
    verifier = Verifier(EngineRunner(engine), IDENTITY, SELF_TEST, config, companion)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        try:
            yield engine, verifier, MemoryConnector(verifier)
        finally:
            await verifier.drain(0)
            verifier.stop()


async def follow(link: Link) -> list[Received]:
    """Every message up to an orderly end, with its time."""
    messages = []
    while (message := await link.receive()) is not None:
        messages.append(Received(now_s(), message))
    return messages
