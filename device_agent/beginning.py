"""How an answer begins over HTTP: the body is read within bounds, and is JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from device_agent import answers
from device_agent.agent import SHUTTING_DOWN, DeviceAgent
from device_agent.answers import Judged, parse, use_of
from device_agent.request import StreamRequest
from device_agent.stream import Stream
from speculation.errors import InvalidRequestError, LinkError

BODY_S = 30.0
"""How long a body may take to come. A phone that lost its network in the middle says nothing more, and its request counts as
one of its tenant's sessions until then."""


async def begin(
    request: Request, judge: Callable[[Any], Judged], of: Callable[[Judged], StreamRequest]
) -> tuple[Stream, Judged]:
    """An answer on its tenant's account, and what ``judge`` made of the body. Raises as ``answers.begin`` and ``read``."""
    return await answers.begin(request, _asking(request), judge, of)


async def begin_kept(request: Request) -> Stream:
    """An answer to a ``StreamRequest`` that can be read on. Raises as ``begin``."""
    return await answers.begin_kept(request, _asking(request))


async def body_of(request: Request) -> Any:
    """The body's JSON, for what is answered at once; its bytes are the tenant's. Raises as ``begin`` does."""
    use = use_of(request)
    try:
        return await _asking(request)(use.read)
    finally:
        use.end()


def _asking(request: Request) -> answers.Ask:
    async def ask(count: Callable[[int], None]) -> Any:
        return parse(await read(request, count))

    return ask


async def read(request: Request, count: Callable[[int], None]) -> bytes:
    """The body; ``count`` is told of each piece.

    Raises ``HTTPException`` 413 as soon as it is over the limit, ``InvalidRequestError`` where it does not come within
    ``BODY_S``, ``LinkError`` where the client goes away, or the agent stops.
    """
    agent: DeviceAgent = request.app.state.agent
    body, limit_bytes = bytearray(), agent.config.max_body_bytes
    try:
        async with agent.coming(BODY_S):
            async for piece in request.stream():
                body += piece
                count(len(piece))
                if len(body) > limit_bytes:
                    raise HTTPException(413, f"the body is over the limit of {limit_bytes} bytes")
    except TimeoutError as error:
        if agent.is_draining:
            raise LinkError(SHUTTING_DOWN) from error
        raise InvalidRequestError(f"the body was not whole within {BODY_S:g} s: {len(body)} bytes of it came") from error
    except ClientDisconnect as error:
        raise LinkError("the client went away before its request was whole") from error
    return bytes(body)
