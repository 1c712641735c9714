"""A server behind a proxy, and clients in front of it, for tests of both. Loopback and free ports alone."""

import asyncio
from contextlib import asynccontextmanager, suppress

from outrider.proxy.service import Address
from outrider.proxy.serving import ProxySettings, serve
from speculation.shaping import profiles

LOOPBACK = Address("127.0.0.1", 0)
NONE = profiles.network("none")


@asynccontextmanager
async def listening(talk):
    """A server that runs ``talk(reader, writer)`` with each client, at the address that this gives."""

    async def run(reader, writer):
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def proxied(talk=echo, network=NONE, tell=lambda event: None, **settings):
    """A running proxy in front of such a server."""
    async with (
        listening(talk) as upstream,
        serve(ProxySettings(listen=LOOPBACK, upstream=upstream, network=network, **settings), tell) as running,
    ):
        yield running


@asynccontextmanager
async def connected(running):
    """A client of the proxy."""
    address = running.proxy.listen
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
