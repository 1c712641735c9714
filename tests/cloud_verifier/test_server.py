"""The verifier as a service: real gRPC on a free port."""

import asyncio
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_verifier import server, servicer
from cloud_verifier.config import VerifierConfig
from cloud_verifier.server import serve
from speculation.errors import (
    CapacityError,
    ConfigurationError,
    DeadlineError,
    EngineError,
    HandshakeError,
    LinkError,
    SessionSupersededError,
)
from speculation.links.grpc import GrpcConnector
from speculation.protocol.cover import Cover
from speculation.protocol.fillers import is_filler
from speculation.protocol.messages import Cancel, Draft, FinishReason, Node, PairIdentity
from speculation.wire import codec
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import (
    collect,
    finished_of,
    open_message,
    settings,
    wait_until,
)
from tests.cloud_verifier.sessions import (
    BREAKING,
    CREDIT,
    LIMIT_S,
    check_breaking_ends_its_stream_only,
    check_texts,
    held,
    opened,
    refusal,
)


@asynccontextmanager
async def serving(**changes):
    """A watched engine behind a real server, and a connector to it."""
    engine, full_model = doubles.watched()
    async with asyncio.timeout(LIMIT_S), serve(settings(**changes), full_model=full_model) as running:
        connector = GrpcConnector(running.target)
        try:
            yield engine, running, connector
        finally:
            engine.gate.set()
            await connector.aclose()


async def test_concurrent_sessions_over_grpc_give_the_text_of_plain_decoding():
    async with serving() as (engine, _, connector):
        await check_texts(connector, 0.7)
        await wait_until(lambda: not engine.open_caches)


@pytest.mark.parametrize(("message", "error"), BREAKING)
async def test_a_message_that_breaks_the_protocol_ends_its_stream_only(message, error):
    async with serving(credit=CREDIT) as (engine, _, connector):
        await check_breaking_ends_its_stream_only(engine, connector, message, error)


async def test_bytes_that_are_no_message_end_their_stream_only():
    async with serving() as (engine, running, connector):
        other = await held(engine, connector, session_id="other")
        async with grpc.aio.insecure_channel(running.target) as channel:
            call = channel.stream_stream(codec.METHOD_PATH)()
            await call.write(b"\xff\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        engine.gate.set()
        assert finished_of(await collect(other)).reason is FinishReason.LENGTH


async def test_an_oversize_message_is_refused_at_the_server_and_others_go_on():
    async with serving() as (engine, running, connector):
        other = await held(engine, connector, session_id="other")
        async with grpc.aio.insecure_channel(running.target) as channel:
            call = channel.stream_stream(codec.METHOD_PATH)()
            await call.write(b"\0" * (running.config.max_message_bytes + 1))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.gate.set()
        assert finished_of(await collect(other)).reason is FinishReason.LENGTH


async def test_refusals_cross_the_wire_as_the_leaves_they_are():
    async with serving(max_sessions=1, retry_after_s=2.5) as (engine, _, connector):
        with pytest.raises(HandshakeError, match=f"{'d' * 64}.*{'b' * 64}"):
            await refusal(connector, identity=PairIdentity("a" * 64, "d" * 64, "c" * 64))
        await held(engine, connector)
        with pytest.raises(CapacityError) as refused:
            await refusal(connector, session_id="second")
        assert refused.value.retry_after_s == 2.5
        with pytest.raises(SessionSupersededError):
            await refusal(connector)


async def test_a_later_attempt_aborts_the_older_stream():
    async with serving() as (engine, _, connector):
        older = await held(engine, connector)
        newer = await opened(connector, attempt=2)
        with pytest.raises(SessionSupersededError, match="attempt 2"):
            await collect(older)
        engine.gate.set()
        assert finished_of(await collect(newer)).reason is FinishReason.LENGTH


async def test_a_deadline_crosses_the_wire():
    async with serving() as (engine, _, connector):
        engine.gate.clear()
        link = await opened(connector, deadline_ms=1)
        with pytest.raises(DeadlineError):
            await collect(link)


async def test_a_failing_pass_is_told_and_the_server_goes_on():
    async with serving() as (engine, _, connector):
        engine.failure = RuntimeError("out of memory")
        with pytest.raises(EngineError, match="out of memory"):
            await collect(await opened(connector))
        assert finished_of(await collect(await opened(connector))).reason is FinishReason.LENGTH


async def test_a_cancel_frees_the_cache_within_a_pass():
    async with serving() as (engine, _, connector):
        link = await held(engine, connector, max_tokens=400)
        await link.send(Cancel())
        assert finished_of(await collect(link)).reason is FinishReason.CANCELLED
        engine.gate.set()
        await wait_until(lambda: not engine.open_caches)
        assert len(engine.passes) == 1


async def test_a_device_that_vanishes_frees_its_cache():
    async with serving() as (engine, running, connector):
        link = await held(engine, connector, max_tokens=400)
        await link.aclose()
        await wait_until(lambda: running.verifier.num_sessions == 0)
        engine.gate.set()
        await wait_until(lambda: not engine.open_caches)
        assert len(engine.passes) == 1


async def test_half_a_close_is_no_cancel():
    async with serving() as (_, running, _connector), grpc.aio.insecure_channel(running.target) as channel:
        call = channel.stream_stream(codec.METHOD_PATH)()
        await call.write(codec.encode_request(open_message()))
        await call.done_writing()
        messages = []
        while (data := await call.read()) is not grpc.aio.EOF:
            messages.append(codec.decode_response(data))
        assert finished_of(messages).reason is FinishReason.LENGTH


async def test_who_closed_its_sending_side_is_waited_for_no_more():
    """Two seconds for each token would be a minute."""
    async with serving(patience="never") as (_, running, _connector), grpc.aio.insecure_channel(running.target) as channel:
        call = channel.stream_stream(codec.METHOD_PATH)()
        await call.write(codec.encode_request(open_message(max_tokens=30)))
        for _ in range(2):
            await call.read()
        await call.write(codec.encode_request(Draft((Node(1, 0, 5, 4),), 4)))
        await call.done_writing()
        messages = []
        while (data := await call.read()) is not grpc.aio.EOF:
            messages.append(codec.decode_response(data))
        assert finished_of(messages).reason is FinishReason.LENGTH


async def test_a_stream_without_open_is_ended(monkeypatch):
    monkeypatch.setattr(servicer, "OPEN_TIMEOUT_S", 0.01)
    async with serving() as (_, _, connector):
        with pytest.raises(DeadlineError, match="no Open came"):
            await (await connector.connect()).receive()


async def test_a_stop_drains_and_the_health_service_says_so():
    async with asyncio.timeout(LIMIT_S):
        engine, full_model = doubles.watched()
        stop = asyncio.Event()
        ready = asyncio.Event()
        targets = []

        async def service():
            async with serve(settings(drain_grace_s=LIMIT_S), full_model=full_model) as running:
                targets.append(running.target)
                ready.set()
                await stop.wait()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(service())
            await ready.wait()
            connector = GrpcConnector(targets[0])
            link = await held(engine, connector)
            async with grpc.aio.insecure_channel(targets[0]) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=codec.SERVICE))
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                stop.set()
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                with pytest.raises(LinkError, match="shutting down"):
                    await refusal(connector, session_id="late")
                engine.gate.set()
                assert finished_of(await collect(link)).reason is FinishReason.LENGTH
                watch.cancel()
            await task
            with pytest.raises(LinkError):
                await connector.connect()
            await connector.aclose()


