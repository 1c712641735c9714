"""An asynchronous client of a device agent.

::

    async with Client("http://127.0.0.1:8080") as client:
        async for event in client.stream("The module provides", max_tokens=64, temperature=0.8, seed=7):
            ...

Every failure is an error of the tree in ``speculation.errors``; a stream that ends without ``DoneEvent`` is one too. Where the
connection breaks in the middle of an answer, the client reads on behind the last event that it has.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError, aconnect_sse

from device_agent.events import DoneEvent, Event, SessionEvent
from device_agent.tasks.graph_events import GraphEvent
from outrider.client.graphs import PATH as GRAPHS
from outrider.client.graphs import graph_events
from outrider.client.options import Messages, Options, text_keys
from outrider.client.reading import JSON, done_of, error_of, event_of, json_of, messages_of, object_of
from speculation.certificates import require_authorities
from speculation.errors import ConfigurationError, InvalidRequestError, LinkError, MalformedMessageError
from speculation.listening import is_loopback
from speculation.tenants import AUTHORIZATION, bearer, is_key

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_PORT = 65_535
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = 0.1
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each answer that is read holds a connection, and how many there may be is the agent's to say: of httpx's own hundred, one to
cancel an answer by would wait for an answer to end."""
MAX_RECONNECTS = 5
"""How often, without one more event, a broken stream is taken up again; the wait before doubles each time. All waits together
are shorter than the grace that an agent gives by default."""


