"""Spans by OpenTelemetry, to a collector over OTLP; the library is the extra ``outrider[otel]``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from speculation.errors import ConfigurationError
from speculation.telemetry.spans import TRACEPARENT, UNTRACED, Attribute, Span, Tracer

EXPORT_TIMEOUT_S = 2
"""How long a collector that does not answer is waited for: at a service's end, too."""


def tracer_to(endpoint: str | None, service: str) -> Tracer:
    """A tracer that sends to the collector at ``endpoint`` (``http://host:4317``, gRPC); one that records nothing for None.

    Raises ``ConfigurationError`` where the extra is not installed.
    """
    if endpoint is None:
        return UNTRACED
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError("otlp_endpoint: traces need the extra: pip install 'outrider[otel]'") from None
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_S)
    return OtelTracer(service, BatchSpanProcessor(exporter))


class OtelTracer:
    """A tracer of a provider of its own: the process's global one is left alone. ``processor`` is handed the spans."""

    def __init__(self, service: str, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        facts = {"service.name": service, "service.version": metadata.version("outrider")}
        self._provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("outrider")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, name: str, attributes: Mapping[str, Attribute | None], parent: str | None = None) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        carrier = {} if parent is None else {TRACEPARENT: parent}
        context = self._propagator.extract(carrier, Context())
        span = self._tracer.start_span(name, context, SpanKind.SERVER)
        recorded = _OtelSpan(span, self._propagator)
        recorded.tell(attributes)
        return recorded

    def close(self) -> None:
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: Any, propagator: Any) -> None:
        self._span = span
        self._propagator = propagator

    @property
    def traceparent(self) -> str | None:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(self._span))
        return carrier.get(TRACEPARENT)

    def tell(self, attributes: Mapping[str, Attribute | None]) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        self.tell({"error.type": kind})
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()
