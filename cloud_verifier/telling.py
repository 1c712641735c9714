"""What a verifier's log and its spans tell of one session: whose, how it ended, what it took, and of no text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cloud_verifier.live import LiveSession
from speculation.errors import status_of
from speculation.telemetry.spans import TRACEPARENT, Span, Tracer
from speculation.wire import codec

_log = logging.getLogger(__name__)


@contextmanager
def closing_span(tracer: Tracer, model: str, metadata: Iterable[tuple[str, Any]] | None) -> Iterator[Span]:
    """A span of one stream, the child of the one that the call's metadata names. It ends with the block."""
    parent = next((value for name, value in metadata or () if name == TRACEPARENT), None)
    method = {"rpc.system": "grpc", "rpc.service": codec.SERVICE, "rpc.method": codec.METHOD}
    span = tracer.start(f"verify {model}", method | {"gen_ai.request.model": model}, parent)
    try:
        yield span
    finally:
        span.end()


@contextmanager
def told(live: LiveSession, span: Span) -> Iterator[None]:
    """Once the block is left, the log and the span tell of the session."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        yield
    finally:
        _log_end(live, loop.time() - began_s)
        _tell(live, span)


def whose(live: LiveSession) -> dict[str, Any]:
    """By what a session is found again in the log."""
    return {"session_id": live.session_id, "attempt": live.attempt, "tenant": live.account.tenant.name, "pair": live.pair}


def _log_end(live: LiveSession, duration_s: float) -> None:
    error, usage = live.outbox.error, live.state.usage
    status = "OK" if error is None else status_of(error).grpc
    took = {"status": status, "duration_s": round(duration_s, 6)}
    figures = {"final_tokens": usage.completion_tokens, "passes": usage.passes, "near_ties": usage.near_ties}
    _log.info("a session ended", extra=whose(live) | took | figures)


def _tell(live: LiveSession, span: Span) -> None:
    usage, finished = live.state.usage, live.state.finished
    counted = ("passes", "proposed", "accepted", "late", "corrections", "discarded", "near_ties")
    span.tell({f"outrider.{name}": value for name, value in whose(live).items()})
    span.tell({f"outrider.spec.{name}": getattr(usage, name) for name in counted})
    span.tell(
        {
            "gen_ai.response.finish_reasons": None if finished is None else (finished.reason.value,),
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
        }
    )
