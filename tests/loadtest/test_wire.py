"""The blocking end of the wire that a load test's devices hold."""

import asyncio

import pytest

from loadtest.wire import Wire
from speculation.protocol.messages import Opened
from speculation.wire import codec
from tests.speculation.links.endpoint import OPEN, Script, listening
from tests.support.addresses import name_a_proxy_that_is_away

LIMIT_S = 20
OPENED = Opened("s", 32, "f")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_verifier_on_this_machine_is_asked_without_a_proxy(host, monkeypatch):
    name_a_proxy_that_is_away(monkeypatch)
    async with asyncio.timeout(LIMIT_S), listening(Script([OPENED], stays_open=True)) as target:
        wire = Wire(target.replace("127.0.0.1", host), None)
        call = wire.call([codec.encode_request(OPEN)], LIMIT_S / 2)
        try:
            said = await asyncio.to_thread(next, iter(call))
        finally:
            call.close()
            wire.close()
    assert codec.decode_response(said) == OPENED
