"""What only a network can do to a link."""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest

from speculation.errors import HandshakeError, LinkError
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import Draft, Node, Opened
from tests.speculation.links.endpoint import OPEN, Script, listening
from tests.support.addresses import free_port, name_a_proxy_that_is_away

LIMIT_S = 20
OPENED = Opened("s", 32, "f")


async def test_a_verifier_that_is_not_there_is_known_at_once():
    connector = GrpcConnector(f"127.0.0.1:{free_port()}", connect_timeout_s=LIMIT_S)
    async with asyncio.timeout(LIMIT_S / 2):
        for _ in range(2):
            with pytest.raises(LinkError, match=r"there is no verifier at 127\.0\.0\.1"):
                await connector.connect()
    await connector.aclose()


@asynccontextmanager
async def far_away(target, one_way_s):
    """A way to ``target`` on which every byte takes that long."""
    loop, writers = asyncio.get_running_loop(), []

    async def pump(reader, writer):
        writers.append(writer)
        while data := await reader.read(65536):
            loop.call_later(one_way_s, writer.write, data)

    async def serve(reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection(*target.rsplit(":", 1))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_verifier_that_is_far_away_is_one_that_is_there():
    async with (
        asyncio.timeout(LIMIT_S),
        listening(Script([OPENED])) as near,
        far_away(near, one_way_s=0.25) as target,
    ):
        connector = GrpcConnector(target, connect_timeout_s=LIMIT_S)
        link = await connector.connect()
        await link.send(OPEN)
        assert await link.receive() == OPENED
        await connector.aclose()


async def test_a_port_that_never_answers_ends_with_the_time_limit():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        connector = GrpcConnector(f"127.0.0.1:{mute.getsockname()[1]}", connect_timeout_s=0.05)
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            outcomes = [group.create_task(_outcome(connector)) for _ in range(2)]
        assert all("no verifier answered" in str(outcome.result()) for outcome in outcomes)
        await connector.aclose()


async def test_a_verifier_that_comes_back_is_found_again():
    port = free_port()
    connector = GrpcConnector(f"127.0.0.1:{port}")
    async with asyncio.timeout(LIMIT_S):
        for _ in range(8):
            # At once, or from the stream where the connection's end is still on its way to this side.
            with pytest.raises(LinkError):
                await _answers(connector)
            async with listening(Script([OPENED]), port):
                assert await _answers(connector) == [OPENED, None]
    await connector.aclose()


async def _answers(connector):
    link = await connector.connect()
    await link.send(OPEN)
    return [await link.receive() for _ in range(2)]


async def test_a_verifier_that_dies_is_told_by_receive_and_drops_what_is_sent():
    async with asyncio.timeout(LIMIT_S):
        async with listening(Script([OPENED], stays_open=True)) as target:
            connector = GrpcConnector(target)
            link = await connector.connect()
            await link.send(OPEN)
            await link.receive()
        await link.send(Draft((Node(1, 0, 5, 3),), 3))
        for _ in range(2):
            with pytest.raises(LinkError):
                await link.receive()
        await connector.aclose()


@pytest.mark.parametrize("error", [None, HandshakeError("another pair")])
async def test_sending_into_the_end_neither_loses_what_was_said_nor_how_it_ended(error):
    async with asyncio.timeout(LIMIT_S):
        for _ in range(60):
            async with listening(Script([OPENED] * 3, error)) as target:
                connector = GrpcConnector(target)
                link = await connector.connect()
                await link.send(OPEN)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_send_until_it_fails(link))
                    assert [await link.receive() for _ in range(3)] == [OPENED] * 3
                    if error is None:
                        assert await link.receive() is None
                    else:
                        with pytest.raises(HandshakeError, match="another pair"):
                            await link.receive()
                await connector.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_verifier_on_this_machine_is_asked_without_a_proxy(host, monkeypatch):
    name_a_proxy_that_is_away(monkeypatch)
    async with asyncio.timeout(LIMIT_S), listening(Script([OPENED], stays_open=True)) as target:
        connector = GrpcConnector(target.replace("127.0.0.1", host), connect_timeout_s=LIMIT_S / 2)
        link = await connector.connect()
        await link.send(OPEN)
        assert await link.receive() == OPENED
        await link.aclose()
        await connector.aclose()


async def test_streams_share_one_connection_and_close_apart():
    async with asyncio.timeout(LIMIT_S), listening(Script([OPENED, OPENED], stays_open=True)) as target:
        connector = GrpcConnector(target)
        first, second = await connector.connect(), await connector.connect()
        await first.send(OPEN)
        assert await first.receive() == OPENED
        await first.aclose()
        await second.send(OPEN)
        await second.aclose()
        await connector.aclose()


async def _outcome(connector):
    try:
        return await connector.connect()
    except LinkError as error:
        return error


async def _send_until_it_fails(link):
    try:
        for number in range(1, 30):
            await link.send(Draft((Node(number, number - 1, 5, 3),), 3))
    except HandshakeError:
        return
