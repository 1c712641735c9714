"""A link that takes as long as a mobile network: decorators of the link seam that hold messages back on the loop's clock.

One connector is one phone's radio: all its links share one pipe each way, as streams share one HTTP/2 connection, so nothing
overtakes, not even between sessions. A message weighs its encoded payload and the profile's overhead (framing of gRPC, HTTP/2,
TLS, TCP and IP). The first ``connect`` costs one round trip, the TCP handshake with the HTTP/2 preface behind it; later
streams use the warm connection and cost none, until a ``LinkError`` shows that the connection is gone.

Both ways need something that waits, so the connector owns tasks and is an asynchronous context manager::

    async with shaped(connector, network("lte")) as radio:
        link = await radio.connect()
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from speculation.errors import LinkError
from speculation.links.base import Connector, Link, LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage
from speculation.shaping.pacing import Pipe
from speculation.shaping.profiles import UNSHAPED, NetworkProfile
from speculation.wire.padding import Padder

T = TypeVar("T")


@contextlib.asynccontextmanager
async def shaped(connector: Connector, profile: NetworkProfile, seed: int = 0) -> AsyncIterator[Connector]:
    """The connector behind that network, or the connector itself where the profile is ``none``. Closes it at the end."""
    if profile.name != UNSHAPED:
        async with ShapedConnector(connector, profile, seed) as radio:
            yield radio
        return
    try:
        yield connector
    finally:
        await connector.aclose()


@dataclass(frozen=True, slots=True)
class _Parcel(Generic[T]):
    """Something under way, and the loop time at which it is there."""

    due_s: float
    content: T


class _Radio:
    """One pipe each way, and whether the connection that they carry is set up."""

    def __init__(self, profile: NetworkProfile, seed: int, origin_s: float) -> None:
        self._overhead_bytes = round(profile.overhead_bytes)
        self._profile = profile
        self._up, self._down = profile.pipes(seed, origin_s)
        self._turn_up, self._turn_down = asyncio.Lock(), asyncio.Lock()
        self._set_up = asyncio.Lock()
        self._is_warm = False

    async def warm_up(self) -> None:
        """A round trip where the connection is cold, and what holds up a packet without payload before it."""
        async with self._set_up:
            if not self._is_warm:
                held_s = self._up.held_until(_now_s()) - _now_s()
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

    def sent(self, message: DeviceMessage | None, num_bytes: int) -> _Parcel[DeviceMessage | None]:
        """A message on its way up; None is the closing of the stream."""
        return _Parcel(self._release_at(self._up, num_bytes), message)

    def answered(self, content: CloudMessage | Exception | None, num_bytes: int) -> _Parcel[CloudMessage | Exception | None]:
        """A message on its way down; None is the orderly end, an exception the news of a failure."""
        return _Parcel(self._release_at(self._down, num_bytes), content)

    async def _room(self, pipe: Pipe, turn: asyncio.Lock, num_bytes: int) -> None:
        if math.isinf(pipe.direction.queue_bytes):
            return
        async with turn:
            room_s = pipe.room_at(_now_s(), num_bytes + self._overhead_bytes)
            await asyncio.sleep(max(0.0, room_s - _now_s()))

    def _release_at(self, pipe: Pipe, num_bytes: int) -> float:
        return pipe.release_at(_now_s(), num_bytes + self._overhead_bytes)


class ShapedConnector:
    """Opens links that go through one emulated radio. Enter it before the first ``connect``; leaving it closes everything."""

    def __init__(self, connector: Connector, profile: NetworkProfile, seed: int = 0) -> None:
        self.profile = profile
        self._connector = connector
        self._seed = seed
        self._radio: _Radio | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._links: dict[asyncio.Task[None], ShapedLink] = {}
        self._is_closed = False

    async def __aenter__(self) -> ShapedConnector:
        if self._tasks is not None:
            raise RuntimeError("this connector was entered before: it has one owner")
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._connector.__aenter__()
        self._radio = _Radio(self.profile, self._seed, _now_s())
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
            if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
                await self._connector.__aexit__(None, None, None)

    async def connect(self) -> Link:
        """A new stream, after a round trip where the connection is cold. Raises what the inner connector raises."""
        radio = self._radio
        if radio is None or self._tasks is None or self._is_closed:
            raise LinkError("the shaped connector is not open: use it inside its 'async with'")
        await radio.warm_up()
        try:
            inner = await self._connector.connect()
        except LinkError as error:
            radio.cool_down(error)
            raise
        if self._is_closed:
            await inner.aclose()
            raise LinkError("the shaped connector was closed")
        link = ShapedLink(inner, radio)
        task = self._tasks.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(self._forget)
        return link

    async def aclose(self) -> None:
        """Close every link at once, messages under way included, then the inner connector. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        links = dict(self._links)
        for task in links:
            task.cancel()
        if links:
            await asyncio.wait(links)
        for link in links.values():
            await link.abort()
        await self._connector.aclose()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task, None)


