"""What every link does, whatever carries it."""

import asyncio

import pytest

from speculation.errors import CapacityError, InvalidRequestError, LinkError
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Cancel, Draft, Finished, FinishReason, Node, Open, Opened, PairIdentity
from speculation.wire import codec
from tests.speculation.links.endpoint import OPEN, Script, connected

LIMIT_S = 20
OPENED = Opened("s", 32, "f")
FINISHED = Finished(FinishReason.STOP)
DRAFT = Draft((Node(1, 0, 5, 3), Node(2, 1, 6)), 3)

kinds = pytest.mark.parametrize("kind", ["memory", "grpc"])


@kinds
async def test_messages_cross_both_ways_and_the_end_is_none(kind):
    script = Script([OPENED, FINISHED])
    async with asyncio.timeout(LIMIT_S), connected(kind, script) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        assert [await link.receive(), await link.receive(), await link.receive()] == [OPENED, FINISHED, None]
        assert script.received == [OPEN]
        await link.aclose()


@kinds
async def test_payload_bytes_are_counted_both_ways(kind):
    script = Script([OPENED, FINISHED], stays_open=True)
    async with asyncio.timeout(LIMIT_S), connected(kind, script) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        await link.send(DRAFT)
        await link.receive()
        await link.receive()
        counted = link.statistics
        assert (counted.sent_messages, counted.received_messages) == (2, 2)
        assert counted.sent_bytes == codec.encoded_size(OPEN) + codec.encoded_size(DRAFT)
        assert counted.received_bytes == codec.encoded_size(OPENED) + codec.encoded_size(FINISHED)
        await link.aclose()


@kinds
async def test_a_refusal_is_raised_by_receive_as_the_same_leaf(kind):
    async with asyncio.timeout(LIMIT_S), connected(kind, Script([OPENED], CapacityError("full", 2.5))) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        assert await link.receive() == OPENED
        with pytest.raises(CapacityError, match="full") as refused:
            await link.receive()
        assert refused.value.retry_after_s == 2.5
        await link.aclose()


@kinds
async def test_a_draft_that_crosses_the_end_is_dropped(kind):
    async with asyncio.timeout(LIMIT_S), connected(kind, Script([FINISHED])) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        assert [await link.receive(), await link.receive()] == [FINISHED, None]
        await link.send(DRAFT)
        assert await link.receive() is None


@kinds
async def test_a_closed_link_is_a_link_error_both_ways(kind):
    async with asyncio.timeout(LIMIT_S), connected(kind, Script(stays_open=True)) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        await link.aclose()
        await link.aclose()
        with pytest.raises(LinkError, match="closed"):
            await link.send(Cancel())
        with pytest.raises(LinkError, match="closed"):
            await link.receive()


@kinds
async def test_the_verifier_hears_that_a_link_was_closed(kind):
    script = Script([OPENED], stays_open=True)
    async with asyncio.timeout(LIMIT_S), connected(kind, script) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        await link.receive()
        await link.aclose()
        await script.is_closed.wait()


@kinds
async def test_closing_wakes_a_waiting_receive(kind):
    async with asyncio.timeout(LIMIT_S), connected(kind, Script([OPENED], stays_open=True)) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        await link.receive()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_outcome(link))
            for _ in range(5):
                await asyncio.sleep(0)
            await link.aclose()
            assert isinstance(await waiting, LinkError)


@kinds
async def test_a_receive_that_is_cancelled_stays_cancelled(kind):
    async with asyncio.timeout(LIMIT_S), connected(kind, Script([OPENED], stays_open=True)) as connector:
        link = await connector.connect()
        await link.send(OPEN)
        await link.receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await link.receive()
        await link.aclose()


@kinds
async def test_a_message_over_the_limit_is_refused_before_it_is_sent(kind):
    script = Script(stays_open=True)
    async with asyncio.timeout(LIMIT_S), connected(kind, script) as connector:
        link = await connector.connect()
        huge = Open("s", 1, PairIdentity("a", "b", "c"), (4000,) * 200_000, 3, SamplingParameters(), 8)
        with pytest.raises(InvalidRequestError, match="over the limit of 262144"):
            await link.send(huge)
        assert link.statistics.sent_bytes == 0
        await link.aclose()


async def _outcome(link):
    try:
        return await link.receive()
    except LinkError as error:
        return error
