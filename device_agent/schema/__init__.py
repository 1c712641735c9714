"""The contracts of ``/v1/stream``, its timeline and ``/v1/emulation`` as JSON Schema, and as OpenAPI tells them."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any


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


def stream_operation() -> dict[str, Any]:
    """The OpenAPI description of ``POST /v1/stream``, beyond what its function tells."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _bare(request_schema())}}},
        "responses": _responses("400", "401", "403", "413", "429"),
    }


def resume_operation() -> dict[str, Any]:
    """The OpenAPI description of ``GET /v1/stream/{session_id}``, beyond what its function tells."""
    return {
        "parameters": _reading_on("seq of the last event that was read"),
        "responses": _responses("400", "401", "403", "404") | {"204": {"description": "The last event was read already"}},
    }


def timeline_operation() -> dict[str, Any]:
    """The OpenAPI description of ``GET /v1/stream/{session_id}/timeline``, beyond what its function tells."""
    return {
        "parameters": _reading_on("id of the last item that was read"),
        "responses": _told("Server-sent events; the data of each is one of these. Or, by Accept, lines", timeline_schema())
        | refused("400", "401", "403", "404")
        | {"204": {"description": "The answer is over, and the last item was read already"}},
    }


def emulation_operation() -> dict[str, Any]:
    """The OpenAPI description of ``GET /v1/emulation``, beyond what its function tells."""
    state = {"description": "What is played", "content": {"application/json": {"schema": _definition("state")}}}
    return {"responses": {"200": state} | refused("401", "403")}


def emulation_change_operation() -> dict[str, Any]:
    """The OpenAPI description of ``PATCH /v1/emulation``, beyond what its function tells."""
    body = {"required": True, "content": {"application/json": {"schema": _definition("change")}}}
    responses = emulation_operation()["responses"] | refused("400", "413", "429")
    return {"requestBody": body, "responses": responses}


def _definition(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = emulation_schema()["$defs"][name]
    return definition


def refused(*statuses: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI descriptions of refusals."""
    return {status: {"description": _REFUSALS[status], "content": _ERROR_CONTENT} for status in statuses}


def _reading_on(what: str) -> list[dict[str, Any]]:
    seq = {"type": "integer", "minimum": 0}
    return [
        {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "starting_after", "in": "query", "description": what, "schema": seq},
        {"name": "Last-Event-ID", "in": "header", "description": "The same; goes first", "schema": seq},
    ]


def _responses(*refusals: str) -> dict[int | str, dict[str, Any]]:
    about = "Server-sent events; the data of each is one of these. Or, by Accept, lines; each is one of these"
    return _told(about, stream_schema()) | refused(*refusals)


def _told(about: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": _inlined(schema)} for kind in ("text/event-stream", "application/x-ndjson")}
    return {"200": {"description": about, "content": content}}


_REFUSALS = {
    "400": "The request cannot be served as it is",
    "401": "The agent has keys, and none that it knows was sent",
    "403": "Not from this machine",
    "404": "No such session is kept",
    "413": "The body is too long",
    "429": "Too many answers are being written, or the tenant is over a limit; see Retry-After",
}
_ERROR_CONTENT = {
    "application/json": {
        "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}},
    }
}


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
