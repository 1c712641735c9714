"""One stream through an emulated line: straight through while no network is played, and carried from the moment that one is."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from speculation.errors import LinkError
from speculation.links.base import Link, LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage, Open, Opened
from speculation.shaping.line import Answer, Line, Parcel, now_s
from speculation.wire.padding import Padder


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(frozen=True, slots=True)
class Start:
    """How far a stream is when it begins to be carried: what its messages are padded to, whether its first one was sent, and
    whether nobody receives on the inner link any more."""

    up: Padder = field(default_factory=Padder)
    down: Padder = field(default_factory=Padder)
    is_begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_receive: asyncio.Event = field(default_factory=_set)


class CarriedLink:
    """One stream through the radio. ``send`` waits for nothing but room in a bounded queue; ``receive`` gives a message
    when it is due.

    A failure of the inner link reaches ``receive``, and later ``send`` calls, as late as a message would. Statistics are the
    inner link's; here they learn when the last message is there. ``run`` must be running.
    """

    def __init__(self, link: Link, line: Line, start: Start | None = None) -> None:
        start = start or Start()
        self._link = link
        self._line = line
        self._up, self._down = start.up, start.down
        self._outbox: asyncio.Queue[Parcel[DeviceMessage | None]] = asyncio.Queue()
        self._inbox: deque[Parcel[Answer]] = deque()
        self._arrived = asyncio.Event()
        self._is_begun = start.is_begun
        self._may_receive = start.may_receive
        self._has_ended = False
        self._send_failure: Parcel[Answer] | None = None
        self._is_closed = False

    @property
    def statistics(self) -> LinkStatistics:
        return self._link.statistics

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message to the radio; it is sent on its way even if this link is closed behind it. Raises ``LinkError``."""
        if self._is_closed:
            raise LinkError("the link is closed")
        failure = self._send_failure
        if failure is not None and failure.due_s <= now_s() and isinstance(failure.content, Exception):
            raise failure.content
        num_bytes = self._up.size(message)
        await self._line.room_up(num_bytes)
        if self._is_closed:
            raise LinkError("the link is closed")
        parcel = self._line.sent(message, num_bytes)
        self.statistics.arrives_s = parcel.due_s
        self._outbox.put_nowait(parcel)

    async def receive(self) -> CloudMessage | None:
        """The next message that is due. One caller at a time; nothing is lost where it is cancelled."""
        while not (self._inbox and self._inbox[0].due_s <= now_s()):
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._inbox[0].due_s if self._inbox else None):
                    await self._arrived.wait()
        content = self._inbox[0].content
        if isinstance(content, Exception):
            raise content
        if content is not None:  # an end stays, and is given again
            self._inbox.popleft()
        return content

    async def aclose(self) -> None:
        """Close this end at once; the other end learns of it behind the messages under way. Safe to call twice."""
        if not self._is_closed:
            self._outbox.put_nowait(self._line.sent(None, 0))
            self._shut()

    async def abort(self) -> None:
        """Close both ends at once; what is under way is lost."""
        self._shut()
        await self._link.aclose()

    async def run(self) -> None:
        """Carry messages both ways until the close has arrived at the other end; then the inner link is closed."""
        try:
            async with asyncio.TaskGroup() as carriers:
                down = carriers.create_task(self._carry_down())
                await self._carry_up()
                down.cancel()
        finally:
            await self._link.aclose()

    async def _carry_up(self) -> None:
        while (parcel := await self._outbox.get()).content is not None:
            await asyncio.sleep(max(0.0, parcel.due_s - now_s()))
            if self._send_failure is None:
                await self._hand_over(parcel.content)
        await asyncio.sleep(max(0.0, parcel.due_s - now_s()))

    async def _hand_over(self, message: DeviceMessage) -> None:
        try:
            await self._link.send(message)
        except Exception as error:  # whatever it is, it belongs to the caller of this link
            self._line.cool_down(error)
            self._send_failure = self._line.answered(error, 0)
            # Of a stream that is gone the inner ``receive`` tells by itself, in order; of a refusal it may not know.
            if not isinstance(error, LinkError):
                self._deliver(self._send_failure)
        self._is_begun.set()

    async def _carry_down(self) -> None:
        await self._is_begun.wait()  # a stream begins with the phone's first message; before, there is nothing to receive on
        await self._may_receive.wait()
        while not self._has_ended:
            content = await self._next()
            if isinstance(content, CloudMessage):
                await self._line.room_down(self._down.size(content))
            self.came(content)

    async def _next(self) -> Answer:
        try:
            return await self._link.receive()
        except Exception as error:  # as above
            self._line.cool_down(error)
            return error

    def came(self, content: Answer) -> None:
        """Something came out of the inner link just now."""
        self._has_ended = not isinstance(content, CloudMessage)
        num_bytes = 0 if isinstance(content, Exception) else self._down.size(content)
        self._deliver(self._line.answered(content, num_bytes))

    def _deliver(self, parcel: Parcel[Answer]) -> None:
        """An end is never taken from the inbox, so what is put behind one is never received."""
        self._inbox.append(parcel)
        self._arrived.set()

    def _shut(self) -> None:
        self._is_closed = True
        self._inbox.clear()
        self._inbox.append(Parcel(0.0, LinkError("the link is closed")))
        self._arrived.set()


class OpenLink:
    """A stream that was opened while no network was emulated: the inner link itself, until ``carry``."""

    def __init__(self, link: Link, line: Line, on_close: Callable[[OpenLink], None]) -> None:
        self._link = link
        self._line = line
        self._on_close = on_close
        self._start = Start()
        self._carried: CarriedLink | None = None

    @property
    def statistics(self) -> LinkStatistics:
        return self._link.statistics

    def carry(self) -> CarriedLink:
        """From now on messages go through the line, by the link that is returned and has to run. What is received right now is
        the first that the line holds back."""
        self._carried = CarriedLink(self._link, self._line, self._start)
        return self._carried

    async def send(self, message: DeviceMessage) -> None:
        """See ``Link.send``."""
        if self._carried is not None:
            await self._carried.send(message)
            return
        if isinstance(message, Open):
            self._start.up.heed(message)
        try:
            await self._link.send(message)
        except LinkError as error:
            self._line.cool_down(error)
            raise
        self._start.is_begun.set()

    async def receive(self) -> CloudMessage | None:
        """See ``Link.receive``. One caller at a time; nothing is lost where it is cancelled."""
        if self._carried is None:
            content = await self._receive_straight()
            if self._carried is None:
                if isinstance(content, Exception):
                    raise content
                return content
            self._carried.came(content)
        return await self._carried.receive()

    async def aclose(self) -> None:
        self._on_close(self)
        await (self._link if self._carried is None else self._carried).aclose()

    async def abort(self) -> None:
        """Close both ends at once."""
        await self._link.aclose()

    async def _receive_straight(self) -> Answer:
        self._start.may_receive.clear()
        try:
            message = await self._link.receive()
        except Exception as error:  # whatever it is, it belongs to the caller of this link
            self._line.cool_down(error)
            return error
        finally:
            self._start.may_receive.set()
        if isinstance(message, Opened):
            self._start.down.heed(message)
        return message
