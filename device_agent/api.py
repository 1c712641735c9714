"""The agent over HTTP: ``/v1/stream`` as events that can be read on, ``/health``. Refusals are OpenAI's objects."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib import metadata

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from device_agent import api_page, schema, timeline_routes
from device_agent.agent import DeviceAgent
from device_agent.answers import read_on
from device_agent.beginning import begin_kept
from device_agent.bodies import HEADERS, form_of, last_read, pieces
from device_agent.described import Described
from device_agent.door import KeyDoor
from device_agent.emulation import routes as emulation_routes
from device_agent.events import error_fields, error_object, retry_headers
from device_agent.formats import SSE, Format
from device_agent.guard import LoopbackGuard, OriginGuard
from device_agent.kept import KeptStreams
from device_agent.openai import routes as openai_routes
from device_agent.page import PATHS as PUBLIC
from device_agent.page import add_to as add_page
from device_agent.refusals import RefusalCount
from device_agent.sockets import talk
from device_agent.stream import Reader, Stream
from device_agent.tasks import graph_routes
from device_agent.tasks import routes as task_routes
from speculation.errors import CapacityError, OutriderError, status_of
from speculation.keys import load_keys
from speculation.listening import is_loopback
from speculation.telemetry import exposition
from speculation.tenants import Accounts

KEEP_ALIVE_S = 15.0
MAX_ECHO_CHARACTERS = 200
"""Of a path that is told back: it is the client's own."""

_CODES = {413: "body_too_large"}  # its phrase is another one from Python 3.13 on

_log = logging.getLogger(__name__)


def build_app(agent: DeviceAgent) -> FastAPI:
    """The application around an agent that is running. Raises ``ConfigurationError`` for a file of keys that cannot be."""
    app = Described(title="Outrider device agent", version=metadata.version("outrider"), docs_url=None, redoc_url=None)
    app.state.agent = agent
    app.state.kept = KeptStreams(agent.config.resume_window_s, agent.config.max_kept_streams)
    app.state.accounts = Accounts()
    if agent.config.keys is not None:
        app.add_middleware(KeyDoor, keyring=load_keys(agent.config.keys), public=PUBLIC)
    if is_loopback(agent.config.host):
        app.add_middleware(LoopbackGuard, allowed_hosts=agent.config.allowed_hosts)
    else:
        app.add_middleware(OriginGuard, allowed_hosts=agent.config.allowed_hosts)
    app.add_middleware(RefusalCount, refused=agent.metrics.refused)  # in front of the doors, whose refusals count, too
    app.add_exception_handler(OutriderError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _fail)
    begins, resumes = schema.stream_operation(), schema.resume_operation()
    app.add_api_route("/v1/stream", _stream, methods=["POST"], response_class=Response, openapi_extra=begins)
    app.add_api_websocket_route("/v1/stream", talk)
    path = "/v1/stream/{session_id}"
    app.add_api_route(path, _resume, methods=["GET"], response_class=Response, openapi_extra=resumes)
    timeline_routes.add_to(app)
    task_routes.add_to(app)
    graph_routes.add_to(app)
    emulation_routes.add_to(app)
    openai_routes.add_to(app)
    health, figures = schema.health_operation(), schema.metrics_operation()
    app.add_api_route("/health", _health, methods=["GET"], response_class=Response, openapi_extra=health)
    app.add_api_route("/health", _health, methods=["HEAD"], include_in_schema=False)  # what load balancers ask
    app.add_api_route(exposition.PATH, _metrics, methods=["GET"], response_class=Response, openapi_extra=figures)
    add_page(app)
    api_page.add_to(app)
    return app


async def _health(request: Request) -> JSONResponse:
    agent: DeviceAgent = request.app.state.agent
    return JSONResponse(agent.health())


async def _metrics(request: Request) -> Response:
    agent: DeviceAgent = request.app.state.agent
    return await exposition.response_of(agent.metrics.registry)


async def _stream(request: Request) -> Response:
    """Generate an answer. Server-sent events: ``id`` is ``seq``, ``event`` the name, ``data`` the event as JSON; or, for who
    accepts ``application/x-ndjson``, an event a line."""
    stream = await begin_kept(request)
    return EventStreamResponse(stream, stream.reader, request.app.state.agent.config.resume_grace_s, form_of(request))


async def _resume(request: Request) -> Response:
    """Read an answer on, behind ``starting_after`` or ``Last-Event-ID``. Who reads it now gets no more. 204: all was read."""
    stream, reader = read_on(request, request.path_params["session_id"], last_read(request))
    if not reader.has_more:
        return Response(status_code=204, headers=HEADERS)
    return EventStreamResponse(stream, reader, request.app.state.agent.config.resume_grace_s, form_of(request))


class EventStreamResponse(StreamingResponse):
    """What a reader of a stream takes. A client that goes away has ``grace_s`` to come back."""

    def __init__(self, stream: Stream, reader: Reader, grace_s: float, form: Format = SSE) -> None:
        super().__init__(_chunks(reader, form), headers=HEADERS, media_type=form.media_type)
        self._stream = stream
        self._reader = reader
        self._grace_s = grace_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stream.leave(self._reader, self._grace_s)


def _chunks(reader: Reader, form: Format) -> AsyncIterator[bytes]:
    return pieces(reader.take, form, KEEP_ALIVE_S)


async def _refuse(request: Request, error: Exception) -> Response:
    headers = retry_headers(error.retry_after_s) if isinstance(error, CapacityError) else {}
    return JSONResponse({"error": error_object(error)}, status_of(error).http, headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    body = {"error": error_fields(_what_would_be_right(request, error), error.status_code, code)}
    return JSONResponse(body, error.status_code, error.headers)


def _what_would_be_right(request: Request, error: HTTPException) -> str:
    """The framework itself says of a route that it does not know no more than that."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return str(error.detail)
    path, routes = request.url.path[:MAX_ECHO_CHARACTERS], f"{str(request.base_url).rstrip('/')}/docs"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"there is no route {path}; {routes} tells all that there are"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not take {request.method}; {routes} tells what each route takes"
    return str(error.detail)


async def _fail(request: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return JSONResponse({"error": error_object(error)}, 500)
