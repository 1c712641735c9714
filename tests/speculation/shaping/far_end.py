"""The far end of a shaped link as a test sees it, and networks whose delays add up exactly."""

import asyncio
import dataclasses

from speculation.links.base import LinkStatistics
from speculation.protocol.messages import (
    CloudMessage,
    DeviceMessage,
    Draft,
    Node,
    Verdict,
    VerdictKind,
)
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector

# 60 ms a round trip in parts that binary fractions hold exactly, and no limit on the rate.
DELAYS = dataclasses.replace(
    profiles.network("none"), name="delays", uplink_delay_s=34 / 1024, downlink_delay_s=26 / 1024, overhead_bytes=0
)
RATES = dataclasses.replace(DELAYS, uplink_rate_bytes_per_s=1024, downlink_rate_bytes_per_s=4096, overhead_bytes=88)
ROUND_TRIP_S = 60 / 1024


def draft(number: int) -> Draft:
    return Draft((Node(number, 0, 7, root_position=5),), known=5)


def verdict(start: int) -> Verdict:
    return Verdict(start, 0, 0, 42, VerdictKind.DECODED)


def now_s() -> float:
    return asyncio.get_running_loop().time()


class FarEnd:
    """The inner link as a test sees it: what arrived and when, and a place to answer from."""

    def __init__(self) -> None:
        self.statistics = LinkStatistics()
        self.arrived: list[tuple[float, DeviceMessage]] = []
        self.answers: asyncio.Queue[CloudMessage | Exception | None] = asyncio.Queue()
        self.send_error: Exception | None = None
        self.echoes = False
        self.closed_at_s: float | None = None

    async def send(self, message: DeviceMessage) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.arrived.append((now_s(), message))
        if self.echoes:
            self.answers.put_nowait(verdict(len(self.arrived)))

    async def receive(self) -> CloudMessage | None:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        if self.closed_at_s is None:
            self.closed_at_s = now_s()


class FarEnds:
    """The inner connector: hands out far ends, or refuses."""

    def __init__(self) -> None:
        self.links: list[FarEnd] = []
        self.error: Exception | None = None
        self.closings = 0

    async def connect(self) -> FarEnd:
        if self.error is not None:
            raise self.error
        self.links.append(FarEnd())
        return self.links[-1]

    async def aclose(self) -> None:
        self.closings += 1


async def begin(link, far_end):
    """The first message of a stream, well before anything is timed."""
    await link.send(draft(99))
    await asyncio.sleep(1)
    far_end.arrived.clear()


def with_link(scenario, profile=DELAYS, seed=0):
    """Runs ``scenario(link, far_end)`` on a stream that has begun, in virtual time."""

    async def main():
        far_ends = FarEnds()
        async with ShapedConnector(far_ends, profile, seed) as connector:
            link = await connector.connect()
            await begin(link, far_ends.links[0])
            return await scenario(link, far_ends.links[0])

    return virtual_time.run(main())
