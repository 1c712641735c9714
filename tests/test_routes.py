"""With keys nothing but health, and the files of the agent's page, answers who has none: every route of every service is asked,
found by what is registered."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from importlib import resources
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from cloud_verifier import server
from device_agent import api, page
from device_agent.subprotocols import key_name
from speculation.keys import load_keys
from speculation.telemetry import exposition
from speculation.tenants import bearer
from speculation.wire import codec
from tests.cloud_verifier import doubles as verifiers
from tests.device_agent import doubles as agents
from tests.support.keys import WRONG, key_file

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
NOWHERE = (
    "",
    "/",
    "/nowhere",
    "//health",
    "/health/",
    "/health/..",
    "/HEALTH",
    "/v1/health",
    "/docs",
    "/metrics/",
    "/%68ealth",
)
NO_KEYS = ((), ((b"authorization", bearer(WRONG).encode()),), ((b"authorization", b"\xff\xfe"),))
NO_SUBPROTOCOLS = ((), ("outrider", key_name(WRONG)), ("outrider", "key.\xff"), ("key.",))
LIMIT_S = 20


def paths_of(routes: list[BaseRoute]) -> set[str]:
    """Every path of a table of routes, with a name in place of each parameter; a kind of route unknown here is a fault."""
    paths: set[str] = set()
    for route in routes:
        assert isinstance(route, Route | WebSocketRoute | Mount), f"teach this walk what {type(route)} is"
        filled = route.path
        for name in route.param_convertors:
            filled = filled.replace(f"{{{name}}}", "x").replace(f"{{{name}:path}}", "x/y")
        paths |= {filled, filled + "/deeper"}
    return paths


def sockets_of(routes: list[BaseRoute]) -> set[str]:
    return {route.path for route in routes if isinstance(route, WebSocketRoute)}


async def first_answer(app, kind, method, path, headers, subprotocols=()):
    """What a service answers before it is sent a byte of a body; asking for one is a fault."""
    sent = []

    async def receive():
        raise AssertionError(f"{method} {path}: the body was read")

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
    scope["subprotocols"] = list(subprotocols)
    headers = [(b"host", b"localhost"), *headers]
    await app(scope | {"method": method, "scheme": "http", "http_version": "1.1", "headers": headers}, receive, send)
    return sent[0].get("status", sent[0]["type"])


async def whole_body(app, path, query):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query}
    await app(scope | {"scheme": "http", "http_version": "1.1", "headers": [(b"host", b"localhost")]}, None, send)
    return b"".join(message.get("body", b"") for message in sent)


async def open_ways(app):
    """Every (path, method) of an application that answers a caller without a key otherwise than with 401."""
    found = set()
    for path in sorted(paths_of(app.routes) | set(NOWHERE)):
        for headers in NO_KEYS:
            asked = [("http", method, ()) for method in METHODS] + [("websocket", "GET", names) for names in NO_SUBPROTOCOLS]
            for kind, method, subprotocols in asked:
                if await first_answer(app, kind, method, path, headers, subprotocols) != 401:
                    found.add((path, method))
    return found


async def test_of_the_agents_routes_health_alone_is_open_whatever_the_method_and_its_pages_files_for_reading(tmp_path):
    async with agents.agent_of(None, keys=key_file(tmp_path)) as agent:
        app = api.build_app(agent)
        told = {"/health", "/metrics", "/v1/stream", "/v1/stream/x", "/openapi.json", "/v1/prompts", "/docs"}
        assert paths_of(app.routes) >= told
        assert sockets_of(app.routes) == {"/v1/stream"}
        files = {("/", "GET"), ("/", "HEAD")} | {(path, method) for path in page.PATHS for method in ("GET", "HEAD")}
        found = await open_ways(app)
        assert {path for path, _ in found - files} == {"/health"}
        assert files <= found


async def test_what_the_agents_page_serves_without_a_key_is_what_the_package_holds_whoever_asks_and_however(tmp_path):
    async with agents.agent_of(None, keys=key_file(tmp_path)) as agent:
        app = api.build_app(agent)
        for path, name in page.PATHS.items():
            served = {await whole_body(app, path, query) for query in (b"", b"name=../keys.toml", b"key=x")}
            assert served == {(resources.files("device_agent") / "static" / name).read_bytes()}, path


async def test_of_the_routes_for_figures_none_is_open(tmp_path):
    for host in ("127.0.0.1", "0.0.0.0"):
        app = exposition.build_app(CollectorRegistry(), host, load_keys(key_file(tmp_path)))
        assert "/metrics" in paths_of(app.routes)
        assert await open_ways(app) == set()


@asynccontextmanager
async def verifier_and_its_handlers(tmp_path, monkeypatch):
    """A verifier that runs, a channel to it, and every method that was registered: path to handler."""
    handlers = {}
    make = grpc.aio.server

    def recording(*args, **options):
        made = make(*args, **options)
        add, add_named = made.add_generic_rpc_handlers, made.add_registered_method_handlers
        made_here = SimpleNamespace(**{name: getattr(made, name) for name in ("start", "stop", "add_insecure_port")})

        def add_generic(generic):
            add(generic)
            for one in generic:
                handlers.update(one._method_handlers)

        def add_registered(service, methods):
            add_named(service, methods)
            handlers.update({f"/{service}/{method}": handler for method, handler in methods.items()})

        made_here.add_generic_rpc_handlers, made_here.add_registered_method_handlers = add_generic, add_registered
        return made_here

    monkeypatch.setattr(server.grpc.aio, "server", recording)
    _, full_model = verifiers.watched()
    serving = server.serve(verifiers.settings(keys=key_file(tmp_path)), full_model=full_model)
    async with asyncio.timeout(LIMIT_S), serving as running, grpc.aio.insecure_channel(running.target) as channel:
        yield running, channel, handlers


def call_of(channel, path, handler):
    """A call of the kind that a method is. Where the caller streams, nothing is ever sent."""
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    method = getattr(channel, kind)(path)
    return method() if handler.request_streaming else method(health_pb2.HealthCheckRequest().SerializeToString())


async def status_of(call):
    """The status that a call ends with; OK where it answers."""
    try:
        await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    call.cancel()
    return grpc.StatusCode.OK


async def test_of_the_verifiers_methods_health_alone_is_open(tmp_path, monkeypatch, caplog):
    async with verifier_and_its_handlers(tmp_path, monkeypatch) as (running, channel, handlers):
        assert {codec.METHOD_PATH, "/grpc.health.v1.Health/Check"} <= set(handlers)
        answers = {path: await status_of(call_of(channel, path, handler)) for path, handler in handlers.items()}
        is_open = {path for path, status in answers.items() if status is grpc.StatusCode.OK}
        assert is_open == {path for path in handlers if path.startswith("/grpc.health.v1.Health/")}
        assert {answers[path] for path in set(handlers) - is_open} == {grpc.StatusCode.UNAUTHENTICATED}
        assert running.verifier.statistics.received_bytes == running.verifier.statistics.sessions == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_method_beside_one_that_is_registered_is_closed_too(kind, tmp_path, monkeypatch):
    async with verifier_and_its_handlers(tmp_path, monkeypatch) as (_, channel, handlers):
        for service in {path.rpartition("/")[0] for path in handlers} - {"/grpc.health.v1.Health"}:
            for path in (f"{service}/AddedLater", f"{service}x/Check", f"{service}/"):
                call = getattr(channel, kind)(path)(*([] if kind.startswith("stream") else [b""]))
                assert await status_of(call) is grpc.StatusCode.UNAUTHENTICATED, path
