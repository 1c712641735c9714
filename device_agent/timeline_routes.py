"""``GET /v1/stream/{session_id}/timeline``: when what happened in an answer, from its beginning, and on as it happens."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from device_agent import schema
from device_agent.bodies import HEADERS, form_of, last_read, pieces
from device_agent.door import tenant_of
from device_agent.stream import STARTING_AFTER
from device_agent.timeline import Item, Timeline
from speculation.errors import InvalidRequestError, SessionNotFoundError

PATH = "/v1/stream/{session_id}/timeline"
KEEP_ALIVE_S = 15.0
MAX_SEQ_DIGITS = 18


def add_to(app: FastAPI) -> None:
    """Register it."""
    told = schema.timeline_operation()
    app.add_api_route(PATH, _timeline, methods=["GET"], response_class=Response, openapi_extra=told)


async def _timeline(request: Request) -> Response:
    """All items, or those behind ``starting_after`` or ``Last-Event-ID``. Ends with the answer. 204: all was read."""
    stream = request.app.state.kept.find(request.path_params["session_id"], tenant_of(request))
    if stream.timeline is None:
        raise SessionNotFoundError('this answer has no timeline: its request has to say "timeline": true')
    reader = _Reader(stream.timeline, _seq(last_read(request), stream.timeline.last_seq))
    if not reader.has_more:
        return Response(status_code=204, headers=HEADERS)
    form = form_of(request)
    return StreamingResponse(pieces(reader.take, form, KEEP_ALIVE_S), headers=HEADERS, media_type=form.media_type)


class _Reader:
    """A place in a timeline."""

    def __init__(self, timeline: Timeline, seq: int) -> None:
        self._timeline = timeline
        self._seq = seq

    @property
    def has_more(self) -> bool:
        """Whether items are there for this reader, or may come."""
        return not self._timeline.is_closed or self._seq < self._timeline.last_seq

    async def take(self) -> Sequence[Item]:
        items = await self._timeline.after(self._seq)
        if items:
            self._seq = items[-1].seq
        return items


def _seq(given: str | None, newest: int) -> int:
    """Behind an item that is not there yet nothing would be told of those before it."""
    if given is None:
        return -1
    is_number = given.isascii() and given.isdecimal() and len(given) <= MAX_SEQ_DIGITS
    if not is_number or int(given) > newest:
        there = f"from 0 to {newest}" if newest >= 0 else "of which there is none yet"
        message = f"{STARTING_AFTER} must be the id of the last item that was read, {there}, not {given[:42]!r}"
        raise InvalidRequestError(message, STARTING_AFTER)
    return int(given)
