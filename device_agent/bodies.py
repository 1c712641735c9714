"""What is told as it happens, as the pieces of a response's body: whatever is there at a time is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.requests import Request

from device_agent.formats import Format, Told, format_of
from device_agent.stream import STARTING_AFTER

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
LAST_EVENT_ID = "last-event-id"


async def pieces(take: Callable[[], Awaitable[Sequence[Told]]], form: Format, keep_alive_s: float) -> AsyncIterator[bytes]:
    """Until ``take`` gives nothing. Where that lasts, something that says nothing goes out; ``take`` is cancelled then, and
    called again."""
    while True:
        try:
            async with asyncio.timeout(keep_alive_s):
                told = await take()
        except TimeoutError:
            yield form.keep_alive
            continue
        if not told:
            return
        yield "".join([form.encode(one) for one in told]).encode()


def form_of(request: Request) -> Format:
    """How the client wants it written."""
    return format_of(",".join(request.headers.getlist("accept")))


def last_read(request: Request) -> str | None:
    """The last thing that the client has, None where it names none. The header goes first: a browser that connects again
    repeats the query that it began with.
    """
    return request.headers.get(LAST_EVENT_ID, request.query_params.get(STARTING_AFTER))
