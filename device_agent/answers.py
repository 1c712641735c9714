"""How an answer begins, and how one is read on, whatever carries it: limits, the log and what is kept are the same for all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from starlette.requests import HTTPConnection

from device_agent.agent import DeviceAgent
from device_agent.door import tenant_of
from device_agent.kept import KeptStreams
from device_agent.request import StreamRequest
from device_agent.stream import Reader, Stream
from device_agent.tasks.group import Group
from device_agent.use import Use
from speculation.errors import InvalidRequestError
from speculation.foreign_json import NestingError, loads
from speculation.telemetry.spans import TRACEPARENT
from speculation.tenants import Tenant

MAX_SEQ_DIGITS = 18

_log = logging.getLogger(__name__)

Judged = TypeVar("Judged")

Ask = Callable[[Callable[[int], None]], Awaitable[Any]]
"""Gives the request as JSON; tells its argument of each piece of it, in bytes."""


async def begin(
    connection: HTTPConnection, ask: Ask, judge: Callable[[Any], Judged], of: Callable[[Judged], StreamRequest]
) -> tuple[Stream, Judged]:
    """Begin the answer that ``ask`` tells of, for the tenant of the connection. Also gives what ``judge`` made of it, of
    which ``of`` takes the request.

    Raises what ``DeviceAgent.start``, ``ask`` and ``judge`` raise, and, before anything is read, ``CapacityError`` for a tenant
    over its limits.
    """
    agent: DeviceAgent = connection.app.state.agent
    use = use_of(connection)
    try:
        judged = judge(await ask(use.read))
        stream = await agent.start(of(judged), use.wrote, connection.headers.get(TRACEPARENT))
    except BaseException:
        use.end()
        raise
    _watch(connection, stream, use)
    return stream, judged


async def begin_within(connection: HTTPConnection, group: Group, request: StreamRequest) -> Stream:
    """``begin`` an answer of a group, which is one more of the tenant of the connection. Raises as that does."""
    use = use_of(connection)
    try:
        stream = await group.start(request, use.wrote)
    except BaseException:
        use.end()
        raise
    _watch(connection, stream, use)
    return stream


def _watch(connection: HTTPConnection, stream: Stream, use: Use) -> None:
    stream.when_over(use.end)
    stream.when_over(_teller(stream, tenant_of(connection)))


async def begin_kept(connection: HTTPConnection, ask: Ask) -> Stream:
    """``begin`` an answer to a ``StreamRequest`` that can be read on. Raises as that does."""
    stream, _ = await begin(connection, ask, StreamRequest.from_json, lambda request: request)
    connection.app.state.kept.keep(stream, tenant_of(connection))
    return stream


def use_of(connection: HTTPConnection) -> Use:
    """A use of the account of the connection's tenant, to be ended by whoever asked. Raises ``CapacityError``."""
    account = connection.app.state.accounts.of(tenant_of(connection))
    return Use(account, asyncio.get_running_loop().time, connection.app.state.agent.config.retry_after_s)


def read_on(connection: HTTPConnection, session_id: str, given: object) -> tuple[Stream, Reader]:
    """An answer of the connection's tenant, and a reader behind the event ``given`` (None: of all). Who read before gets no
    more.

    Raises ``SessionNotFoundError``, and ``InvalidRequestError`` for a place that is none.
    """
    kept: KeptStreams = connection.app.state.kept
    stream = kept.find(session_id, tenant_of(connection))
    return stream, stream.read_after(_seq(stream, given))


def _seq(stream: Stream, given: object) -> int:
    """The ``seq`` that a client names: a number, or its digits."""
    if given is None:
        return -1
    text = str(given)
    is_seq = isinstance(given, int | str) and text.isascii() and text.isdecimal()
    if not (is_seq and len(text) <= MAX_SEQ_DIGITS):
        raise stream.refusal(repr(given)[:42])
    return int(text)


def _teller(stream: Stream, tenant: Tenant) -> Callable[[], None]:
    """Tells the log of an answer that is over: whose, how it ended, how long it took, and of no text."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    def tell() -> None:
        whose = {"session_id": stream.session_id, "tenant": tenant.name}
        _log.info("an answer ended", extra=whose | stream.ending | {"duration_s": round(loop.time() - began_s, 6)})

    return tell


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
