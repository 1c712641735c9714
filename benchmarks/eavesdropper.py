"""Who watches the line and cannot read it: sizes and times of messages, and the guess which prompt they are an answer to.

The guess is a nearest neighbour's: the watcher has asked every prompt itself, with other seeds, and takes that whose messages
were most like those it sees. It sees times as the phone's own radio does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from speculation.links.base import Connector, Link, LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage
from speculation.wire.padding import Padder

NUM_SLOTS, SLOT_S = 400, 0.02
"""The watcher counts bytes and messages each way in slices of time from the first message on."""

SIZES = (0, 8, 9, 10, 12, 14, 16, 20, 25, 30, 40, 60, 100, 10_000)
"""Edges of the histogram of bytes."""

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


def slices(seen: Sequence[Seen]) -> NDArray[np.float64]:
    """Bytes and messages each way up to each slice of an answer's time, and how long it took."""
    began_s = seen[0].at_s
    counts = np.zeros((NUM_SLOTS, 4))
    for message in seen:
        slot = min(round((message.at_s - began_s) / SLOT_S), NUM_SLOTS - 1)
        counts[slot, 2 * message.is_up] += message.num_bytes
        counts[slot, 2 * message.is_up + 1] += 1
    return np.append(np.cumsum(counts, axis=0).ravel(), seen[-1].at_s - began_s)


def shapes(seen: Sequence[Seen]) -> NDArray[np.float64]:
    """How many messages, how large and how far apart, each way, whatever their order; and how long it took."""
    parts = [np.array([seen[-1].at_s - seen[0].at_s])]
    for is_up in (True, False):
        sizes = np.array([float(message.num_bytes) for message in seen if message.is_up == is_up] or [0.0])
        gaps_s = np.diff([message.at_s for message in seen if message.is_up == is_up])
        parts += [np.array([len(sizes), sizes.sum()]), _spread(sizes), _spread(gaps_s if len(gaps_s) else np.zeros(1))]
        parts.append(np.histogram(sizes, SIZES)[0] / len(sizes))
    return np.concatenate(parts)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([values.mean(), values.std(), *np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9))])


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
    prompts = np.array([sample.prompt for sample in known])
    near = _distances(slices, known, heard) + _distances(shapes, known, heard)
    shares = []
    for sample, distances in zip(heard, near, strict=True):
        nearest = distances <= distances.min() + LEAST_SPREAD
        shares.append(float(np.mean(prompts[nearest] == sample.prompt)))
    return shares


def _distances(
    features: Callable[[Sequence[Seen]], NDArray[np.float64]], known: Sequence[Sample], heard: Sequence[Sample]
) -> NDArray[np.float64]:
    """Mean distance over features that differ at all among the known, each in units of its spread: [heard, known]."""
    known_features = np.array([features(sample.seen) for sample in known])
    spread = known_features.std(axis=0)
    differs = spread > LEAST_SPREAD
    rows = np.array([features(sample.seen) for sample in heard])
    gaps = np.abs(rows[:, None, differs] - known_features[None, :, differs]) / spread[differs]
    return np.asarray(gaps.sum(axis=2) / max(differs.sum(), 1))
