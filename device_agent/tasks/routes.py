"""``POST /v1/stream/{session_id}/pause`` and ``/resume``, and ``DELETE`` of it: an answer is held, goes on, is cancelled."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from device_agent import schema
from device_agent.door import tenant_of
from device_agent.stream import Stream

PATH = "/v1/stream/{session_id}"


def add_to(app: FastAPI) -> None:
    """Register them."""
    for path, method, route, what, state in (
        (PATH + "/pause", "POST", _pause, "Pause an answer", "paused"),
        (PATH + "/resume", "POST", _go_on, "Let a paused answer go on", "running"),
        (PATH, "DELETE", _cancel, "Cancel an answer", "ended"),
    ):
        told = schema.control_operation(what, state)
        app.add_api_route(path, route, methods=[method], response_class=Response, openapi_extra=told)


async def _pause(request: Request) -> JSONResponse:
    stream = _found(request)
    stream.pause()
    return _told(stream)


async def _go_on(request: Request) -> JSONResponse:
    stream = _found(request)
    stream.resume()
    return _told(stream)


async def _cancel(request: Request) -> JSONResponse:
    """It has ended when this is answered; its events can still be read."""
    stream = _found(request)
    await stream.aclose()
    return _told(stream)


def _found(request: Request) -> Stream:
    """Raises ``SessionNotFoundError``."""
    found: Stream = request.app.state.kept.find(request.path_params["session_id"], tenant_of(request))
    return found


def _told(stream: Stream) -> JSONResponse:
    """What the answer does now: a word that is right also where there was nothing to do."""
    return JSONResponse({"session_id": stream.session_id, "state": stream.state.value})
