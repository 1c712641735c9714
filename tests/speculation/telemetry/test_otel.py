"""Spans on their way to a collector: by OTLP over gRPC, or a refusal that says what is missing."""

import asyncio
import sys

import grpc
import pytest

from cloud_verifier.config import VerifierConfig
from cloud_verifier.server import serve
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from speculation.errors import ConfigurationError
from speculation.telemetry.otel import tracer_to
from speculation.telemetry.spans import UNTRACED
from tests.cloud_verifier.doubles import settings, watched

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


async def test_a_collector_gets_the_spans_by_the_end_of_the_service():
    received = []

    async def export(request, _context):
        received.append(request)
        return b""

    service, _, method = EXPORT[1:].partition("/")
    handler = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(20):
        tracer = tracer_to(f"http://127.0.0.1:{port}", "outrider-agent")
        span = tracer.start("text_completion full", {"outrider.mode": "cloud", "left.out": None})
        span.end()
        await asyncio.to_thread(tracer.close)
    await server.stop(0)
    assert b"outrider-agent" in received[0]
    assert b"text_completion full" in received[0]
    assert b"left.out" not in received[0]


def test_without_an_endpoint_nothing_is_recorded_and_nothing_is_imported():
    assert tracer_to(None, "x") is UNTRACED
    assert UNTRACED.start("a", {}).traceparent is None


async def test_without_the_extra_a_service_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    endpoint = "http://127.0.0.1:4317"
    with pytest.raises(ConfigurationError, match=r"pip install 'outrider\[otel\]'"):
        async with serve(settings(otlp_endpoint=endpoint), full_model=watched()[1]):
            pass
    with pytest.raises(ConfigurationError, match=r"pip install 'outrider\[otel\]'"):
        await asyncio.to_thread(build_agent, AgentConfig(verifier=None, otlp_endpoint=endpoint))


@pytest.mark.parametrize("value", ["127.0.0.1:1", "http://host", "ftp://host:1", "http://me:secret@host:1", "http://h:1/x", 5])
@pytest.mark.parametrize("cls", [VerifierConfig, AgentConfig])
def test_an_endpoint_that_is_no_address_is_refused_and_not_repeated(cls, value):
    with pytest.raises(ConfigurationError, match="otlp_endpoint: the address of a collector") as refused:
        cls(otlp_endpoint=value)
    assert "secret" not in str(refused.value)
