"""Who ends the call of a session that is over: its verifier, which would keep memory of a call that is cancelled."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from speculation.links import grpc as links
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import Cancel, Draft, Finished, FinishReason, Node, Opened
from speculation.wire import codec
from tests.speculation.links.endpoint import OPEN, listening

LIMIT_S = 20
OPENED, FINISHED = Opened("s", 32, "f"), Finished(FinishReason.STOP)
DRAFT = Draft((Node(1, 0, 5, 3),), 3)


class Slow:
    """A verifier's end that says ``messages``, and ends the call once it ``may_end``."""

    def __init__(self, messages):
        self.may_end, self.is_cancelled = asyncio.Event(), asyncio.Event()
        self._messages = messages

    async def verify(self, _requests, context):
        try:
            await context.read()
            for message in self._messages:
                await context.write(codec.encode_response(message))
            await self.may_end.wait()
        except asyncio.CancelledError:  # in a write, too: what was written may be read before that returns
            self.is_cancelled.set()
            raise


@asynccontextmanager
async def closed(heard, said=()):
    """The verifier, the connector and the call of a link that was closed when all was heard and said."""
    verifier = Slow(heard)
    async with asyncio.timeout(LIMIT_S), listening(verifier) as target:
        connector = GrpcConnector(target)
        link = await connector.connect()
        await link.send(OPEN)
        for message in heard:
            assert await link.receive() == message
        for message in said:
            await link.send(message)
        await link.aclose()
        try:
            yield verifier, connector, link._call
        finally:
            await connector.aclose()


@pytest.mark.parametrize(("heard", "said"), [([OPENED, FINISHED], ()), ([FINISHED], [DRAFT]), ([OPENED], [DRAFT, Cancel()])])
async def test_the_call_of_a_session_that_is_over_is_ended_by_its_verifier(heard, said):
    async with closed(heard, said) as (verifier, _, call):
        verifier.may_end.set()
        assert await call.code() is grpc.StatusCode.OK
        assert not verifier.is_cancelled.is_set()


@pytest.mark.parametrize("said", [(), [DRAFT]])
async def test_the_call_of_a_session_that_runs_is_cancelled_at_once(said):
    async with closed([OPENED], said) as (verifier, _, call):
        assert call.done()
        await verifier.is_cancelled.wait()


async def test_a_verifier_that_does_not_end_the_call_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(links, "STATUS_TIMEOUT_S", 0.05)
    async with closed([OPENED, FINISHED]) as (verifier, _, call):
        assert await call.code() is grpc.StatusCode.CANCELLED
        await verifier.is_cancelled.wait()


async def test_a_connection_that_is_closed_ends_what_its_verifier_has_not_ended_yet():
    async with closed([OPENED, FINISHED]) as (verifier, connector, call):
        await connector.aclose()
        assert call.done()
        await verifier.is_cancelled.wait()