class Client:
    """One agent. ``timeout_s`` bounds the silence between two pieces of a stream, keep-alives included. ``key`` is for an
    agent that asks who is calling. ``ca`` is a file with the authority that signed the certificate of an https agent, where
    it is none that this machine knows.

    Raises ``InvalidRequestError`` for a ``url`` or a ``key`` that is none, ``ConfigurationError`` for such a ``ca``, or
    authorities or a proxy in the environment that cannot be used.
    """

    def __init__(self, url: str = DEFAULT_URL, timeout_s: float = 60.0, key: str | None = None, ca: Path | None = None) -> None:
        self.url = url.rstrip("/")
        _require_url(url)
        if key is not None and not is_key(key):
            raise InvalidRequestError("a key is one word of plain characters", "key")
        headers = {} if key is None else {AUTHORIZATION: bearer(key)}
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        require_authorities("ca", ca)
        verify = _authorities(ca) if httpx.URL(self.url).scheme == "https" else False
        # No proxy that the environment names knows the way to this machine itself.
        has_proxy = not is_loopback(httpx.URL(self.url).host)
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url, timeout=timeout, limits=LIMITS, headers=headers, verify=verify, trust_env=has_proxy
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            why = f"the proxy that the environment names cannot be used ({error})"
            raise ConfigurationError(f"{why}: mend HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or unset it") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def health(self) -> Mapping[str, Any]:
        """What the agent says of itself. Raises ``LinkError`` when nobody answers."""
        return await self._ask("GET", "/health")

    async def stream(self, prompt: str | Messages, **options: Unpack[Options]) -> AsyncGenerator[Event, None]:
        """The events of one answer; the last is ``DoneEvent``. Leaving early (close the generator) cancels the answer, once
        the agent's grace is over. ``prompt`` is a text to go on from, or a conversation: objects with role and content.

        Raises ``InvalidRequestError`` for a request that the agent refuses, ``LinkError`` when the agent cannot be reached
        or goes away, and whatever else of the tree the agent ends the stream with.
        """
        async with aclosing(self._follow(_Place(), {**text_keys(prompt), **options})) as events:
            async for event in events:
                yield event

    async def generate(self, prompt: str | Messages, **options: Unpack[Options]) -> DoneEvent:
        """One whole answer: its text, its tokens and its figures. Raises what ``stream`` raises."""
        async with aclosing(self.stream(prompt, **options)) as events:
            return await done_of(events)

    async def resume(self, session_id: str, starting_after: int | None = None) -> AsyncGenerator[Event, None]:
        """The events of an answer behind the one with this ``seq`` (None: all of them), as ``stream`` gives them.

        Nothing where the last event is left behind. Who reads the answer now gets no more. Raises what ``stream`` raises,
        ``SessionNotFoundError`` for an answer that the agent does not keep (any more).
        """
        async with aclosing(self._follow(_Place(session_id, starting_after), None)) as events:
            async for event in events:
                yield event

    async def pause(self, session_id: str) -> str:
        """Let an answer stop for a while; it goes on with the same text. Tells what it does now: ``queued``, ``running``,
        ``paused`` or ``ended``. Asking twice does no harm.

        Raises ``SessionNotFoundError`` for an answer that the agent does not keep (any more), ``LinkError`` when nobody
        answers.
        """
        return await self._control("POST", session_id, "/pause")

    async def unpause(self, session_id: str) -> str:
        """Let a paused answer go on; ``resume`` is for who reads it. Tells and raises what ``pause`` does."""
        return await self._control("POST", session_id, "/resume")

    async def cancel(self, session_id: str) -> str:
        """End an answer: it has ended when this returns, and its events can still be read. Tells and raises what ``pause``
        does."""
        return await self._control("DELETE", session_id)

    async def tasks(self, graph: Mapping[str, Any]) -> AsyncGenerator[GraphEvent, None]:
        """The events of a graph of sub-tasks, an object as ``POST /v1/tasks`` takes it; the last is ``GraphDoneEvent``, which
        also tells of sub-tasks that failed. Leaving early (close the generator), or a connection that breaks, cancels it.

        Raises ``InvalidRequestError`` for a graph that the agent refuses, ``CapacityError`` where nothing of it may begin now,
        ``LinkError`` when the agent cannot be reached or goes away.
        """
        try:
            async with aconnect_sse(self._http, "POST", GRAPHS, content=json_of(graph), headers={**JSON}) as source:
                await _require_success(source.response)
                async with aclosing(graph_events(source)) as events:
                    async for event in events:
                        yield event
        except (httpx.HTTPError, httpx.InvalidURL, SSEError) as error:
            raise self._unreachable(error) from error

    async def _control(self, method: str, session_id: str, verb: str = "") -> str:
        state = (await self._ask(method, _path_of(session_id) + verb)).get("state")
        if not isinstance(state, str):
            raise MalformedMessageError("the agent did not tell what the answer does now")
        return state

    async def _ask(self, method: str, path: str) -> Mapping[str, Any]:
        """What one route answers."""
        try:
            response = await self._http.request(method, path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        await _require_success(response)
        return object_of(response.text)

    async def _follow(self, place: _Place, body: Mapping[str, Any] | None) -> AsyncGenerator[Event, None]:
        """Events until the last, over as many connections as it takes. ``body`` begins the answer; None reads it on."""
        while True:
            try:
                async with aclosing(self._events(self._connect(place, body), place)) as events:
                    async for event in events:
                        yield event
                return
            except (httpx.HTTPError, httpx.InvalidURL, SSEError) as error:
                if not (isinstance(error, httpx.TransportError) and place.may_go_on):
                    raise self._unreachable(error) from error
            body = None
            await asyncio.sleep(place.next_wait_s())

    def _connect(self, place: _Place, body: Mapping[str, Any] | None) -> AbstractAsyncContextManager[EventSource]:
        if body is not None:
            return aconnect_sse(self._http, "POST", "/v1/stream", content=json_of(body), headers={**JSON})
        query = {} if place.seq is None else {"starting_after": place.seq}
        return aconnect_sse(self._http, "GET", _path_of(place.session_id or ""), params=query)

    async def _events(self, connection: AbstractAsyncContextManager[EventSource], place: _Place) -> AsyncGenerator[Event, None]:
        """The events of one connection. Raises ``LinkError`` where it is closed in order before the last of them."""
        async with connection as source:
            await _require_success(source.response)
            if source.response.status_code == httpx.codes.NO_CONTENT:
                return
            async with aclosing(messages_of(source)) as messages:
                async for message in messages:
                    event = event_of(message)
                    place.moved(message, event)
                    if event is not None:
                        yield event
                    if isinstance(event, DoneEvent):
                        return
        raise LinkError(f"the agent at {self.url} ended the stream before the answer was done; does another client read it?")

    def _unreachable(self, error: Exception) -> LinkError:
        reason = str(error) or type(error).__name__
        return LinkError(f"no answer from an agent at {self.url} ({reason}); start one with: outrider agent")


@dataclasses.dataclass
class _Place:
    """How far an answer was read: up to and with event ``seq``."""

    session_id: str | None = None
    seq: int | None = None
    num_failures: int = 0

    @property
    def may_go_on(self) -> bool:
        return self.session_id is not None and self.num_failures < MAX_RECONNECTS

    def next_wait_s(self) -> float:
        self.num_failures += 1
        return float(RECONNECT_S * 2 ** (self.num_failures - 1))

    def moved(self, message: ServerSentEvent, event: Event | None) -> None:
        """An event was read, if only one that this client does not know."""
        self.num_failures = 0
        if isinstance(event, SessionEvent):
            self.session_id = event.session_id
        if event is not None:
            self.seq = event.seq
        elif message.id.isdecimal():
            self.seq = int(message.id)


def _path_of(session_id: str) -> str:
    if not session_id:
        raise InvalidRequestError("a session_id is what an answer's first event tells, and not empty", "session_id")
    return f"/v1/stream/{quote(session_id, safe='')}"


def _require_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > MAX_PORT:
        raise InvalidRequestError(f"{url!r} is no URL of an agent; give one like {DEFAULT_URL}", "agent")


async def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    await response.aread()
    try:
        described = object_of(response.text).get("error")
    except MalformedMessageError:
        described = None
    retry_after = response.headers.get("retry-after", "")
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    raise error_of(described, wait_s, f"the agent answered with status {response.status_code}")


def _authorities(ca: Path | None) -> ssl.SSLContext:
    """Made for https alone: to read all that this machine knows takes tens of milliseconds, in which the loop does nothing."""
    if ca is not None:
        return ssl.create_default_context(cafile=ca)
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        why = f"the authorities that the environment names cannot be read ({error.strerror or error})"
        raise ConfigurationError(f"{why}: mend SSL_CERT_FILE, or unset it") from error
