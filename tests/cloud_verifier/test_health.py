"""The health service over real gRPC: all of its methods answer, and nothing that is sent to it makes the log shout."""

import asyncio
import logging
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_verifier.health import SERVED
from cloud_verifier.server import serve
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import settings
from tests.cloud_verifier.sessions import LIMIT_S

SERVING = health_pb2.HealthCheckResponse.SERVING


def shouted(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@asynccontextmanager
async def asked():
    _, full_model = doubles.watched()
    serving = serve(settings(), full_model=full_model)
    async with asyncio.timeout(LIMIT_S), serving as running, grpc.aio.insecure_channel(running.target) as channel:
        yield channel


async def test_the_list_says_of_each_service_what_a_check_says(caplog):
    async with asked() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        listed = await health.List(health_pb2.HealthListRequest())
        assert {name: told.status for name, told in listed.statuses.items()} == dict.fromkeys(SERVED, SERVING)
        for name in SERVED:
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    assert shouted(caplog) == []


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
@pytest.mark.parametrize("data", [b"\xff\xff", b"\x0a\x7fa"])
async def test_bytes_that_are_no_request_are_refused_and_not_logged_as_a_failure(data, method, caplog):
    async with asked() as channel:
        call = channel.unary_stream(f"/grpc.health.v1.Health/{method}")(data)
        with pytest.raises(grpc.aio.AioRpcError, match="the bytes are no Health") as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert shouted(caplog) == []


async def test_who_watches_is_told_at_once_and_a_name_nobody_has_is_unknown(caplog):
    async with asked() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        for name, status in (("", SERVING), ("nobody", health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)):
            watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
            assert (await watch.read()).status == status
            watch.cancel()
    assert shouted(caplog) == []
