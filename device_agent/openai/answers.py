"""Answers to clients of OpenAI's API over HTTP, whole or in chunks. Who goes away gives the answer up, for none can read on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from device_agent.events import (
    CorrectEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    Json,
    SessionEvent,
    code_of,
    error_object,
    retry_headers,
)
from device_agent.logprobs import FinalLikelihood
from device_agent.openai.chunks import Chunks
from device_agent.openai.shapes import Head, Shape, whole_answer
from device_agent.stream import Stream
from speculation.errors import STATUS, LinkError, status_of

KEEP_ALIVE_S = 15.0
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_TELLING = (CorrectEvent, DoneEvent, ErrorEvent)
_STATUSES = {code_of(leaf): status.http for leaf, status in STATUS.items()}


async def whole(request: Request, stream: Stream, shape: Shape, created: int) -> Response:
    """The answer once it is there, or the error that it ended with, under the error's own status."""
    events: list[Event] = []
    async with _given_up_with(request, stream):
        while taken := await stream.take():
            events += [event for event in taken if isinstance(event, SessionEvent | CorrectEvent | DoneEvent | ErrorEvent)]
    match events:
        case [SessionEvent() as session, *pieces, DoneEvent() as done]:
            head = Head.of(session, shape.prefix, created)
            return JSONResponse(whole_answer(shape, head, done, _logprobs_of(pieces)), headers=HEADERS)
        case [*_, ErrorEvent() as failed]:
            return _failure(failed)
    return JSONResponse({"error": _broken_off()}, status_of(LinkError()).http)


def _logprobs_of(pieces: Sequence[Event]) -> list[FinalLikelihood] | None:
    """Of all that is final; None where none are told."""
    told = [piece.logprobs for piece in pieces if isinstance(piece, CorrectEvent) and piece.logprobs is not None]
    return [one for some in told for one in some] if told else None


async def streamed(request: Request, stream: Stream, chunks: Chunks) -> Response:
    """The answer in chunks. It begins with the first text, so that what fails before has a status that clients understand."""
    async with _given_up_with(request, stream):
        events = await _first(stream)
    if isinstance(events[-1], ErrorEvent) and not any(isinstance(event, CorrectEvent) for event in events):
        return _failure(events[-1])
    return ChunkResponse(stream, chunks, events)


@contextlib.asynccontextmanager
async def _given_up_with(request: Request, stream: Stream) -> AsyncIterator[None]:
    """While the block waits for the stream, a client that goes away ends it; so does an error, or a cancellation."""
    is_well = False
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_close_when_gone(request, stream))
        try:
            yield
            is_well = True
        finally:
            watching.cancel()
            if not is_well:
                await stream.aclose()


async def _close_when_gone(request: Request, stream: Stream) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    await stream.aclose()


async def _first(stream: Stream) -> list[Event]:
    """Events up to the first that a client is told of; none may have come after ``KEEP_ALIVE_S``."""
    events: list[Event] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KEEP_ALIVE_S):
            while not any(isinstance(event, _TELLING) for event in events):
                events += await stream.take()
    return events


def _failure(failed: ErrorEvent) -> Response:
    status = _STATUSES.get(failed.error["code"], 500)
    return JSONResponse({"error": failed.error}, status, retry_headers(failed.retry_after_s))


def _broken_off() -> Json:
    return error_object(LinkError("the answer broke off"))


class ChunkResponse(StreamingResponse):
    """Chunks of a stream as server-sent events, beginning with ``events`` that were taken already."""

    media_type = "text/event-stream"

    def __init__(self, stream: Stream, chunks: Chunks, events: list[Event]) -> None:
        super().__init__(_pieces(stream, chunks, events), headers=HEADERS)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stream.aclose()


async def _pieces(stream: Stream, chunks: Chunks, events: list[Event]) -> AsyncIterator[bytes]:
    """A comment goes out where nothing is for long."""
    while True:
        if lines := chunks.lines(events):
            yield lines.encode()
        if chunks.is_over:
            return
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                events = await stream.take()
        except TimeoutError:
            events = []
            yield b": keep-alive\n\n"
