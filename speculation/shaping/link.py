"""A link that takes as long as a mobile network: decorators of the link seam that hold messages back on the loop's clock.

One connector is one phone's radio: all its links share one pipe each way (``line.py``), as streams share one HTTP/2
connection, so nothing overtakes, not even between sessions. A message weighs its encoded payload and the profile's overhead
(framing of gRPC, HTTP/2, TLS, TCP and IP). The first ``connect`` costs one round trip, the TCP handshake with the HTTP/2
preface behind it; later streams use the warm connection and cost none, until a ``LinkError`` shows that the connection is gone.

Both ways need something that waits, so the connector owns tasks and is an asynchronous context manager::

    async with shaped(connector, network("lte")) as radio:
        link = await radio.connect()

The network may change at any time, for messages of links that are open, too. While it is ``none`` a new link passes messages
straight through: nothing is queued, weighed or waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType

from speculation.errors import LinkError
from speculation.links.base import Connector, Link
from speculation.shaping.carrying import CarriedLink, OpenLink
from speculation.shaping.line import Line
from speculation.shaping.profiles import UNSHAPED, NetworkProfile


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


class ShapedConnector:
    """Opens links that go through one emulated radio. Enter it before the first ``connect``; leaving it closes everything."""

    def __init__(self, connector: Connector, profile: NetworkProfile, seed: int = 0) -> None:
        self.profile = profile
        self._connector = connector
        self._seed = seed
        self._line: Line | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._carried: dict[asyncio.Task[None], CarriedLink] = {}
        self._open: set[OpenLink] = set()
        self._is_closed = False

    async def __aenter__(self) -> ShapedConnector:
        if self._tasks is not None:
            raise RuntimeError("this connector was entered before: it has one owner")
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._connector.__aenter__()
        self._line = Line(self.profile, self._seed)
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

    def reshape(self, profile: NetworkProfile) -> None:
        """Another network from the next message on, of links that are open, too. What is under way arrives as it would have."""
        self.profile = profile
        if self._line is None or self._is_closed:
            return
        self._line.become(profile)
        if not self._line.is_open:
            for link in list(self._open):
                self._run(link.carry())
            self._open.clear()

    async def connect(self) -> Link:
        """A new stream, after a round trip where the connection is cold. Raises what the inner connector raises."""
        line = self._line
        if line is None or self._tasks is None or self._is_closed:
            raise LinkError("the shaped connector is not open: use it inside its 'async with'")
        await line.warm_up()
        try:
            inner = await self._connector.connect()
        except LinkError as error:
            line.cool_down(error)
            raise
        if self._is_closed:
            await inner.aclose()
            raise LinkError("the shaped connector was closed")
        if not line.is_open:
            return self._run(CarriedLink(inner, line))
        link = OpenLink(inner, line, self._open.discard)
        self._open.add(link)
        return link

    async def aclose(self) -> None:
        """Close every link at once, messages under way included, then the inner connector. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        carried: dict[asyncio.Task[None], CarriedLink] = dict(self._carried)
        links: list[CarriedLink | OpenLink] = [*carried.values(), *self._open]
        for task in carried:
            task.cancel()
        if carried:
            await asyncio.wait(carried)
        for link in links:
            await link.abort()
        await self._connector.aclose()

    def _run(self, link: CarriedLink) -> CarriedLink:
        assert self._tasks is not None
        task = self._tasks.create_task(link.run())
        self._carried[task] = link
        task.add_done_callback(self._forget)
        return link

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._carried.pop(task, None)
