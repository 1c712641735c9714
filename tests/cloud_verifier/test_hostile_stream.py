"""The production servicer over real gRPC against streams of anything: each ends in time by a known status, and alone."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_verifier.live import LiveSession
from cloud_verifier.server import serve
from speculation.errors import STATUS, HandshakeError
from speculation.links.grpc import GrpcConnector
from speculation.wire import codec
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import IDENTITY, SAMPLED, wait_until
from tests.cloud_verifier.sessions import CREDIT, device, refusal, truth_of
from tests.support.wire_fuzz import STEP, HostileDevice, damaged, good_open, odd_open

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDS_IN_S = 5
PROMPT = [1, 2, 3]
TRUTH = truth_of(PROMPT, SAMPLED, 24)
KNOWN = {"OK"} | {status.grpc for status in STATUS.values()} - {"INTERNAL", "OUT_OF_RANGE", "UNAUTHENTICATED"}
STREAMS = st.tuples(STEP, st.lists(STEP, max_size=8))
READ = None
"""In place of a message: the device waits for one of the verifier."""
_numbers = itertools.count()


class Shouts(logging.Handler):
    """Keeps what is logged at ERROR or above."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.records = []

    def emit(self, record):
        self.records.append(self.format(record))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene():
    """One verifier for all, with what it logged as an error and the most nodes that a session ever held."""
    shouts, seen = Shouts(), SimpleNamespace(most_nodes=0)
    receive = LiveSession.receive

    def counted(live, message):
        receive(live, message)
        seen.most_nodes = max(seen.most_nodes, live.state.live_nodes)

    _, full_model = doubles.watched()
    logging.getLogger().addHandler(shouts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveSession, "receive", counted)
        async with serve(doubles.settings(credit=CREDIT), full_model=full_model) as running:
            connector = GrpcConnector(running.target)
            async with grpc.aio.insecure_channel(running.target) as channel:
                yield SimpleNamespace(running=running, connector=connector, channel=channel, shouts=shouts, seen=seen)
            await connector.aclose()
    logging.getLogger().removeHandler(shouts)


def stream_of(opening, history):
    """What one device sends, in a session of its own: a good ``Open`` in half of the cases, and then whatever comes."""
    good = good_open(IDENTITY, f"hostile-{next(_numbers)}", PROMPT, 12)
    wire = good if opening[0] % 2 else odd_open(good, opening[1:])
    data = wire.SerializeToString()
    hostile = HostileDevice(good, TRUTH)
    later = [READ if step[-1] < 50 else hostile.request(step, len(PROMPT)) for step in history]
    return [damaged(data, opening) if opening[0] > 220 else data, *later], opening[0] % 16 == 1


async def write(call, data):
    """``call.write`` would replace the status of a call that ends meanwhile (grpc/grpc#36066)."""
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(data)


async def converse(channel, messages, hangs_up):
    """Send one stream, and read it to its end: the name of its status."""
    call = channel.stream_stream(codec.METHOD_PATH)()
    received = aiter(call)
    with suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, StopAsyncIteration):
        for data in messages:
            await (anext(received) if data is READ else write(call, data))
    if hangs_up:
        call.cancel()
        return "OK"
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()
        async for data in received:
            codec.decode_response(data)
    return (await call.code()).name


@settings(max_examples=settings.default.max_examples // 4, deadline=None)
@given(streams=st.lists(STREAMS, min_size=1, max_size=5))
async def test_every_stream_ends_in_time_by_a_known_status_beside_one_whose_text_is_exact(scene, streams):
    neighbour = device(next(_numbers), TRUTH, PROMPT, SAMPLED, 0.7, max_tokens=24)
    async with asyncio.timeout(ENDS_IN_S), asyncio.TaskGroup() as group:
        text = group.create_task(neighbour.run(scene.connector))
        ends = [group.create_task(converse(scene.channel, *stream_of(*stream))) for stream in streams]
    assert text.result() == TRUTH
    assert {end.result() for end in ends} <= KNOWN
    async with asyncio.timeout(ENDS_IN_S):
        await wait_until(lambda: scene.running.verifier.num_sessions == 0)
    assert scene.seen.most_nodes <= CREDIT
    assert scene.shouts.records == []


@pytest.mark.parametrize("field", ["choice_rule", "fingerprint", "identity"])
async def test_a_refusal_that_quotes_a_long_text_arrives_as_what_it_is(field, scene):
    """The whole text would be more than gRPC takes in the trailers: the device would be told to come again."""
    text = "😀" * 5_000
    changes = {field: replace(IDENTITY, pair_digest=text) if field == "identity" else text}
    with pytest.raises(HandshakeError, match=r"the device|the session began"):
        await refusal(scene.connector, session_id=field, **changes)


async def test_who_makes_the_verifier_say_more_than_a_message_holds_is_told_so(scene):
    """Padded to the next multiple of 4,000 the answer to this Open is larger than any message."""
    opening = good_open(IDENTITY, "x" * 261_000, PROMPT, 12)
    opening.open.cover.pad_bytes = 4000
    call = scene.channel.stream_stream(codec.METHOD_PATH)()
    num_shouts = len(scene.shouts.records)
    async with asyncio.timeout(ENDS_IN_S):
        await write(call, opening.SerializeToString())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "makes an answer (Opened) of 264000 bytes: at most 262144 are sent" in await call.details()
        await wait_until(lambda: scene.running.verifier.num_sessions == 0)
    assert len(scene.shouts.records) == num_shouts


async def test_streams_that_are_reset_as_soon_as_they_begin_leave_nothing_behind_and_hinder_nobody(scene):
    """HTTP/2's rapid reset; some have a session by then, fewer than there are places."""
    neighbour = device(next(_numbers), TRUTH, PROMPT, SAMPLED, 0.7, max_tokens=24)

    async def reset(number):
        call = scene.channel.stream_stream(codec.METHOD_PATH)()
        if number % 30 == 0:
            await write(call, good_open(IDENTITY, f"reset-{number}", PROMPT, 400).SerializeToString())
            await anext(aiter(call))
        call.cancel()

    async with asyncio.timeout(ENDS_IN_S), asyncio.TaskGroup() as group:
        text = group.create_task(neighbour.run(scene.connector))
        for number in range(200):
            group.create_task(reset(number))
    assert text.result() == TRUTH
    async with asyncio.timeout(ENDS_IN_S):
        await wait_until(lambda: scene.running.verifier.num_sessions == 0)
    assert scene.shouts.records == []
