"""A recorded answer of the real services, told again at a set rate by a small server beside the page's own files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from starlette.responses import JSONResponse, Response, StreamingResponse

from device_agent import page
from outrider.local import Emulation, local_agent
from speculation.http_server import HttpServer
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE

Json = dict[str, Any]

EMULATION = Emulation(DEFAULT_PHONE, DEFAULT_NETWORK, DEFAULT_CLOUD)
REQUEST: Json = {"prompt": "The module provides", "temperature": 0.8, "seed": 7}
TOGETHER_S = 0.001
"""Events nearer than this leave in one piece, as they do from an agent."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Events of one answer with the seconds at which they came, and what the agent says of itself."""

    events: Sequence[tuple[float, Json]]
    health: Json

    @property
    def done(self) -> Json:
        return self.events[-1][1]


async def record(num_tokens: int) -> Recording:
    """One answer of the bundled pair, collaborative, over the default emulation."""
    loop = asyncio.get_running_loop()
    async with local_agent(EMULATION) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        health = (await client.get("/health")).json()
        began_s, events = loop.time(), []
        async with aconnect_sse(client, "POST", "/v1/stream", json=REQUEST | {"max_tokens": num_tokens}) as source:
            async for message in source.aiter_sse():
                events.append((loop.time() - began_s, json.loads(message.data)))
    return Recording(events, health)


def lengthened(recording: Recording, num_tokens: int) -> Recording:
    """The recorded answer again and again behind itself, up to ``num_tokens`` at least. Cut where nothing tentative stands:
    behind a ``correct`` event, so that the whole keeps the rules of a stream."""
    (_, session), *body = recording.events[:-1]
    last = max(index for index, (_, event) in enumerate(body) if event["event"] == "correct")
    body = body[: last + 1]
    took_s, offset = body[-1][0], body[-1][1]["commit_offset"]
    events = [(0.0, session)]
    for turn in range(-(-num_tokens // offset["tokens"])):
        events += [(turn * took_s + at_s, _shifted(event, turn, offset)) for at_s, event in body]
    token_ids, text = _text_of(events)
    end = {"token_ids": token_ids, "text": text, "verified_count": len(token_ids)}
    events.append((events[-1][0], recording.done | end))
    return Recording([(at_s, event | {"seq": seq}) for seq, (at_s, event) in enumerate(events)], recording.health)


def _shifted(event: Json, turn: int, offset: Json) -> Json:
    changed = dict(event)
    if "position" in event:
        changed["position"] += turn * offset["tokens"]
    if "commit_offset" in event:
        changed["commit_offset"] = {key: value + turn * offset[key] for key, value in event["commit_offset"].items()}
    return changed


def _text_of(events: Sequence[tuple[float, Json]]) -> tuple[list[int], str]:
    token_ids: list[int] = []
    pieces: list[str] = []
    for _, event in events:
        if event["event"] in ("speculative", "correct"):
            token_ids += event["token_ids"]
            pieces += [event["text"], *[""] * (len(event["token_ids"]) - 1)]
        elif event["event"] == "revoke":
            del token_ids[-event["count"] :], pieces[-event["count"] :]
    return token_ids, "".join(pieces)


def at_rate(recording: Recording, tokens_per_s: float) -> Recording:
    """The same events, spread so that the answer's tokens come at that rate."""
    wanted_s = len(recording.done["token_ids"]) / tokens_per_s
    scale = wanted_s / recording.events[-1][0]
    return Recording([(at_s * scale, event) for at_s, event in recording.events], recording.health)


@contextlib.asynccontextmanager
async def serving(recording: Recording) -> AsyncIterator[str]:
    """The URL of a server of the page that answers every request with the recording, in its time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(_app(recording), flush_s=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = server.force_exit = True


def _app(recording: Recording) -> FastAPI:
    app = FastAPI()
    app.state.agent = SimpleNamespace(pair=SimpleNamespace(examples=({"title": "recorded", "text": REQUEST["prompt"]},)))
    pieces = list(_pieces(recording))

    async def health() -> Response:
        return JSONResponse(recording.health)

    async def stream() -> Response:
        return StreamingResponse(_paced(pieces), media_type="text/event-stream")

    app.add_api_route("/health", health)
    app.add_api_route("/v1/stream", stream, methods=["POST"], response_class=Response)
    page.add_to(app)
    return app


def _pieces(recording: Recording) -> Iterator[tuple[float, bytes]]:
    began_s, waiting = 0.0, ""
    for at_s, event in recording.events:
        if waiting and at_s - began_s > TOGETHER_S:
            yield began_s, waiting.encode()
            waiting = ""
        began_s = began_s if waiting else at_s
        waiting += f"id: {event['seq']}\nevent: {event['event']}\ndata: {json.dumps(event)}\n\n"
    yield began_s, waiting.encode()


async def _paced(pieces: Sequence[tuple[float, bytes]]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for at_s, piece in pieces:
        await asyncio.sleep(max(0.0, began_s + at_s - loop.time()))
        yield piece
