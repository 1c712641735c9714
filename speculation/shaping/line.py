"""What all links of one emulated phone go through: a pipe each way, and the connection that they carry. Times are the loop's.

The network may become another while messages are under way: those arrive as they would have, what comes later goes by the new
figures, and nothing overtakes.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from speculation.errors import LinkError
from speculation.protocol.messages import CloudMessage, DeviceMessage
from speculation.shaping.network import NetworkProfile
from speculation.shaping.pacing import Pipe
from speculation.shaping.profiles import UNSHAPED

T = TypeVar("T")

Answer = CloudMessage | Exception | None
"""What comes down: a message, the orderly end, or the news of a failure."""


@dataclass(frozen=True, slots=True)
class Parcel(Generic[T]):
    """Something under way, and the loop time at which it is there."""

    due_s: float
    content: T


class Line:
    """One pipe each way, and whether the connection that they carry is set up."""

    def __init__(self, profile: NetworkProfile, seed: int) -> None:
        self._profile = profile
        self._seed = seed
        self._up, self._down = profile.pipes(seed, now_s())
        self._turn_up, self._turn_down = asyncio.Lock(), asyncio.Lock()
        self._set_up = asyncio.Lock()
        self._is_warm = False

    @property
    def is_open(self) -> bool:
        """Whether no network is emulated now."""
        return self._profile.name == UNSHAPED

    def become(self, profile: NetworkProfile) -> None:
        """Another network from the next message on, which begins now: its outages and traces count from here."""
        at_s = now_s()
        up, down = profile.pipes(self._seed, at_s)
        up.follow(self._up, at_s)
        down.follow(self._down, at_s)
        self._profile, self._up, self._down = profile, up, down

    async def warm_up(self) -> None:
        """A round trip where the connection is cold, and what holds up a packet without payload before it."""
        async with self._set_up:
            if not (self._is_warm or self.is_open):
                held_s = self._up.held_until(now_s()) - now_s()
                await asyncio.sleep(held_s + self._profile.round_trip_s)
            self._is_warm = True

    async def room_up(self, num_bytes: int) -> None:
        """Wait until the queue of the way up has room: a bounded one makes its sender wait, as TCP would."""
        await self._room(self._up, self._turn_up, num_bytes)

    async def room_down(self, num_bytes: int) -> None:
        """The same on the way down."""
        await self._room(self._down, self._turn_down, num_bytes)

    def cool_down(self, error: BaseException) -> None:
        if isinstance(error, LinkError):
            self._is_warm = False

    def sent(self, message: DeviceMessage | None, num_bytes: int) -> Parcel[DeviceMessage | None]:
        """A message on its way up; None is the closing of the stream."""
        return Parcel(self._release_at(self._up, num_bytes), message)

    def answered(self, content: Answer, num_bytes: int) -> Parcel[Answer]:
        """Something on its way down."""
        return Parcel(self._release_at(self._down, num_bytes), content)

    async def _room(self, pipe: Pipe, turn: asyncio.Lock, num_bytes: int) -> None:
        if math.isinf(pipe.direction.queue_bytes):
            return
        async with turn:
            room_s = pipe.room_at(now_s(), num_bytes + self._overhead_bytes)
            await asyncio.sleep(max(0.0, room_s - now_s()))

    @property
    def _overhead_bytes(self) -> int:
        return round(self._profile.overhead_bytes)

    def _release_at(self, pipe: Pipe, num_bytes: int) -> float:
        return pipe.release_at(now_s(), num_bytes + self._overhead_bytes)


def now_s() -> float:
    return asyncio.get_running_loop().time()
