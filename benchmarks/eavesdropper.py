"""Who watches the line and cannot read it: sizes and times of messages, and the guess which prompt they are an answer to.

The guess is a nearest neighbour's: the watcher has asked every prompt itself, with other seeds, and takes that whose messages
were most like those it sees. It sees times as the phone's own radio does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from speculation.links.base import Connector, Link, LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage
from speculation.wire.padding import Padder

NUM_SLOTS, SLOT_S = 400, 0.02
"""What the watcher compares: bytes each way in slices of time from the first message on."""

LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Seen:
    """One message: when it passed, on the loop's clock, which way, and how large it was."""

    at_s: float
    is_up: bool
    num_bytes: int


class Tap:
    """A connector whose streams are watched; all that passed is in ``seen``. Put it beneath the cover, above a network."""

    def __init__(self, connector: Connector) -> None:
        self.seen: list[Seen] = []
        self._connector = connector

    async def __aenter__(self) -> Self:
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._connector.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._connector.__aexit__(kind, error, traceback)

    async def connect(self) -> Link:
        return _TappedLink(await self._connector.connect(), self.seen)

    async def aclose(self) -> None:
        await self._connector.aclose()


class _TappedLink:
    def __init__(self, link: Link, seen: list[Seen]) -> None:
        self._link = link
        self._seen = seen
        self._up, self._down = Padder(), Padder()

    @property
    def statistics(self) -> LinkStatistics:
        return self._link.statistics

    async def send(self, message: DeviceMessage) -> None:
        self._saw(True, self._up.size(message))
        await self._link.send(message)

    async def receive(self) -> CloudMessage | None:
        message = await self._link.receive()
        if message is not None:
            self._saw(False, self._down.size(message))
        return message

    async def aclose(self) -> None:
        await self._link.aclose()

    def _saw(self, is_up: bool, num_bytes: int) -> None:
        self._seen.append(Seen(asyncio.get_running_loop().time(), is_up, num_bytes))


def features(seen: Sequence[Seen]) -> NDArray[np.float64]:
    """What a watcher compares, of one answer: bytes and messages each way, slice by slice, and how long it took."""
    began_s = seen[0].at_s
    counts = np.zeros((NUM_SLOTS, 4))
    for message in seen:
        slot = min(round((message.at_s - began_s) / SLOT_S), NUM_SLOTS - 1)
        counts[slot, 2 * message.is_up] += message.num_bytes
        counts[slot, 2 * message.is_up + 1] += 1
    return np.append(np.cumsum(counts, axis=0).ravel(), seen[-1].at_s - began_s)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer that was watched, and which prompt it answers."""

    prompt: int
    seen: Sequence[Seen]


def accuracy(samples: Sequence[Sequence[Sample]]) -> float:
    """Share of answers whose prompt is guessed right. ``samples`` are lots; each in turn is guessed from all the others.

    Where several are equally near, the share of them that is right counts.
    """
    shares = []
    for held_out, lot in enumerate(samples):
        known = [sample for number, other in enumerate(samples) if number != held_out for sample in other]
        shares += _guessed(known, lot)
    return sum(shares) / len(shares)


def _guessed(known: Sequence[Sample], heard: Sequence[Sample]) -> list[float]:
    known_features = np.array([features(sample.seen) for sample in known])
    prompts = np.array([sample.prompt for sample in known])
    spread = known_features.std(axis=0)
    scale = np.where(spread > LEAST_SPREAD, spread, np.inf)
    shares = []
    for sample in heard:
        distances = np.abs((known_features - features(sample.seen)) / scale).sum(axis=1)
        nearest = distances <= distances.min() + LEAST_SPREAD
        shares.append(float(np.mean(prompts[nearest] == sample.prompt)))
    return shares
