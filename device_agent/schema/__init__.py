"""The contract of ``POST /v1/stream`` as JSON Schema, and as OpenAPI tells it."""

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


def stream_operation() -> dict[str, Any]:
    """The OpenAPI description of ``POST /v1/stream``, beyond what its function tells."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _bare(request_schema())}}},
        "responses": _responses("400", "401", "403", "413", "429", "503"),
    }


def resume_operation() -> dict[str, Any]:
    """The OpenAPI description of ``GET /v1/stream/{session_id}``, beyond what its function tells."""
    seq = {"type": "integer", "minimum": 0}
    return {
        "parameters": [
            {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "starting_after", "in": "query", "description": "seq of the last event that was read", "schema": seq},
            {"name": "Last-Event-ID", "in": "header", "description": "The same; goes first", "schema": seq},
        ],
        "responses": _responses("400", "401", "403", "404") | {"204": {"description": "The last event was read already"}},
    }


def refused(*statuses: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI descriptions of refusals."""
    return {status: {"description": _REFUSALS[status], "content": _ERROR_CONTENT} for status in statuses}


def _responses(*refusals: str) -> dict[int | str, dict[str, Any]]:
    events = {
        "description": "Server-sent events; the data of each is one of these. Or, by Accept, lines; each is one of these",
        "content": {kind: {"schema": _inlined()} for kind in ("text/event-stream", "application/x-ndjson")},
    }
    return {"200": events} | refused(*refusals)


_REFUSALS = {
    "400": "The request cannot be served as it is",
    "401": "The agent has keys, and none that it knows was sent",
    "403": "Not from this machine",
    "404": "No such session is kept",
    "413": "The body is too long",
    "429": "Too many answers are being written, or the tenant is over a limit; see Retry-After",
    "503": "The agent is shutting down",
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


def _inlined() -> dict[str, Any]:
    """The events without references, which would point into the OpenAPI document."""
    definitions = stream_schema()["$defs"]

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolve(definitions[value["$ref"].rpartition("/")[2]])
            return {key: resolve(part) for key, part in value.items() if not key.startswith("$")}
        return [resolve(part) for part in value] if isinstance(value, list) else value

    return {"oneOf": resolve(stream_schema()["oneOf"])}