class ShapedLink:
    """One stream through the radio. ``send`` waits for nothing but room in a bounded queue; ``receive`` gives a message
    when it is due.

    A failure of the inner link reaches ``receive``, and later ``send`` calls, as late as a message would. Statistics are the
    inner link's.
    """

    def __init__(self, link: Link, radio: _Radio) -> None:
        self._link = link
        self._radio = radio
        self._up, self._down = Padder(), Padder()
        self._outbox: asyncio.Queue[_Parcel[DeviceMessage | None]] = asyncio.Queue()
        self._inbox: deque[_Parcel[CloudMessage | Exception | None]] = deque()
        self._arrived = asyncio.Event()
        self._is_begun = asyncio.Event()
        self._send_failure: _Parcel[CloudMessage | Exception | None] | None = None
        self._is_closed = False

    @property
    def statistics(self) -> LinkStatistics:
        return self._link.statistics

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message to the radio; it is sent on its way even if this link is closed behind it. Raises ``LinkError``."""
        if self._is_closed:
            raise LinkError("the link is closed")
        failure = self._send_failure
        if failure is not None and failure.due_s <= _now_s() and isinstance(failure.content, Exception):
            raise failure.content
        num_bytes = self._up.size(message)
        await self._radio.room_up(num_bytes)
        if self._is_closed:
            raise LinkError("the link is closed")
        self._outbox.put_nowait(self._radio.sent(message, num_bytes))

    async def receive(self) -> CloudMessage | None:
        """The next message that is due. One caller at a time; nothing is lost where it is cancelled."""
        while not (self._inbox and self._inbox[0].due_s <= _now_s()):
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
            self._outbox.put_nowait(self._radio.sent(None, 0))
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
            await asyncio.sleep(max(0.0, parcel.due_s - _now_s()))
            if self._send_failure is None:
                await self._hand_over(parcel.content)
        await asyncio.sleep(max(0.0, parcel.due_s - _now_s()))

    async def _hand_over(self, message: DeviceMessage) -> None:
        try:
            await self._link.send(message)
        except Exception as error:  # whatever it is, it belongs to the caller of this link
            self._radio.cool_down(error)
            self._send_failure = self._radio.answered(error, 0)
            # Of a stream that is gone the inner ``receive`` tells by itself, in order; of a refusal it may not know.
            if not isinstance(error, LinkError):
                self._deliver(self._send_failure)
        self._is_begun.set()

    async def _carry_down(self) -> None:
        content: CloudMessage | Exception | None
        await self._is_begun.wait()  # a stream begins with the phone's first message; before, there is nothing to receive on
        while True:
            try:
                content = await self._link.receive()
            except Exception as error:  # as above
                self._radio.cool_down(error)
                content = error
            num_bytes = 0 if isinstance(content, Exception) else self._down.size(content)
            if content is not None and not isinstance(content, Exception):
                await self._radio.room_down(num_bytes)
            self._deliver(self._radio.answered(content, num_bytes))
            if content is None or isinstance(content, Exception):
                return

    def _deliver(self, parcel: _Parcel[CloudMessage | Exception | None]) -> None:
        """An end is never taken from the inbox, so what is put behind one is never received."""
        self._inbox.append(parcel)
        self._arrived.set()

    def _shut(self) -> None:
        self._is_closed = True
        self._inbox.clear()
        self._inbox.append(_Parcel(0.0, LinkError("the link is closed")))
        self._arrived.set()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
