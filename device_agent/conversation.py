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
            await link.send(opening())
            self._head_start.left()
            sending = tasks.create_task(self._sender.run(link))
            await self._listen(link)
        except OutriderError as error:
            self._fail(error)
            raise
        finally:
            if sending is not None:
                sending.cancel()
            await hang_up(link, self._session)

    async def _listen(self, link: Link) -> None:
        goes_on = True
        while goes_on:
            message = await link.receive()
            if message is None:
                raise LinkError("the verifier closed the stream before the answer was over")
            goes_on = self._hear(message)
            self._sender.wake()
