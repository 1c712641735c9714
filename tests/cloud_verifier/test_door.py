"""Keys at the verifier, over real gRPC: who comes in, whose session it is, and what is told to those who do not come in."""

import asyncio
import logging
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_verifier import door
from cloud_verifier.door import Door, DoorInterceptor
from cloud_verifier.server import serve
from speculation.errors import AuthenticationError, CapacityError, SessionNotFoundError
from speculation.keys import read_keys
from speculation.links.grpc import GrpcConnector
from speculation.links.status import error_from
from speculation.protocol.messages import FinishReason
from speculation.tenants import bearer
from speculation.wire import codec
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import collect, finished_of, settings, wait_until
from tests.cloud_verifier.sessions import LIMIT_S, check_texts, held, opened, refusal
from tests.support.keys import ALICE, BOB, WRONG, key_file


@asynccontextmanager
async def serving(folder, changes=None, **limits):
    """A verifier with keys, its engine, and a function that makes a connector with a key."""
    engine, full_model = doubles.watched()
    config = settings(keys=key_file(folder, **limits), **changes or {})
    made = []
    async with asyncio.timeout(LIMIT_S), serve(config, full_model=full_model) as running:

        def connector(key):
            made.append(GrpcConnector(running.target, key=key))
            return made[-1]

        try:
            yield engine, running, connector
        finally:
            engine.gate.set()
            for one in made:
                await one.aclose()


async def test_with_a_key_the_text_is_that_of_plain_decoding(tmp_path):
    async with serving(tmp_path) as (_, _, connector):
        await check_texts(connector(ALICE), 0.7)


@pytest.mark.parametrize(
    ("key", "said"), [(None, "wants a key: send the metadata authorization"), (WRONG, "does not know the")]
)
async def test_who_has_no_key_or_a_wrong_one_does_not_come_in(key, said, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        async with serving(tmp_path) as (_, running, connector):
            with pytest.raises(AuthenticationError, match=said) as refused:
                await refusal(connector(key))
            assert running.verifier.statistics.sessions == 0
    for secret in (ALICE, BOB, WRONG):
        assert secret not in str(refused.value) + caplog.text


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", ALICE),),
        (("authorization", "Basic " + ALICE),),
        (("authorization", bearer(ALICE[:-1])),),
        (("x-api-key", ALICE),),
        (("authorization", bearer(WRONG)), ("authorization", bearer(ALICE))),
    ],
)
async def test_what_is_no_key_is_refused_before_anything_is_read(metadata, tmp_path):
    async with serving(tmp_path) as (_, running, _), grpc.aio.insecure_channel(running.target) as channel:
        call = channel.stream_stream(codec.METHOD_PATH)(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert isinstance(error_from(refused.value), AuthenticationError)


async def test_every_method_but_health_is_closed_whether_it_exists_or_not(tmp_path):
    async with serving(tmp_path) as (_, running, _), grpc.aio.insecure_channel(running.target) as channel:
        paths = [codec.METHOD_PATH, f"/{codec.SERVICE}/AddedLater", "/grpc.reflection.v1.ServerReflection/List", "/x/y"]
        paths += ["/grpc.health.v1.HealthX/Check", "/grpc.health.v1/Check", "/"]
        for path in paths:
            for method in (channel.unary_unary(path), channel.unary_stream(path)):
                call = method(b"")
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, path
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=codec.SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_a_service_that_is_added_later_is_closed(tmp_path):
    """The interceptor alone decides: this service asks nobody for anything."""

    async def answer(_request, _context):
        return b"secret"

    server = grpc.aio.server(interceptors=(DoorInterceptor(Door(read_keys(key_file(tmp_path)))),))
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("new.Service", {"Get": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(LIMIT_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get = channel.unary_unary("/new.Service/Get")
        with pytest.raises(grpc.aio.AioRpcError, match="wants a key"):
            await get(b"")
        assert await get(b"", metadata=(("authorization", bearer(BOB)),)) == b"secret"
    await server.stop(0)


async def test_the_servicer_asks_again_behind_the_interceptor(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "OPEN_METHODS", "/")
    async with serving(tmp_path) as (_, _, connector):
        with pytest.raises(AuthenticationError):
            await refusal(connector(None))


async def test_nobody_can_end_or_take_over_the_session_of_another_tenant(tmp_path):
    async with serving(tmp_path) as (engine, running, connector):
        of_alice, bob = await held(engine, connector(ALICE)), connector(BOB)
        for attempt in (1, 2, 7):
            with pytest.raises(SessionNotFoundError, match=r"^there is no such session$"):
                await refusal(bob, attempt=attempt)
        assert running.verifier.num_sessions == 1
        engine.gate.set()
        assert finished_of(await collect(of_alice)).reason is FinishReason.LENGTH


async def test_the_same_tenant_takes_over_its_own_session_even_at_its_limit(tmp_path):
    async with serving(tmp_path, max_sessions=1) as (engine, _, connector):
        await held(engine, connector(ALICE))
        newer = await opened(connector(ALICE), attempt=2)
        engine.gate.set()
        assert finished_of(await collect(newer)).reason is FinishReason.LENGTH


async def test_a_tenant_at_its_limit_is_told_when_to_come_again_and_others_come_in(tmp_path):
    async with serving(tmp_path, {"retry_after_s": 2.5}, max_sessions=1) as (engine, running, connector):
        of_alice, alice = await held(engine, connector(ALICE)), connector(ALICE)
        with pytest.raises(CapacityError, match="all 1 sessions of this tenant") as refused:
            await refusal(alice, session_id="second")
        assert refused.value.retry_after_s == 2.5
        of_bob = await opened(connector(BOB), session_id="bob's")
        engine.gate.set()
        for link in (of_alice, of_bob):
            assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        await wait_until(lambda: running.verifier.num_sessions == 0)
        assert finished_of(await collect(await opened(alice, session_id="second"))).reason is FinishReason.LENGTH


async def test_bytes_over_the_rate_are_not_read_and_a_new_session_is_refused(tmp_path):
    """An ``Open`` of some two hundred bytes is twenty seconds of this rate, ten of which are the burst."""
    async with serving(tmp_path, bytes_per_s=10) as (engine, _, connector):
        alice = connector(ALICE)
        first = await held(engine, alice)
        with pytest.raises(CapacityError, match="over its 10 bytes a second") as refused:
            await refusal(alice, session_id="second")
        assert refused.value.retry_after_s > 1
        engine.gate.set()
        assert finished_of(await collect(first)).reason is FinishReason.LENGTH
        assert finished_of(await collect(await opened(connector(BOB), session_id="third"))).reason is FinishReason.LENGTH
