"""The contracts of ``/v1/stream``, its timeline and ``/v1/emulation`` as JSON Schema, and as OpenAPI tells them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from device_agent.formats import NDJSON, SSE, Told
from device_agent.schema import examples
from device_agent.schema.refusals import NO_SESSION, refused

__all__ = [
    "emulation_change_operation",
    "emulation_operation",
    "emulation_schema",
    "health_operation",
    "metrics_operation",
    "prompts_operation",
    "refused",
    "request_schema",
    "resume_operation",
    "stream_operation",
    "stream_schema",
    "timeline_operation",
    "timeline_schema",
]

Operation = dict[str, Any]


@functools.cache
def request_schema() -> dict[str, Any]:
    """What a request may hold."""
    return _load("request.schema.json")


@functools.cache
def stream_schema() -> dict[str, Any]:
    """What an event is; each line of a stream is one."""
    return _load("stream.schema.json")


@functools.cache
def timeline_schema() -> dict[str, Any]:
    """What an item of a timeline is."""
    return _load("timeline.schema.json")


@functools.cache
def emulation_schema() -> dict[str, Any]:
    """What is told of the emulation, and what may be changed of it: ``state`` and ``change`` among its definitions."""
    return _load("emulation.schema.json")


def stream_operation() -> Operation:
    """The OpenAPI description of ``POST /v1/stream``, beyond what its function tells."""
    body = {"schema": _bare(request_schema()), "example": examples.REQUEST}
    return {
        "summary": "Write an answer",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": _events() | refused("400", "401", "403", "413", "429", "503"),
    }


def resume_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/stream/{session_id}``, beyond what its function tells."""
    read = {"204": {"description": "The last event was read already"}}
    return {
        "summary": "Read on where a connection broke",
        "parameters": _reading_on("seq of the last event that was read"),
        "responses": _events() | refused("400", "401", "403", "404", missing=NO_SESSION) | read,
    }


def timeline_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/stream/{session_id}/timeline``, beyond what its function tells."""
    read = {"204": {"description": "The answer is over, and the last item was read already"}}
    about = "Server-sent events; the data of each is one of these. Or, by Accept, lines"
    return {
        "summary": "When what happened in an answer",
        "parameters": _reading_on("id of the last item that was read"),
        "responses": _told(about, timeline_schema(), examples.TIMELINE)
        | refused("400", "401", "403", "404", missing=NO_SESSION)
        | read,
    }


def control_operation(what: str, state: str) -> Operation:
    """The OpenAPI description of what pauses, resumes or cancels an answer."""
    states = {"type": "string", "enum": ["queued", "running", "paused", "ended"]}
    fields = {"session_id": {"type": "string"}, "state": states}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    told = examples.answered(schema, {"session_id": examples.SESSION_ID, "state": state}, about="What the answer does now")
    return {
        "summary": what,
        "parameters": _reading_on("")[:1],
        "responses": told | refused("401", "403", "404", missing=NO_SESSION),
    }


def emulation_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/emulation``, beyond what its function tells."""
    told = examples.answered(_definition("state"), examples.EMULATION, about="What is played")
    return {"summary": "What is emulated, and what could be", "responses": told | refused("401", "403")}


def emulation_change_operation() -> Operation:
    """The OpenAPI description of ``PATCH /v1/emulation``, beyond what its function tells."""
    body = {"schema": _definition("change"), "example": examples.CHANGE}
    changed = examples.EMULATION | {"overrides": examples.CHANGE}
    told = examples.answered(_definition("state"), changed, about="What is played now")
    return {
        "summary": "Emulate something else, at once",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": told | refused("400", "401", "403", "413", "429", "503"),
    }


def prompts_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/prompts``, beyond what its function tells."""
    told = examples.answered(examples.schema_of(examples.PROMPTS), examples.PROMPTS)
    return {"summary": "Prompts that the pair was not trained on", "responses": told | refused("401", "403")}


def health_operation() -> Operation:
    """The OpenAPI description of ``GET /health``."""
    told = examples.answered(examples.schema_of(examples.HEALTH), examples.HEALTH)
    return {"summary": "Whether the agent works, and with what", "responses": told | refused("403")}


def metrics_operation() -> Operation:
    """The OpenAPI description of ``GET /metrics``."""
    about = "Figures in the text format of Prometheus"
    told = examples.answered({"type": "string"}, examples.METRICS, "text/plain", about)
    return {"summary": "Figures for Prometheus", "responses": told | refused("401", "403")}


def _definition(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = emulation_schema()["$defs"][name]
    return definition


def _reading_on(what: str) -> list[dict[str, Any]]:
    seq = {"type": "integer", "minimum": 0}
    session = {"schema": {"type": "string"}, "example": examples.SESSION_ID, "description": "As the event session told it"}
    return [
        {"name": "session_id", "in": "path", "required": True} | session,
        {"name": "starting_after", "in": "query", "description": what, "schema": seq, "example": 0},
        {"name": "Last-Event-ID", "in": "header", "description": "The same; goes first", "schema": seq},
    ]


def _events() -> Operation:
    about = "Server-sent events; the data of each is one of these. Or, by Accept, lines; each is one of these"
    return _told(about, stream_schema(), examples.EVENTS)


def _told(about: str, schema: dict[str, Any], example: Sequence[Told]) -> Operation:
    """An answer that comes one by one, in either form."""
    schema = _inlined(schema)
    content = {form.media_type: {"schema": schema, "example": examples.whole(form, example)} for form in (SSE, NDJSON)}
    return {"200": {"description": about, "content": content}}


def _load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(resources.files(__package__).joinpath(name).read_text("utf-8"))
    return value


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if not key.startswith("$")}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The definitions of one of several without references, which would point into the OpenAPI document."""
    definitions = schema["$defs"]

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolve(definitions[value["$ref"].rpartition("/")[2]])
            return {key: resolve(part) for key, part in value.items() if not key.startswith("$")}
        return [resolve(part) for part in value] if isinstance(value, list) else value

    return {"oneOf": resolve(schema["oneOf"])}
