"""What each toxic does to one direction of one connection: items with times in, items with times out. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from speculation.shaping.toxics import Toxic

MAX_PIECE_BYTES = 64 * 1024
MIN_PIECE_BYTES = 1024
NOTHING = memoryview(b"")
PIECE_S = 0.01
"""A slow sender's bytes arrive in pieces of so many seconds, not all at the end."""


class Kind(Enum):
    """What travels: bytes, the end of this direction (a half-close), the end of the connection, or its reset."""

    DATA = 0
    END = 1
    CLOSE = 2
    RESET = 3


@dataclass(frozen=True, slots=True)
class Item:
    """Something under way. ``entered_s`` is when it came to the toxics, ``due_s`` when it leaves them."""

    kind: Kind
    entered_s: float
    due_s: float
    data: memoryview = NOTHING


@dataclass(slots=True)
class Memory:
    """What a toxic remembers of a connection when toxics around it change: since when it acts, how much has passed it."""

    toxic: Toxic
    began_s: float
    passed_bytes: int = 0


class Stage(Protocol):
    """A toxic at work. Items come in the order of their times and leave in it. ``cut`` ends the connection by itself."""

    cut: Item | None

    def pass_on(self, item: Item) -> Iterable[Item]: ...


class _Through:
    """Does nothing yet."""

    cut: Item | None = None

    def pass_on(self, item: Item) -> Iterable[Item]:
        return (item,)


class Latency(_Through):
    """Everything comes ``latency`` milliseconds later, more or less by up to ``jitter``; nothing overtakes."""

    def __init__(self, toxic: Toxic, draw: random.Random) -> None:
        self._latency_s, self._jitter_s = toxic.attributes["latency"] / 1e3, toxic.attributes["jitter"] / 1e3
        self._random = draw
        self._last_s = -math.inf

    def pass_on(self, item: Item) -> Iterable[Item]:
        late_s = self._latency_s + (self._random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0)
        self._last_s = max(self._last_s, item.due_s + max(0.0, late_s))
        return (replace(item, due_s=self._last_s),)


class Bandwidth(_Through):
    """A sender of ``rate`` thousand bytes a second."""

    def __init__(self, toxic: Toxic, now_s: float) -> None:
        self._rate_bytes_per_s = toxic.attributes["rate"] * 1000 or math.inf
        self._free_at_s = now_s

    def pass_on(self, item: Item) -> Iterator[Item]:
        for data in pieces(item.data, piece_bytes(self._rate_bytes_per_s)) if item.kind is Kind.DATA else (item.data,):
            self._free_at_s = max(self._free_at_s, item.due_s) + len(data) / self._rate_bytes_per_s
            yield replace(item, due_s=self._free_at_s, data=data)


class Slicer(_Through):
    """Cuts data into slices of ``average_size`` give or take ``size_variation`` bytes, ``delay`` microseconds apart."""

    def __init__(self, toxic: Toxic, draw: random.Random) -> None:
        self._average, self._variation = toxic.attributes["average_size"], toxic.attributes["size_variation"]
        self._delay_s = toxic.attributes["delay"] / 1e6
        self._random = draw
        self._free_at_s = -math.inf

    def pass_on(self, item: Item) -> Iterator[Item]:
        for data in self._slices(item.data) if item.kind is Kind.DATA else (item.data,):
            due_s = max(self._free_at_s, item.due_s)
            self._free_at_s = due_s + self._delay_s
            yield replace(item, due_s=due_s, data=data)

    def _slices(self, data: memoryview) -> Iterator[memoryview]:
        while data:
            size = self._random.randint(self._average - self._variation, self._average + self._variation)
            yield data[:size]
            data = data[size:]


class SlowClose(_Through):
    """The end of the direction comes ``delay`` milliseconds late."""

    def __init__(self, toxic: Toxic) -> None:
        self._delay_s = toxic.attributes["delay"] / 1e3

    def pass_on(self, item: Item) -> Iterable[Item]:
        return (item if item.kind is Kind.DATA else replace(item, due_s=item.due_s + self._delay_s),)


class LimitData(_Through):
    """Closes the connection once ``bytes`` have passed; the rest is dropped."""

    def __init__(self, toxic: Toxic, memory: Memory) -> None:
        self._limit_bytes = toxic.attributes["bytes"]
        self._memory = memory

    def pass_on(self, item: Item) -> Iterator[Item]:
        left = self._limit_bytes - self._memory.passed_bytes
        if item.kind is not Kind.DATA or len(item.data) < left:
            self._memory.passed_bytes += len(item.data)
            yield item
            return
        if left > 0:
            self._memory.passed_bytes += left
            yield replace(item, data=item.data[:left])
        yield replace(item, kind=Kind.CLOSE, data=NOTHING)


class Silence(_Through):
    """Drops all data, and ends the connection after ``timeout`` milliseconds; ``timeout`` with 0 never does.

    An end that comes by itself passes, as in toxiproxy: else a connection that both sides have left would stay for ever.
    """

    def __init__(self, toxic: Toxic, memory: Memory) -> None:
        kind = Kind.RESET if toxic.type == "reset_peer" else Kind.CLOSE
        timeout_s = toxic.attributes["timeout"] / 1e3
        at_s = memory.began_s + timeout_s
        self.cut = Item(kind, at_s, at_s) if timeout_s or kind is Kind.RESET else None

    def pass_on(self, item: Item) -> Iterable[Item]:
        return () if item.kind is Kind.DATA else (item,)


def make_stage(memory: Memory, now_s: float, draw: random.Random) -> Stage:
    """The toxic of ``memory`` at work from now on."""
    toxic = memory.toxic
    match toxic.type:
        case "latency":
            return Latency(toxic, draw)
        case "bandwidth":
            return Bandwidth(toxic, now_s)
        case "slicer":
            return Slicer(toxic, draw)
        case "slow_close":
            return SlowClose(toxic)
        case "limit_data":
            return LimitData(toxic, memory)
        case _:
            return Silence(toxic, memory)


def piece_bytes(rate_bytes_per_s: float) -> int:
    """How large the pieces are in which a sender of that rate hands over a large chunk."""
    return max(MIN_PIECE_BYTES, int(min(rate_bytes_per_s * PIECE_S, MAX_PIECE_BYTES)))


def pieces(data: memoryview, size: int) -> Iterator[memoryview]:
    """The data in pieces of at most ``size`` bytes; no copies."""
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]
