"""What the head of a pool tells over HTTP: ``GET /v1/verifiers``, the replicas that take sessions now, and ``GET /health``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import FastAPI
from starlette.responses import JSONResponse

from cloud_verifier.config import VerifierConfig
from device_agent.door import KeyDoor
from device_agent.guard import LoopbackGuard
from outrider.pool.members import Members
from outrider.proxy.service import Address
from speculation.http_server import HttpServer, tls_settings
from speculation.keys import load_keys
from speculation.links.resolvers import LIST_FIELD, LIST_PATH
from speculation.listening import bind, is_loopback

BACKLOG = 128
FLUSH_S = 2
"""How long callers may take, once all is over, to read their answers."""

_log = logging.getLogger(__name__)


def build_app(members: Members, config: VerifierConfig) -> FastAPI:
    """The application that tells of ``members``: to whoever has a key, where there are keys; else to this machine alone."""
    app = FastAPI(title="Outrider pool", docs_url=None, redoc_url=None, openapi_url=None)
    if config.keys is not None:
        app.add_middleware(KeyDoor, keyring=load_keys(config.keys), service="pool")
    if is_loopback(config.host):
        app.add_middleware(LoopbackGuard)

    async def verifiers() -> JSONResponse:
        return JSONResponse({LIST_FIELD: [asdict(member) for member in members.current]}, headers={"cache-control": "no-store"})

    async def health() -> JSONResponse:
        """Well is a pool in which anybody serves."""
        num_serving = len(members.current)
        return JSONResponse({"status": "ok" if num_serving else "empty", "serving": num_serving}, 200 if num_serving else 503)

    app.add_api_route(LIST_PATH, verifiers, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET", "HEAD"])
    return app


@asynccontextmanager
async def listening(members: Members, config: VerifierConfig) -> AsyncIterator[str]:
    """The head answers while the block runs; yields the URL of the list. An error of the block leaves as it is.

    Raises ``ConfigurationError`` where the address cannot be bound.
    """
    if config.keys is not None and config.tls_cert is None and not is_loopback(config.host):
        _log.warning("keys, and all that they guard, cross the network in plain text: set tls_cert and tls_key")
    failure: Exception | None = None
    with bind(config.host, config.port) as listener:
        listener.listen(BACKLOG)  # from here on connections wait, and none is refused
        tls = tls_settings(config.tls_cert, config.tls_key, config.tls_client_ca)
        server = HttpServer(build_app(members, config), FLUSH_S, **tls)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            try:
                scheme = "http" if config.tls_cert is None else "https"
                yield f"{scheme}://{Address(config.host.strip('[]'), listener.getsockname()[1])}{LIST_PATH}"
            except Exception as error:
                failure = error
            finally:
                server.should_exit = True
    if failure is not None:
        raise failure
