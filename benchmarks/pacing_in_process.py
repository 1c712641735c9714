"""Round trips and rates of the shaper in process, on whatever clock the running loop has."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from speculation.links.base import Link, LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Node, Verdict, VerdictKind
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import NetworkProfile
from speculation.wire.codec import encoded_size


class FarEnd:
    """The verifier's end of the one stream: what arrived and when, and a place to send from."""

    def __init__(self) -> None:
        self.statistics = LinkStatistics()
        self.arrived: asyncio.Queue[float] = asyncio.Queue()
        self.answers: asyncio.Queue[CloudMessage] = asyncio.Queue()

    async def send(self, message: DeviceMessage) -> None:
        self.arrived.put_nowait(now_s())

    async def receive(self) -> CloudMessage | None:
        return await self.answers.get()

    async def aclose(self) -> None:
        """Nothing is held."""


class _FarEnds:
    def __init__(self) -> None:
        self.link = FarEnd()

    async def connect(self) -> FarEnd:
        return self.link

    async def aclose(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A stream through the radio: the phone's end and the verifier's."""

    phone: Link
    cloud: FarEnd


@asynccontextmanager
async def ends(profile: NetworkProfile, seed: int = 0) -> AsyncIterator[Ends]:
    """A warm stream; everything of its beginning is over."""
    far_ends = _FarEnds()
    async with ShapedConnector(far_ends, profile, seed) as connector:
        phone = await connector.connect()
        await phone.send(draft(1))
        await far_ends.link.arrived.get()
        yield Ends(phone, far_ends.link)


async def delays_s(profile: NetworkProfile, gap_s: float, count: int, is_uplink: bool, seed: int = 0) -> list[float]:
    """One-way delays of small messages, a gap after each arrival. One waits for nothing but itself."""
    found = []
    async with ends(profile, seed) as stream:
        for number in range(2, count + 2):
            await asyncio.sleep(gap_s)
            began_s = now_s()
            if is_uplink:
                await stream.phone.send(draft(number))
                found.append(await stream.cloud.arrived.get() - began_s)
            else:
                stream.cloud.answers.put_nowait(verdict(number))
                await stream.phone.receive()
                found.append(now_s() - began_s)
    return found


async def loaded_delays_s(profile: NetworkProfile, interval_s: float, count: int, is_uplink: bool) -> list[float]:
    """One-way delays of messages at even intervals, which wait for nothing."""
    found = []
    async with ends(profile) as stream:

        async def send(began_s: float) -> None:
            for number in range(count):
                await asyncio.sleep(began_s + number * interval_s - now_s())
                if is_uplink:
                    await stream.phone.send(draft(number + 2))
                else:
                    stream.cloud.answers.put_nowait(verdict(number + 2))

        async with asyncio.TaskGroup() as tasks:
            began_s = now_s()
            tasks.create_task(send(began_s))
            for number in range(count):
                await (stream.cloud.arrived.get() if is_uplink else stream.phone.receive())
                found.append(now_s() - began_s - number * interval_s)
    return found


async def probe_s(profile: NetworkProfile, gaps_s: Sequence[float], seed: int = 0) -> list[float]:
    """Round trips of probes from the verifier to the phone and back, each after its gap without traffic."""
    found = []
    async with ends(profile, seed) as stream:
        for number, gap_s in enumerate(gaps_s, 2):
            await asyncio.sleep(gap_s)
            began_s = now_s()
            stream.cloud.answers.put_nowait(verdict(number))
            await stream.phone.receive()
            await stream.phone.send(draft(number))
            found.append(await stream.cloud.arrived.get() - began_s)
    return found


async def rates_bytes_per_s(profile: NetworkProfile, num_windows: int, window_s: float, is_uplink: bool) -> list[float]:
    """Bytes a second, framing included, in windows of a direction that has always more to send."""
    message = draft(1) if is_uplink else verdict(1)
    size = encoded_size(message) + round(profile.overhead_bytes)
    direction = profile.uplink if is_uplink else profile.downlink
    num_messages = int((num_windows + 1) * window_s * direction.rate_bytes_per_s / size) + 1
    arrivals: list[float] = []
    async with ends(profile) as stream:
        for number in range(num_messages):
            if is_uplink:
                await stream.phone.send(draft(number + 2))
            else:
                stream.cloud.answers.put_nowait(verdict(number + 2))
        for _ in range(num_messages):
            if is_uplink:
                arrivals.append(await stream.cloud.arrived.get())
            else:
                await stream.phone.receive()
                arrivals.append(now_s())
    return windowed(arrivals, size, num_windows, window_s)


def windowed(arrivals_s: Sequence[float], size: int, num_windows: int, window_s: float) -> list[float]:
    """Arrivals of equal size as a rate in each of so many windows, from the first arrival on."""
    counts = [0] * num_windows
    for arrival_s in arrivals_s[1:]:
        index = int((arrival_s - arrivals_s[0]) / window_s)
        if index < num_windows:
            counts[index] += 1
    return [count * size / window_s for count in counts]


def weighing(profile: NetworkProfile, size: int) -> NetworkProfile:
    """The same network, on which a small message weighs about ``size`` bytes: fewer messages fill it."""
    return dataclasses.replace(profile, overhead_bytes=size - encoded_size(draft(2)))


def draft(number: int) -> Draft:
    """A drafted token as small as messages are."""
    return Draft((Node(number, 0, 7, root_position=5),), known=5)


def verdict(start: int) -> Verdict:
    return Verdict(start, 0, 0, 42, VerdictKind.DECODED)


def now_s() -> float:
    return asyncio.get_running_loop().time()