async def test_a_stop_ends_what_its_grace_does_not_suffice_for():
    engine, full_model = doubles.watched()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        async with serve(settings(), full_model=full_model) as running:
            connector = GrpcConnector(running.target)
            link = await held(engine, connector)

            async def read_to_the_end():
                messages = await collect(link)
                engine.gate.set()
                return messages

            reading = group.create_task(read_to_the_end())
        assert finished_of(await reading).reason is FinishReason.SHUTDOWN
        await connector.aclose()


async def test_what_was_said_before_a_stop_still_leaves_on_its_ticks(monkeypatch):
    """Two messages that wait for their ticks and the last one behind them take longer here than any other stream is given."""
    monkeypatch.setattr(server, "FLUSH_S", 0.05)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        _, full_model = doubles.watched()
        async with serve(settings(drain_grace_s=0), full_model=full_model) as running:
            connector = GrpcConnector(running.target)
            link = await connector.connect()
            await link.send(open_message(cover=Cover(0, 200), max_tokens=400))
            reading = group.create_task(collect(link))
            await wait_until(lambda: any(live.outbox.is_full() for live in running.verifier.seats.all))
        assert finished_of(await reading).reason is FinishReason.SHUTDOWN
        await connector.aclose()


async def test_a_signal_stops_the_service_in_order():
    engine, full_model = doubles.watched()
    targets = []

    def on_ready(running):
        targets.append(running.target)
        signal.raise_signal(signal.SIGTERM)

    async with asyncio.timeout(LIMIT_S):
        await server.run(settings(), on_ready, full_model=full_model)
        connector = GrpcConnector(targets[0])
        with pytest.raises(LinkError):
            await connector.connect()
    assert not engine.open_caches


async def test_an_error_of_the_block_leaves_as_it_is():
    _, full_model = doubles.watched()
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(LIMIT_S), serve(settings(), full_model=full_model):
            raise ZeroDivisionError


async def test_a_taken_port_is_a_configuration_error():
    _, full_model = doubles.watched()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="Address already in use"):
            async with asyncio.timeout(LIMIT_S), serve(settings(port=taken.getsockname()[1]), full_model=full_model):
                pass


def test_phones_may_ping():
    options = dict(server._options(VerifierConfig()))
    assert options["grpc.http2.min_recv_ping_interval_without_data_ms"] == 10_000
    assert options["grpc.max_receive_message_length"] == 256 * 1024


async def test_under_cover_every_message_has_its_size_on_the_wire_and_comes_while_nothing_is_said():
    async with serving() as (engine, _, connector):
        engine.gate.clear()
        link = await connector.connect()
        await link.send(replace(open_message(max_tokens=3), cover=Cover(512, 10)))
        opening = await link.receive()
        assert opening.cover == Cover(512, 10)
        assert all([is_filler(await link.receive()) for _ in range(3)])
        engine.gate.set()
        assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        counted = link.statistics
        assert (counted.sent_bytes, counted.received_bytes) == (512, 512 * counted.received_messages)


@pytest.mark.parametrize(("setting", "said"), [("port", "cannot listen"), ("metrics_port", "metrics: cannot listen")])
def test_an_address_that_is_taken_is_told_before_a_model_is_loaded(setting, said, monkeypatch):
    monkeypatch.setattr("cloud_verifier.server.build_engine", pytest.fail)

    async def start(port):
        async with serve(VerifierConfig(**{"port": 0, setting: port})):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match=said):
        asyncio.run(start(taken.getsockname()[1]))
