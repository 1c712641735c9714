"""A stream over each of its transports, as a list of events whatever carries it, and a client that checks every rule."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

import httpx
from httpx_sse import EventSource
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.device_agent.doubles import feed
from tests.device_agent.replay import Replay

ALL = 10**9


def checked(events) -> Replay:
    """A client that was told these events and refuses what breaks the contract."""
    replay = Replay()
    for event in events:
        feed(replay, event)
    return replay


@dataclass(frozen=True)
class Body:
    """A transport whose events are the body of an answer."""

    url: str

    async def begin(self, body, limit=ALL):
        return await self._take("POST", "/v1/stream", limit, json=body)

    async def read_on(self, session_id, seq=None, limit=ALL):
        query = {} if seq is None else {"starting_after": seq}
        return await self._take("GET", f"/v1/stream/{session_id}", limit, params=query)

    async def _take(self, method, path, limit, **options):
        events = []
        client = httpx.AsyncClient(base_url=self.url, verify=False, headers=self.headers)
        async with client, client.stream(method, path, **options) as response, aclosing(self._events(response)) as found:
            assert response.status_code in (200, 204)
            async for event in found:
                events.append(event)
                if len(events) == limit:
                    break
        return events


class Sse(Body):
    name = "sse"
    headers: ClassVar = {}

    async def _events(self, response):
        if response.status_code == 200:
            async for message in EventSource(response).aiter_sse():
                event = json.loads(message.data)
                assert (message.id, message.event) == (str(event["seq"]), event["event"])
                yield event


class Ndjson(Body):
    name = "ndjson"
    headers: ClassVar = {"accept": "application/x-ndjson"}

    async def _events(self, response):
        if response.status_code == 200:
            assert response.headers["content-type"] == "application/x-ndjson"
            async for line in response.aiter_lines():
                if line:
                    yield json.loads(line)


@dataclass(frozen=True)
class Socket:
    url: str
    name = "websocket"

    async def begin(self, body, limit=ALL):
        return (await converse(self.url, [body], limit))[0]

    async def read_on(self, session_id, seq=None, limit=ALL):
        where = {} if seq is None else {"starting_after": seq}
        return (await converse(self.url, [{"session_id": session_id} | where], limit))[0]


TRANSPORTS = (Sse, Ndjson, Socket)


def socket_of(url: str, **options):
    """A connection to an agent's socket. Its queue has no bound: a full one would not see the end of the socket."""
    return connect(url.replace("http", "ws", 1) + "/v1/stream", proxy=None, close_timeout=5, max_queue=None, **options)


async def converse(url: str, said, limit=ALL, **options):
    """What a socket answers to these messages, values or texts: events, and the code and reason that it was closed with."""
    events = []
    async with socket_of(url, **options) as socket:
        for message in said:
            await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        try:
            while len(events) < limit:
                events.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            return events, (socket.close_code, socket.close_reason)
    return events, None
