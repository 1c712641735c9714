"""A graph of sub-tasks as a client reads it: the events of ``POST /v1/tasks``."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from httpx_sse import EventSource

from device_agent.events import ErrorEvent, Event
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, GraphEvent, OutputEvent, TaskEvent
from outrider.client.reading import known_event, messages_of, object_of
from speculation.errors import LinkError, MalformedMessageError

PATH = "/v1/tasks"
KINDS: dict[str, type[GraphEvent]] = {kind.name: kind for kind in (GraphBegunEvent, TaskEvent, OutputEvent, GraphDoneEvent)}


async def graph_events(source: EventSource) -> AsyncGenerator[GraphEvent, None]:
    """Those of one connection, to the last; what is not known here is left out. Raises ``LinkError`` where the last never
    comes, ``MalformedMessageError`` for what is no event."""
    async with aclosing(messages_of(source)) as messages:
        async for message in messages:
            event = graph_event_of(message.event, object_of(message.data))
            if event is not None:
                yield event
            if isinstance(event, GraphDoneEvent):
                return
    raise LinkError("the agent ended the graph of sub-tasks before it was done")


def graph_event_of(name: str, fields: Mapping[str, Any]) -> GraphEvent | None:
    """The event that an agent sent; None for one that this client does not know. Raises ``MalformedMessageError``."""
    kind = KINDS.get(name)
    if kind is None:
        return None
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        given = {key: value for key, value in fields.items() if key in known}
        if kind is OutputEvent:
            output = _output(given["output"])
            return None if output is None else OutputEvent(given["seq"], given["task"], output)
        return kind(**given)
    except (TypeError, KeyError) as error:
        raise MalformedMessageError(f"the agent sent a {name!r} event that lacks a field: {error}") from error


def _output(told: Mapping[str, Any]) -> Event | None:
    """An event of one answer. Its error is told, not raised: the rest of the graph goes on."""
    if told["event"] == ErrorEvent.name:
        return ErrorEvent(told["seq"], told["error"])
    return known_event(told["event"], told)
