"""Reads of a stream: none is cancelled, since gRPC would keep its memory, and none outlives the verifier."""

import asyncio
import logging
from types import SimpleNamespace

import grpc
import pytest

from cloud_verifier import servicer
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.inlet import Inlet, Readers
from cloud_verifier.server import serve
from speculation.errors import EngineError, LinkError, SessionSupersededError
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import Cancel
from speculation.tenants import NOBODY
from speculation.wire import codec
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import collect, settings, wait_until
from tests.cloud_verifier.sessions import LIMIT_S, held, opened


class Reads:
    """How many reads of all streams are under way, and how many were cancelled."""

    def __init__(self):
        self.begun = self.under_way = self.cancelled = 0

    def of(self, context):
        async def read():
            self.begun += 1
            self.under_way += 1
            try:
                return await context.read()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.under_way -= 1

        return SimpleNamespace(read=read)


@pytest.fixture
def reads(monkeypatch):
    counted = Reads()
    monkeypatch.setattr(servicer, "Inlet", lambda context, *given: Inlet(counted.of(context), *given))
    return counted


async def finish(engine, connector):
    await collect(await opened(connector))


async def cancel(engine, connector):
    link = await held(engine, connector)
    await link.send(Cancel())
    engine.gate.set()
    await collect(link)


async def vanish(engine, connector):
    link = await held(engine, connector)
    await link.aclose()
    engine.gate.set()


async def be_overtaken(engine, connector):
    older = await held(engine, connector)
    newer = await opened(connector, attempt=2)
    with pytest.raises(SessionSupersededError):
        await collect(older)
    engine.gate.set()
    await collect(newer)


@pytest.mark.parametrize("end", [finish, cancel, vanish, be_overtaken])
async def test_no_read_is_cancelled_however_a_stream_ends_and_each_is_over_soon(reads, end):
    engine, full_model = doubles.watched()
    async with asyncio.timeout(LIMIT_S), serve(settings(), full_model=full_model) as running:
        connector = GrpcConnector(running.target)
        num_tasks = len(asyncio.all_tasks())
        for _ in range(3):
            await end(engine, connector)
        await connector.aclose()
        await wait_until(lambda: not reads.under_way and not engine.open_caches)
        await wait_until(lambda: len(asyncio.all_tasks()) <= num_tasks)
    assert reads.begun >= 6
    assert reads.cancelled == 0


async def test_a_verifier_that_ends_waits_for_no_read(reads):
    engine, full_model = doubles.watched()
    async with asyncio.timeout(LIMIT_S):
        async with serve(settings(), full_model=full_model) as running:
            connector = GrpcConnector(running.target)
            await held(engine, connector)
            assert reads.under_way == 1
            engine.gate.set()
        assert reads.under_way == 0
        await connector.aclose()


class Account:
    """A tenant that may be read from at ``ready_s``."""

    def __init__(self, ready_s=0.0):
        self.bytes = SimpleNamespace(ready_s=ready_s, take=lambda num_bytes, now_s: None)
        self.tenant = NOBODY


class Session:
    def __init__(self):
        self.ends, self.came = [], []
        self.receive = self.came.append
        self.live = SimpleNamespace(end=self.ends.append, session_id="s", attempt=1, account=Account(), pair="p")


def inlet(read, ready_s=0.0):
    return Inlet(SimpleNamespace(read=read), Account(ready_s), VerifierStatistics())


async def never():
    await asyncio.Event().wait()


async def test_a_stream_that_waits_for_its_tenants_turn_is_left_at_once():
    async with asyncio.timeout(LIMIT_S), Readers() as readers:
        waiting = inlet(never, asyncio.get_running_loop().time() + 1000)
        task = readers.begin(waiting, Session())
        await asyncio.sleep(0)
        readers.leave(waiting, task)
        await asyncio.wait({task})
        assert task.cancelled()


async def says_cancel():
    return codec.encode_request(Cancel())


async def test_a_stream_that_has_read_and_waits_for_its_next_turn_is_left_at_once():
    session, waiting = Session(), inlet(says_cancel)
    waiting._account.bytes.take = lambda num_bytes, now_s: setattr(waiting._account.bytes, "ready_s", now_s + 1000)
    async with asyncio.timeout(LIMIT_S), Readers() as readers:
        task = readers.begin(waiting, session)
        await wait_until(lambda: session.came)
        readers.leave(waiting, task)
        await asyncio.wait({task})
        assert task.cancelled()
    assert session.came == [Cancel()]


async def test_what_was_read_is_counted_and_paid_for_once():
    said, taken = [await says_cancel(), grpc.aio.EOF], []

    async def read():
        return said.pop(0)

    reading = inlet(read)
    num_bytes = len(said[0])
    reading._account.bytes.take = lambda num_bytes, now_s: taken.append(num_bytes)
    assert (await reading.read(), await reading.read()) == (Cancel(), None)
    assert (taken, reading._statistics.received_bytes) == ([num_bytes, 0], num_bytes)


async def test_what_is_read_once_nobody_listens_is_no_message():
    left = inlet(says_cancel)
    left.is_left = True
    assert await left.read_at_once() is None


async def test_a_read_that_never_ends_is_over_with_the_last_stream():
    async with asyncio.timeout(LIMIT_S), Readers() as readers:
        reading = inlet(never)
        task = readers.begin(reading, Session())
        await asyncio.sleep(0)
        readers.leave(reading, task)
        await asyncio.sleep(0)
        assert not task.done()
    assert task.cancelled()


async def test_an_error_inside_the_block_leaves_as_it_is():
    with pytest.raises(LinkError, match="as it is"):
        async with Readers():
            raise LinkError("as it is")


async def fail():
    raise RuntimeError("no such thing")


async def test_a_read_that_fails_ends_its_own_session_and_the_log_says_why(caplog):
    session, other = Session(), Session()
    async with asyncio.timeout(LIMIT_S), Readers() as readers:
        reading = inlet(never)
        going_on = readers.begin(reading, other)
        await asyncio.wait({readers.begin(inlet(fail), session)})
        assert not going_on.done()
    assert [type(error) for error in session.ends] == [EngineError]
    assert other.ends == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no such thing" in caplog.text


async def test_what_a_stream_says_behind_its_end_is_nobodys_business(caplog):
    session, go = Session(), asyncio.Event()

    async def read():
        await go.wait()
        raise RuntimeError("RPC already finished.")

    async with asyncio.timeout(LIMIT_S), Readers() as readers:
        reading = inlet(read)
        task = readers.begin(reading, session)
        await asyncio.sleep(0)
        readers.leave(reading, task)
        go.set()
        await asyncio.wait({task})
    assert (session.ends, caplog.records) == ([], [])
