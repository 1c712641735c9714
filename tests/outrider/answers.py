"""A small real HTTP server on a free port that answers as an agent would."""

import asyncio
import json
from contextlib import asynccontextmanager

from device_agent.events import (
    CommitEvent,
    CommitOffset,
    CorrectEvent,
    DoneEvent,
    RevokeEvent,
    SessionEvent,
    SpeculativeEvent,
    StateEvent,
)

OFFSET = CommitOffset(1, 3)
EVENTS = [
    SessionEvent(0, "s", "collaborate", "all", "draft", "full", "ab" * 32, None, "lte", 7),
    SpeculativeEvent(1, 3, (5,), "The", 0.9),
    CommitEvent(2, 3, 1, OFFSET),
    SpeculativeEvent(3, 4, (6,), " été", 0.9),
    RevokeEvent(4, 4, 1, "contradicted"),
    CorrectEvent(5, 4, (7, 8), " ox", CommitOffset(3, 6)),
    StateEvent(6, "device", "verifier lost", 61.5, None),
    DoneEvent(7, "length", (1, 2, 0), (5, 7, 8), "The ox", 3, {"passes": 2}, {"bytes_up": {"value": 9}}),
]


def message(name, fields):
    return f"event: {name}\ndata: {json.dumps(fields)}\n\n".encode()


def stream_of(*events):
    body = b": ping\n\n" + b"".join(message(event.name, event.to_json()) for event in events)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


def refusal(status, error, headers=""):
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@asynccontextmanager
async def agent_that_answers(response):
    """A server that sends ``response`` to everyone; yields its URL and the request bodies that it was sent."""
    bodies = []

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0)
        bodies.append(json.loads(await reader.readexactly(length) or b"null"))
        writer.write(response)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies
