"""One answer's streams with verifiers: how each is opened, who sends, what is heard, and how it is hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from device_agent.elsewhere import connected
from device_agent.figures import Meter
from device_agent.head_start import HeadStart
from device_agent.sending import Sender, hang_up
from speculation.errors import LinkError, OutriderError
from speculation.links.base import Connector, Link
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import CloudMessage, Open

OPENING_TIMEOUT_S = 60.0
"""A verifier answers ``Open`` at once, also where the session waits for room. One that is stuck may answer gRPC's pings all the
same, for those are answered below it: without an end its device would neither go on alone nor fail."""
SLOWEST_TOKENS_PER_S = 500
"""At which a long prefix gets there: some 10 kbit/s, as on the oldest of mobile networks."""


class Conversation:
    """Of one answer, one stream after the other. ``hear`` is called with each message, and tells whether the answer goes on;
    ``fail`` with what a stream ended by, before it is hung up."""

    def __init__(
        self,
        connector: Connector | None,
        session: DeviceSession,
        sender: Sender,
        meter: Meter,
        head_start: HeadStart,
        hear: Callable[[CloudMessage], bool],
        fail: Callable[[OutriderError], None],
    ) -> None:
        self.opened_s = 0.0
        self._connector = connector
        self._session = session
        self._sender = sender
        self._meter = meter
        self._head_start = head_start
        self._hear = hear
        self._fail = fail

    async def run(self, tasks: asyncio.TaskGroup, opening: Callable[[], Open]) -> None:
        """One stream, until the answer is over. Raises what ends the stream before."""
        link = await connected(self._connector)
        self._head_start.connected()
        self._meter.links.append(link.statistics)
        sending: asyncio.Task[None] | None = None
        try:
            self.opened_s = asyncio.get_running_loop().time()
            message = opening()
            await link.send(message)
            self._head_start.left()
            sending = tasks.create_task(self._sender.run(link))
            await self._listen(link, OPENING_TIMEOUT_S + len(message.prefix) / SLOWEST_TOKENS_PER_S)
        except OutriderError as error:
            self._fail(error)
            raise
        finally:
            if sending is not None:
                sending.cancel()
            await hang_up(link, self._session)

    async def _listen(self, link: Link, opening_timeout_s: float) -> None:
        message = await _first_of(link, opening_timeout_s)
        while self._goes_on(message):
            message = await link.receive()

    def _goes_on(self, message: CloudMessage | None) -> bool:
        if message is None:
            raise LinkError("the verifier closed the stream before the answer was over")
        goes_on = self._hear(message)
        self._sender.wake()
        return goes_on


async def _first_of(link: Link, timeout_s: float) -> CloudMessage | None:
    try:
        async with asyncio.timeout(timeout_s):
            return await link.receive()
    except TimeoutError:
        raise LinkError(f"the verifier did not answer within {timeout_s:.0f} s") from None
