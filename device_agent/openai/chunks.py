"""From the events of an answer to the chunks that OpenAI's clients read: final text alone, and exactly one end. Pure.

The law, property-tested in ``tests/device_agent/openai/test_chunks.py``: the texts of all chunks, joined, are the text of
``done``; nothing that is tentative shows; an answer that failed has an error object and no ``[DONE]``. Log probabilities come
with the text that their token is part of: a token that ends in the middle of a character waits for the token that completes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from device_agent.events import CorrectEvent, DoneEvent, ErrorEvent, Event, Json, SessionEvent
from device_agent.logprobs import FinalLikelihood
from device_agent.openai.requests import Asked
from device_agent.openai.shapes import Head, Shape, extras, reason_of
from device_agent.openai.usage import running_usage, usage_of

DONE = "data: [DONE]\n\n"
_to_text = json.JSONEncoder(separators=(",", ":")).encode


class Chunks:
    """Writes one stream. ``created`` is in seconds since 1970."""

    def __init__(self, shape: Shape, asked: Asked, created: int) -> None:
        self._shape = shape
        self._asked = asked
        self._created = created
        self._head: Head | None = None
        self._waiting: list[FinalLikelihood] = []
        self.is_over = False

    def lines(self, events: Sequence[Event]) -> str:
        """What these events are on the wire: ASCII, so that no reader takes a character for the end of a line."""
        return "".join([self._line(event) for event in events])

    def _line(self, event: Event) -> str:
        match event:
            case SessionEvent():
                return self._opening(event)
            case CorrectEvent():
                return self._piece(event)
            case DoneEvent():
                self.is_over = True
                return self._end(event)
            case ErrorEvent():
                self.is_over = True
                return _data({"error": event.error})
        return ""

    def _opening(self, session: SessionEvent) -> str:
        self._head = Head.of(session, self._shape.prefix, self._created)
        choice = self._shape.opening()
        return "" if choice is None else self._chunk(choice, None)

    def _piece(self, event: CorrectEvent) -> str:
        self._waiting += event.logprobs or ()
        if not event.text:
            return ""
        told = None if event.logprobs is None else self._told_up_to(event.commit_offset.code_points)
        return self._chunk(self._shape.piece(event.text, told), running_usage(event))

    def _told_up_to(self, code_points: int) -> list[FinalLikelihood]:
        """Those that wait and whose text begins before that place in the answer; the others go on waiting."""
        count = sum(one.offset < code_points for one in self._waiting)
        told, self._waiting = self._waiting[:count], self._waiting[count:]
        return told

    def _end(self, done: DoneEvent) -> str:
        usage = usage_of(done)
        choice = self._shape.end(reason_of(done), self._waiting or None)
        last = self._chunk(choice, usage, outrider=extras(self._known_head))
        if self._asked.has_usage:
            last += _data(self._known_head.to_json(self._shape.chunk) | {"choices": [], "usage": usage})
        return last + DONE

    def _chunk(self, choice: Json, running: Json | None, **more: Json) -> str:
        chunk = self._known_head.to_json(self._shape.chunk) | {"choices": [choice]} | more
        if self._asked.has_running_usage:
            chunk["usage"] = running
        elif self._asked.has_usage:
            chunk["usage"] = None
        return _data(chunk)

    @property
    def _known_head(self) -> Head:
        assert self._head is not None, "a stream begins with its session"
        return self._head


def _data(value: Json) -> str:
    return f"data: {_to_text(value)}\n\n"
