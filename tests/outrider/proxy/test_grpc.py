"""A session's gRPC stream through the proxy: what a radio does to it, and that it comes back."""

import asyncio

import pytest

from outrider.proxy.service import parse_address
from outrider.proxy.serving import ProxySettings, serve
from speculation.errors import LinkError
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import Finished, FinishReason, Opened, Verdict, VerdictKind
from speculation.shaping import profiles
from tests.outrider.proxy.ends import LOOPBACK
from tests.speculation.links.endpoint import OPEN, Script, listening

ANSWERS = [Opened("s", 32, "f"), Verdict(3, 0, 0, 42, VerdictKind.DECODED), Finished(FinishReason.LENGTH)]
LIMIT_S = 20


async def test_a_stream_passes_a_network_a_cut_ends_it_and_the_next_one_is_whole():
    network = profiles.network("apple-wifi")
    async with asyncio.timeout(LIMIT_S), listening(script := Script(ANSWERS[:1], stays_open=True)) as target:
        settings = ProxySettings(listen=LOOPBACK, upstream=parse_address(target, "upstream"), network=network)
        async with serve(settings, lambda event: None) as running:
            connector = GrpcConnector(str(running.proxy.listen))
            link = await connector.connect()
            await link.send(OPEN)
            assert await link.receive() == ANSWERS[0]
            running.proxy.disable()
            with pytest.raises(LinkError):
                await link.receive()
            with pytest.raises(LinkError):  # gRPC may not have heard yet that its connection is over; then the stream breaks
                await (await connector.connect()).receive()
            with pytest.raises(LinkError):
                await connector.connect()
            await running.proxy.enable()
            script.messages, script.stays_open = list(ANSWERS), False
            link = await connector.connect()
            await link.send(OPEN)
            assert [await link.receive() for _ in range(4)] == [*ANSWERS, None]
            await connector.aclose()
    assert script.received[0] == OPEN
