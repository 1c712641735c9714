"""How an answer begins over HTTP: the tenant's account is asked, the body read within bounds and judged, the stream started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from device_agent.agent import DeviceAgent
from device_agent.door import tenant_of
from device_agent.request import StreamRequest
from device_agent.stream import Stream
from device_agent.use import Use
from speculation.errors import InvalidRequestError, LinkError
from speculation.foreign_json import NestingError, loads
from speculation.telemetry.spans import TRACEPARENT
from speculation.tenants import Tenant

_log = logging.getLogger(__name__)


Judged = TypeVar("Judged")


async def begin(
    request: Request, judge: Callable[[Any], Judged], of: Callable[[Judged], StreamRequest]
) -> tuple[Stream, Judged]:
    """An answer on its tenant's account, and what ``judge`` made of the body's JSON; ``of`` takes the request from that.

    Raises what ``read``, ``parse``, ``judge`` and ``DeviceAgent.start`` raise, and ``CapacityError`` where the tenant may not.
    """
    agent: DeviceAgent = request.app.state.agent
    use = _use_of(request)
    try:
        judged = judge(parse(await read(request, agent.config.max_body_bytes, use.read)))
        stream = await agent.start(of(judged), use.wrote, request.headers.get(TRACEPARENT))
    except BaseException:
        use.end()
        raise
    stream.when_over(use.end)
    stream.when_over(teller(stream, tenant_of(request)))
    return stream, judged


async def body_of(request: Request) -> Any:
    """The body's JSON, for what is answered at once; its bytes are the tenant's. Raises as ``begin`` does."""
    use = _use_of(request)
    try:
        return parse(await read(request, request.app.state.agent.config.max_body_bytes, use.read))
    finally:
        use.end()


def _use_of(request: Request) -> Use:
    account = request.app.state.accounts.of(tenant_of(request))
    return Use(account, asyncio.get_running_loop().time, request.app.state.agent.config.retry_after_s)


def teller(stream: Stream, tenant: Tenant) -> Callable[[], None]:
    """Tells the log of an answer that is over: whose, how it ended, how long it took, and of no text."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    def tell() -> None:
        whose = {"session_id": stream.session_id, "tenant": tenant.name}
        _log.info("an answer ended", extra=whose | stream.ending | {"duration_s": round(loop.time() - began_s, 6)})

    return tell


async def read(request: Request, limit_bytes: int, count: Callable[[int], None]) -> bytes:
    """The body; ``count`` is told of each piece.

    Raises ``HTTPException`` 413 as soon as it is over the limit, ``LinkError`` where the client goes away.
    """
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            count(len(piece))
            if len(body) > limit_bytes:
                raise HTTPException(413, f"the body is over the limit of {limit_bytes} bytes")
    except ClientDisconnect as error:
        raise LinkError("the client went away before its request was whole") from error
    return bytes(body)


def parse(body: bytes) -> Any:
    """A JSON document. Raises ``InvalidRequestError`` for what is no JSON in UTF-8, nested too deep, or not a finite number."""
    try:
        return loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the body is not UTF-8: byte {error.start} is no part of a character") from error
    except NestingError as error:
        raise InvalidRequestError("the body is nested too deep") from error
    except ValueError as error:
        raise InvalidRequestError(f"the body is no valid JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequestError(f"the body is no valid JSON: {name} is no JSON number")
