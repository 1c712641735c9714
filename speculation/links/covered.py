"""A link under cover: its ``Open`` asks for padding, and its messages leave on a tick (``speculation/protocol/cover.py``).

The outermost of the links: a tick is kept where a message leaves the device, before any network that is played. Whoever reads
from here sees no message that says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from speculation.errors import LinkError
from speculation.links.base import Connector, Link, LinkStatistics
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.protocol.fillers import FILLER_UP, is_filler
from speculation.protocol.messages import CloudMessage, DeviceMessage, Finished, Open, Opened

_log = logging.getLogger(__name__)


class CoveredConnector:
    """Opens links under one cover. It owns their ticks: enter it before the first ``connect``; leaving it closes everything.

    Without a cover it only keeps away what a verifier says for no other reason than its own tick.
    """

    def __init__(self, connector: Connector, cover: Cover) -> None:
        self.cover = cover
        self._connector = connector
        self._links: set[CoveredLink] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._inner = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._inner.enter_async_context(self._connector)
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        try:
            await self.aclose()
        finally:
            if tasks is not None:  # not told of the body's error, which it would wrap in a group
                await tasks.__aexit__(None, None, None)
            await self._inner.aclose()

    async def connect(self) -> Link:
        """A new stream. Raises what the inner connector raises."""
        if self._tasks is None:
            raise LinkError("the covered connector is not open: use it inside its 'async with'")
        link = CoveredLink(await self._connector.connect(), self.cover)
        if self.cover.tick_ms:
            self._links.add(link)
            self._tasks.create_task(link.run()).add_done_callback(lambda _: self._links.discard(link))
        return link

    async def aclose(self) -> None:
        """End every tick and close what is beneath. Safe to call twice."""
        for link in self._links:
            link.end()
        await self._connector.aclose()


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A message that waits for its tick."""

    message: DeviceMessage
    has_left: asyncio.Future[None]


class CoveredLink:
    """One stream under cover. With a tick ``run`` must be running, and ``send`` waits until its message has left."""

    def __init__(self, link: Link, cover: Cover) -> None:
        self._link = link
        self._cover = cover
        self._turns: deque[_Turn] = deque()
        self._has_begun = asyncio.Event()
        self._is_over = asyncio.Event()

    @property
    def statistics(self) -> LinkStatistics:
        return self._link.statistics

    async def send(self, message: DeviceMessage) -> None:
        """``Open`` leaves at once and begins the tick, all else leaves on it. What comes after the end goes the inner link's
        way, which knows whether to drop it; raises what that raises."""
        if isinstance(message, Open):
            await self._begin(message if self._cover == UNCOVERED else replace(message, cover=self._cover))
        elif not self._cover.tick_ms or self._is_over.is_set():
            await self._link.send(message)
        else:
            await self._at_its_turn(message)

    async def receive(self) -> CloudMessage | None:
        """The next message that says something; see ``Link.receive``."""
        while True:
            try:
                message = await self._link.receive()
            except Exception:  # whatever it is, the stream is over
                self.end()
                raise
            if message is None or isinstance(message, Finished):
                self.end()
            elif isinstance(message, Opened):
                self._compare(message.cover)
            if message is None or not is_filler(message):
                return message

    async def aclose(self) -> None:
        self.end()
        await self._link.aclose()

    def end(self) -> None:
        """No message leaves from here on by itself; those that wait for a tick are dropped, as behind any stream's end."""
        self._is_over.set()
        self._has_begun.set()
        for turn in self._turns:
            if not turn.has_left.done():
                turn.has_left.set_result(None)

    async def run(self) -> None:
        """One message a tick, until the stream is over."""
        try:
            await self._has_begun.wait()
            began_s = _now_s()
            while not await self._is_over_by(self._cover.next_tick_s(began_s, _now_s())):
                await self._say()
        finally:
            self.end()

    async def _begin(self, message: Open) -> None:
        try:
            await self._link.send(message)
        except Exception:  # there is no stream: who hangs up had waited for a tick that never comes
            self.end()
            raise
        self._has_begun.set()

    async def _at_its_turn(self, message: DeviceMessage) -> None:
        turn = _Turn(message, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        try:
            await turn.has_left
        finally:
            if turn in self._turns:
                self._turns.remove(turn)

    async def _is_over_by(self, moment_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(moment_s):
                await self._is_over.wait()
        return self._is_over.is_set()

    async def _say(self) -> None:
        turn = self._turns[0] if self._turns else None
        try:
            await self._link.send(FILLER_UP if turn is None else turn.message)
        except Exception as error:  # it belongs to who sends; who listens learns of it from the stream
            if turn is not None and not turn.has_left.done():
                turn.has_left.set_exception(error)
            self.end()
        else:
            self._left(turn)

    def _left(self, turn: _Turn | None) -> None:
        """Its sender may have gone meanwhile; then it is off the queue already."""
        if turn is not None and not turn.has_left.done():
            turn.has_left.set_result(None)
            self._turns.remove(turn)

    def _compare(self, told: Cover) -> None:
        asked = self._cover
        if told.pad_bytes < asked.pad_bytes or told.tick_ms < asked.tick_ms:
            _log.warning("the verifier does not cover what it sends as it was asked to: asked %s, got %s", asked, told)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
