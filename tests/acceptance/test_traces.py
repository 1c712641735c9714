"""Traces over real HTTP and gRPC: one trace through client, agent and verifier, and no text in it."""

from __future__ import annotations

import asyncio

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from speculation.telemetry.otel import OtelTracer
from tests.device_agent.test_door import events_of
from tests.support.keys import ALICE
from tests.support.services import MARKER, services

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STOP = "never this"


async def traced(folder, headers=None, **body):
    """The last event of one answer, then the spans of the agent and of the verifier."""
    exporters = InMemorySpanExporter(), InMemorySpanExporter()
    names = ("outrider-agent", "outrider-verifier")
    tracers = [OtelTracer(name, SimpleSpanProcessor(exporter)) for name, exporter in zip(names, exporters, strict=True)]
    async with asyncio.timeout(30), services(folder, *tracers) as client:
        alice = await client(ALICE)
        alice.headers.update(headers or {})
        last = (await events_of(alice, prompt=MARKER, stop=[STOP], **body))[-1]
    return last, *(exporter.get_finished_spans() for exporter in exporters)


async def test_one_trace_goes_through_the_client_the_agent_and_the_verifier(tmp_path):
    _, (asked,), (verified,) = await traced(tmp_path, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert {f"{span.context.trace_id:032x}" for span in (asked, verified)} == {TRACE}
    assert f"{asked.parent.span_id:016x}" == PARENT
    assert verified.parent.span_id == asked.context.span_id
    assert (asked.kind, verified.kind) == (SpanKind.SERVER, SpanKind.SERVER)
    services_named = [span.resource.attributes["service.name"] for span in (asked, verified)]
    assert services_named == ["outrider-agent", "outrider-verifier"]


async def test_with_a_trace_of_the_clients_that_means_nothing_one_begins_at_the_agent(tmp_path):
    _, (asked,), (verified,) = await traced(tmp_path, {"traceparent": "00-nonsense"})
    assert asked.parent is None
    assert verified.context.trace_id == asked.context.trace_id


async def test_a_client_that_records_nothing_is_heeded(tmp_path):
    _, asked, verified = await traced(tmp_path, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert (asked, verified) == ((), ())


async def test_spans_tell_of_the_request_and_of_speculation_and_of_no_text(tmp_path):
    last, (asked,), (verified,) = await traced(tmp_path, temperature=0.5, top_p=0.9)
    told, usage = asked.attributes, last["usage"]
    assert asked.parent is None
    assert verified.context.trace_id == asked.context.trace_id
    assert asked.name == "text_completion full"
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("text_completion", "outrider")
    assert (told["gen_ai.request.temperature"], told["gen_ai.request.top_p"], told["gen_ai.request.seed"]) == (0.5, 0.9, 3)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (len(MARKER), 12)
    assert told["gen_ai.response.finish_reasons"] == ("length",)
    assert told["gen_ai.response.id"] == verified.attributes["outrider.session_id"]
    for name in ("proposed", "accepted", "passes"):
        assert told[f"outrider.spec.{name}"] == verified.attributes[f"outrider.spec.{name}"] == usage[name]
    assert told["outrider.spec.revoked"] >= 0
    assert verified.attributes["outrider.tenant"] == "alice"
    text = asked.to_json() + verified.to_json()
    secrets = (MARKER, last["text"], STOP, ALICE, str(list(last["token_ids"]))[1:-1])
    assert [secret for secret in secrets if secret in text] == []


async def test_what_fails_is_told_by_its_kind_without_its_words(tmp_path):
    exporter = InMemorySpanExporter()
    async with services(tmp_path, OtelTracer("outrider-agent", SimpleSpanProcessor(exporter))) as client:
        response = await (await client(ALICE)).post("/v1/stream", json={"prompt": MARKER, "max_tokens": 10**6})
    (refused,) = exporter.get_finished_spans()
    assert response.status_code == 400
    assert (refused.attributes["error.type"], refused.status.status_code) == ("InvalidRequestError", StatusCode.ERROR)
    assert MARKER not in refused.to_json()
    assert refused.status.description is None
