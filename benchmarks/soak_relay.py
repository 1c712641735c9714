"""A way to the verifier that can be cut without a word: no end of a stream, no farewell of HTTP/2, the connection is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _End(asyncio.Protocol):
    """One of two ends; what it hears it says at the other, once that is connected."""

    def __init__(self) -> None:
        self.other: _End = self
        self._transport: asyncio.Transport | None = None
        self._waiting = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.say(b"")

    def data_received(self, data: bytes) -> None:
        self.other.say(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.other.cut()

    def say(self, data: bytes) -> None:
        self._waiting += data
        if self._transport is not None:
            self._transport.write(bytes(self._waiting))
            self._waiting.clear()

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Stranger(asyncio.Protocol):
    """Who calls an address that was another's: a channel that was not closed yet comes again to a port that was given away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class Relay:
    """One connection, bytes both ways in order, until ``cut``."""

    def __init__(self) -> None:
        self.near, self.far = _End(), _End()
        self.near.other, self.far.other = self.far, self.near
        self._is_called = False

    def called(self) -> asyncio.Protocol:
        """What a connection to the address speaks with: the first with the target, any other with nobody."""
        if self._is_called:
            return _Stranger()
        self._is_called = True
        return self.near

    def cut(self) -> None:
        self.near.cut()
        self.far.cut()


@asynccontextmanager
async def relay_to(target: str) -> AsyncIterator[tuple[str, Relay]]:
    """The address to call, once, instead of ``target``, and what cuts; cut where the block is left."""
    loop, relay = asyncio.get_running_loop(), Relay()
    host, port = target.rsplit(":", 1)
    await loop.create_connection(lambda: relay.far, host, int(port))
    server = await loop.create_server(relay.called, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", relay
    finally:
        server.close()
        relay.cut()
