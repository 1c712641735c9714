"""How events are written in the body of an answer: server-sent events, or a line of JSON each. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from device_agent.events import Json

to_text: Callable[[Json], str] = json.JSONEncoder(separators=(",", ":")).encode
"""JSON in ASCII, so that no reader takes a character of it for the end of a line."""


class Told(Protocol):
    """An event, or whatever else is told as a stream of numbered things."""

    @property
    def seq(self) -> int: ...

    @property
    def name(self) -> str: ...

    def to_json(self) -> Json: ...


@dataclass(frozen=True, slots=True)
class Format:
    """``encode`` writes one event; ``keep_alive`` says nothing, where silence lasts."""

    media_type: str
    encode: Callable[[Told], str]
    keep_alive: bytes


def server_sent(event: Told) -> str:
    """One server-sent event."""
    return f"id: {event.seq}\nevent: {event.name}\ndata: {to_text(event.to_json())}\n\n"


def line(event: Told) -> str:
    """One line of NDJSON."""
    return to_text(event.to_json()) + "\n"


SSE = Format("text/event-stream", server_sent, b": keep-alive\n\n")
NDJSON = Format("application/x-ndjson", line, b"\n")


def format_of(accept: str) -> Format:
    """What a client takes by its ``Accept``: lines where it names them before server-sent events, or alone."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    known = [each for name in named for each in (SSE, NDJSON) if each.media_type == name]
    return known[0] if known else SSE
