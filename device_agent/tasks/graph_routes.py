"""``/v1/tasks``: a graph of sub-tasks runs while its client reads; it can be looked at, paused, cancelled and drawn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from device_agent.answers import begin_within
from device_agent.beginning import body_of
from device_agent.bodies import HEADERS, form_of, pieces
from device_agent.door import tenant_of
from device_agent.formats import Format
from device_agent.kept import Kept
from device_agent.schema import graphs as told
from device_agent.tasks import graph_svg
from device_agent.tasks.graph import TaskGraph
from device_agent.tasks.graph_run import GraphRun
from speculation.errors import CapacityError
from speculation.tenants import Tenant

PATH = "/v1/tasks"
ONE = PATH + "/{graph_id}"
KEEP_ALIVE_S = 15.0
MAX_RUNNING = 16
"""Graphs at once; how many answers they write together is bounded by the agent's places."""

_log = logging.getLogger(__name__)


class KeptGraphs(Kept[GraphRun]):
    """Graphs that run, and those that ended a short while ago."""

    name, title = "graph of sub-tasks", "one"

    def __init__(self, window_s: float, max_ended: int) -> None:
        super().__init__(window_s, max_ended)
        self._num_beginning = 0

    @contextlib.contextmanager
    def beginning(self, retry_after_s: float) -> Iterator[None]:
        """One more is judged, and begins, in the block: others come meanwhile. Raises ``CapacityError`` for one too many."""
        if self.num_running + self._num_beginning >= MAX_RUNNING:
            why = f"{MAX_RUNNING} graphs of sub-tasks run already; one of them has to end or be cancelled first"
            raise CapacityError(why, retry_after_s)
        self._num_beginning += 1
        try:
            yield
        finally:
            self._num_beginning -= 1


def add_to(app: FastAPI) -> None:
    """Register them."""
    config = app.state.agent.config
    app.state.graphs = KeptGraphs(config.resume_window_s, config.max_kept_streams)
    for path, method, route, operation in (
        (PATH, "POST", _run_graph, told.begin_operation()),
        (ONE, "GET", _look_at_graph, told.look_operation()),
        (ONE, "DELETE", _cancel_graph, told.control_operation("Cancel a graph of sub-tasks", "cancelled")),
        (ONE + "/pause", "POST", _pause_graph, told.control_operation("Pause a graph of sub-tasks", "paused")),
        (ONE + "/resume", "POST", _resume_graph, told.control_operation("Let a paused graph go on", "running")),
        (ONE + "/timeline.svg", "GET", _draw_graph, told.picture_operation()),
    ):
        app.add_api_route(path, route, methods=[method], response_class=Response, openapi_extra=operation)


async def _run_graph(request: Request) -> Response:
    """Run a graph of sub-tasks, and tell what happens. It ends with its connection, or with ``DELETE``."""
    graph = await asyncio.to_thread(TaskGraph.from_json, await body_of(request))  # many templates take some 0.2 s to compile
    kept: KeptGraphs = request.app.state.graphs
    agent = request.app.state.agent
    run = GraphRun(agent, graph, start=partial(begin_within, request))
    with kept.beginning(agent.config.retry_after_s):
        await run.open()
        kept.keep_as(run.graph_id, run, tenant_of(request))
    run.when_over(partial(_tell, run, tenant_of(request)))
    return GraphResponse(run, form_of(request))


class GraphResponse(StreamingResponse):
    """The events of a graph, which runs for as long as they are read."""

    def __init__(self, run: GraphRun, form: Format) -> None:
        super().__init__(pieces(run.take, form, KEEP_ALIVE_S), headers=HEADERS, media_type=form.media_type)
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._run.working():
                await super().__call__(scope, receive, send)
        finally:
            self._run.drop()


async def _look_at_graph(request: Request) -> JSONResponse:
    """Where each sub-task is, and what those that are done wrote."""
    run = _found(request)
    board = run.board
    return JSONResponse(
        {
            "graph_id": run.graph_id,
            "status": run.status,
            "at_ms": round(run.now_ms, 3),
            "critical_path": board.critical() if run.is_over else [],
            "results": {name: entry.result() for name, entry in board.entries.items()},
            "schedule": [entry.to_json() for entry in board.entries.values()],
        },
        headers=HEADERS,
    )


async def _draw_graph(request: Request) -> Response:
    """The schedule so far as a picture, SVG without script or style."""
    run = _found(request)
    schedule = [entry.to_json() for entry in run.board.entries.values()]
    picture = graph_svg.drawn(schedule, run.now_ms, run.board.critical() if run.is_over else (), run.status)
    policy = {"content-security-policy": "default-src 'none'", "x-content-type-options": "nosniff"}
    return Response(picture, media_type=graph_svg.MEDIA_TYPE, headers={**HEADERS, **policy})


async def _pause_graph(request: Request) -> JSONResponse:
    run = _found(request)
    run.pause()
    return _state(run)


async def _resume_graph(request: Request) -> JSONResponse:
    run = _found(request)
    run.resume()
    return _state(run)


async def _cancel_graph(request: Request) -> JSONResponse:
    """All of it has ended when this is answered; what was done can still be looked at."""
    run = _found(request)
    await run.aclose()
    return _state(run)


def _found(request: Request) -> GraphRun:
    """Raises ``SessionNotFoundError``."""
    found: GraphRun = request.app.state.graphs.find(request.path_params["graph_id"], tenant_of(request))
    return found


def _state(run: GraphRun) -> JSONResponse:
    return JSONResponse({"graph_id": run.graph_id, "status": run.status})


def _tell(run: GraphRun, tenant: Tenant) -> None:
    """Tells the log of a graph that is over: whose, how it ended, how long it took, and of no text."""
    entries = list(run.board.entries.values())
    counts = {"sub_tasks": len(entries), "tokens": sum(entry.tokens for entry in entries)}
    whose = {"graph_id": run.graph_id, "tenant": tenant.name, "status": run.status}
    _log.info("a graph of sub-tasks ended", extra=whose | counts | {"duration_s": round(run.now_ms / 1000, 6)})
