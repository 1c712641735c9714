"""``/v1/stream`` over a WebSocket: one request a socket, then an event a message, and a word to cancel it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

from device_agent.agent import DeviceAgent
from device_agent.answers import begin_kept, parse, read_on
from device_agent.events import ErrorEvent, error_object
from device_agent.formats import to_text
from device_agent.stream import STARTING_AFTER, Reader, Stream
from device_agent.subprotocols import SUBPROTOCOL
from speculation.errors import CapacityError, InvalidRequestError, OutriderError, status_of

REQUEST_S = 10.0
"""How long a socket may be open before its request is there."""

DONE, REFUSED, TOO_LONG, FAILED, LATER = 1000, 1008, 1009, 1011, 1013
"""Codes a socket is closed with (RFC 6455 and IANA's registry); ``docs/stream.md`` says when."""

CANCEL = {"type": "cancel"}
_RESUMPTION = {"session_id", STARTING_AFTER}

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


async def talk(socket: WebSocket) -> None:
    """One answer over one socket. The first message is the request, or names the answer that is read on."""
    agent: DeviceAgent = socket.app.state.agent
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)
    with contextlib.suppress(WebSocketDisconnect):
        try:
            stream, reader = await _asked(socket, agent.config.max_body_bytes)
        except (OutriderError, TimeoutError) as error:
            await _refuse(socket, error)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            _log.error("a request failed", exc_info=error)
            await _refuse(socket, error)
        else:
            await _answer(socket, stream, reader)


async def _asked(socket: WebSocket, limit_bytes: int) -> tuple[Stream, Reader]:
    async with asyncio.timeout(REQUEST_S):
        data = await _receive(socket, limit_bytes)
    if b'"session_id"' in data and isinstance(named := parse(data), dict) and "session_id" in named:
        return _read_on(socket, named)

    async def ask(count: Callable[[int], None]) -> Any:
        count(len(data))
        return parse(data)

    stream = await begin_kept(socket, ask)
    return stream, stream.reader


def _read_on(socket: WebSocket, named: dict[str, Any]) -> tuple[Stream, Reader]:
    for key in named.keys() - _RESUMPTION:
        raise InvalidRequestError(f"beside session_id stands {STARTING_AFTER} alone, not {key[:40]!r}", key)
    if not isinstance(named["session_id"], str):
        raise InvalidRequestError("session_id must be a string", "session_id")
    return read_on(socket, named["session_id"], named.get(STARTING_AFTER))


async def _receive(socket: WebSocket, limit_bytes: int) -> bytes:
    """One message. Raises ``WebSocketDisconnect`` where none comes any more, and behind one that is too long."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", FAILED))
    text: str | None = message.get("text")
    data: bytes = message["bytes"] if text is None else text.encode("utf-8", "surrogatepass")
    if len(data) > limit_bytes:
        await socket.close(TOO_LONG)
        raise WebSocketDisconnect(TOO_LONG)
    return data


async def _answer(socket: WebSocket, stream: Stream, reader: Reader) -> None:
    """Events go out while messages come in; whichever ends first ends both. A client that goes away may come back."""
    config = socket.app.state.agent.config
    try:
        async with asyncio.TaskGroup() as tasks:
            both = writing, hearing = (
                tasks.create_task(_write(socket, reader)),
                tasks.create_task(_hear(socket, stream, reader, config.max_body_bytes)),
            )
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
        await _close(socket, _result(writing), _result(hearing))
    finally:
        await stream.leave(reader, config.resume_grace_s)


async def _close(socket: WebSocket, has_written: bool | None, fault: str | None) -> None:
    if has_written:
        await socket.close(DONE)
    elif fault is not None:
        await socket.close(REFUSED, fault)


async def _write(socket: WebSocket, reader: Reader) -> bool:
    """Whether all that this reader may have was sent; not where the client is gone."""
    try:
        while events := await reader.take():
            for event in events:
                await socket.send_text(to_text(event.to_json()))
    except WebSocketDisconnect:
        return False
    return True


async def _hear(socket: WebSocket, stream: Stream, reader: Reader, limit_bytes: int) -> str | None:
    """Cancels the answer where the client says so. What it did wrong, None where it went away."""
    while True:
        try:
            said = parse(await _receive(socket, limit_bytes))
        except WebSocketDisconnect:
            return None
        except InvalidRequestError:
            said = None
        if said != CANCEL:
            return 'one request a socket; behind it {"type": "cancel"} alone'
        if stream.is_read_by(reader):
            await stream.aclose()


def _result(task: asyncio.Task[_T]) -> _T | None:
    return None if task.cancelled() else task.result()


async def _refuse(socket: WebSocket, error: Exception) -> None:
    """The error as the only event, then a code that says whether to come again."""
    if isinstance(error, TimeoutError):
        error = InvalidRequestError(f"no request came within {REQUEST_S:g} s")
    status = status_of(error).http
    socket.app.state.agent.metrics.refused(status)
    await socket.send_text(to_text(ErrorEvent(0, error_object(error)).to_json()))
    await socket.close(_code(status), _when(error))


def _code(status: int) -> int:
    if status in (429, 503):
        return LATER
    return REFUSED if status < 500 else FAILED


def _when(error: Exception) -> str | None:
    if isinstance(error, CapacityError) and error.retry_after_s is not None:
        return f"retry-after-ms: {round(error.retry_after_s * 1000)}"
    return None
