"""Figures as Prometheus reads them: their text, and a small HTTP service for it where a service has none of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from speculation.errors import ConfigurationError
from speculation.http_server import HttpServer, tls_settings
from speculation.listening import bind, is_loopback
from speculation.tenants import AUTHORIZATION, Keyring

PATH = "/metrics"
FLUSH_S = 2


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What stands in for a registry where its text is made."""

    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families


async def response_of(registry: CollectorRegistry) -> Response:
    """All figures as text. They are read on the event loop, where they are counted; the text is made elsewhere."""
    return Response(await asyncio.to_thread(generate_latest, snapshot(registry)), media_type=CONTENT_TYPE_LATEST)


def snapshot(registry: CollectorRegistry) -> CollectorRegistry:
    """The figures of this moment, as a registry that does not change."""
    return cast(CollectorRegistry, _Snapshot(list(registry.collect())))


@dataclass(frozen=True, slots=True)
class Listener:
    """Where figures are served, and how; port 0 takes a free one. Without ``certificate`` in plain text."""

    host: str
    port: int
    certificate: Path | None = None
    certificate_key: Path | None = None
    client_authorities: Path | None = None

    def bind(self) -> socket.socket:
        """Raises ``ConfigurationError``."""
        try:
            return bind(self.host, self.port)
        except ConfigurationError as error:
            raise ConfigurationError(f"metrics: {error}") from error

    def url(self, port: int) -> str:
        """Of the figures, once it listens on ``port``."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{port}{PATH}"


@asynccontextmanager
async def serving(registry: CollectorRegistry, listener: Listener, keyring: Keyring | None) -> AsyncIterator[str]:
    """The URL of the figures, for as long as the block runs. With a keyring every route wants a key. An error of the block
    leaves as it is, not in a group.

    Raises ``ConfigurationError`` when the address cannot be bound.
    """
    tls = tls_settings(listener.certificate, listener.certificate_key, listener.client_authorities)
    server = HttpServer(build_app(registry, listener.host, keyring), FLUSH_S, **tls)
    failure: Exception | None = None
    with listener.bind() as bound:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[bound]))
            try:
                yield listener.url(bound.getsockname()[1])
            except Exception as error:
                failure = error
            finally:
                server.should_exit = True
    if failure is not None:
        raise failure


def build_app(registry: CollectorRegistry, host: str, keyring: Keyring | None) -> Starlette:
    """The application behind its door. On loopback it heeds only requests that name this machine: a page of a browser may
    reach it under a name of its own."""

    async def figures(_request: Request) -> Response:
        return await response_of(registry)

    return Starlette(routes=[Route(PATH, figures)], middleware=[Middleware(_Door, keyring=keyring, is_local=is_loopback(host))])


class _Door:
    def __init__(self, app: ASGIApp, keyring: Keyring | None, is_local: bool) -> None:
        self._app = app
        self._keyring = keyring
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] in ("http", "websocket") else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        if self._is_local and not _names_this_machine(headers.get("host", "")):
            return PlainTextResponse("the host is not this machine\n", 403)
        if self._keyring is not None and self._keyring.tenant_of(headers.get(AUTHORIZATION)) is None:
            text = "a key is wanted: send the header Authorization: Bearer KEY\n"
            return PlainTextResponse(text, 401, {"www-authenticate": "Bearer"})
        return None


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit("//" + host).hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
