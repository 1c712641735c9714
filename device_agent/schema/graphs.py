"""The contract of ``/v1/tasks`` as JSON Schema, and as OpenAPI tells it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from device_agent import schema
from device_agent.events import DoneEvent, Event, SessionEvent, SpeculativeEvent
from device_agent.formats import NDJSON, SSE
from device_agent.schema import examples
from device_agent.schema.refusals import refused
from device_agent.tasks import graph_svg
from device_agent.tasks.board import Board
from device_agent.tasks.graph import MAX_NAME_CHARACTERS, MAX_TASKS, PARAMETERS, TaskGraph
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, GraphEvent, OutputEvent, TaskEvent
from speculation.errors import SessionNotFoundError

Operation = dict[str, Any]

GRAPH_ID = "6f1b3c0a9d2e4f58"
NO_GRAPH = SessionNotFoundError(
    f"no graph of sub-tasks {GRAPH_ID!r} is kept; one is kept for 60 s behind its end, and the last 16 of them"
)
REQUEST: dict[str, Any] = {
    "tasks": {
        "start": {"prompt": "The module provides", "max_tokens": 3},
        "end": {"prompt": "The class provides{{ start }} to", "max_tokens": 2},
    },
    "defaults": {"mode": "device", "temperature": 0, "seed": 7},
}
WRITTEN: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "start": ((748, 552, 1860), (202, 980, 1144), "\nthe following"),
    "end": ((748, 660, 1860, 202, 980, 1144, 316), (1537, 354), "ols for"),
}
"""Of each its prompt, and what the bundled pair's draft writes behind it, in tokens; and the text."""


@functools.cache
def events_schema() -> dict[str, Any]:
    """What an event of a graph is."""
    value: dict[str, Any] = json.loads(resources.files(__package__).joinpath("graph.schema.json").read_text("utf-8"))
    return value


@functools.cache
def request_schema() -> dict[str, Any]:
    """What a graph of sub-tasks may hold: parameters of a request of ``/v1/stream`` for each, or as defaults of all."""
    known = schema.request_schema()["properties"]
    parameters = {name: known[name] for name in PARAMETERS}
    prompt = {"type": "string", "minLength": 1, "description": "With {{ name }} the text that sub-task wrote is taken in."}
    names = {"type": ["array", "string", "null"], "items": {"type": "string"}}
    after = {**names, "description": "To wait for, beside those that the prompt takes in."}
    task = {
        "type": "object",
        "properties": {"prompt": prompt, "after": after, **parameters},
        "required": ["prompt"],
    }
    name = {"pattern": f"^[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME_CHARACTERS - 1}}}$"}
    tasks = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_TASKS,
        "propertyNames": name,
        "additionalProperties": task,
    }
    defaults = {"type": ["object", "null"], "properties": parameters, "description": "For sub-tasks that do not say otherwise."}
    return {
        "title": "TaskGraph",
        "description": "Body of POST /v1/tasks.",
        "type": "object",
        "properties": {"tasks": tasks, "defaults": defaults},
        "required": ["tasks"],
        "additionalProperties": False,
    }


def begin_operation() -> Operation:
    """The OpenAPI description of ``POST /v1/tasks``, beyond what its function tells."""
    body = {"schema": request_schema(), "example": REQUEST}
    about = "Server-sent events; the data of each is one of these. Or, by Accept, lines; each is one of these"
    one = {"oneOf": [_part(name) for name in ("graph", "task", "output", "done")]}
    content = {form.media_type: {"schema": one, "example": examples.whole(form, events())} for form in (SSE, NDJSON)}
    return {
        "summary": "Run a graph of sub-tasks",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": {"description": about, "content": content}} | refused("400", "401", "403", "413", "429", "503"),
    }


def look_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/tasks/{graph_id}``."""
    last = events()[-1].to_json()
    now = {key: last[key] for key in ("graph_id", "status")} | {"at_ms": last["makespan_ms"]}
    now |= {key: last[key] for key in ("critical_path", "results", "schedule")}
    return _of_one("Where a graph of sub-tasks is", _part("status"), now)


def control_operation(what: str, status: str) -> Operation:
    """The OpenAPI description of what pauses, resumes or cancels a graph."""
    fields = {key: _part("status")["properties"][key] for key in ("graph_id", "status")}
    one = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return _of_one(what, one, {"graph_id": GRAPH_ID, "status": status})


def picture_operation() -> Operation:
    """The OpenAPI description of ``GET /v1/tasks/{graph_id}/timeline.svg``."""
    last = events()[-1]
    assert isinstance(last, GraphDoneEvent)
    picture = graph_svg.drawn([dict(entry) for entry in last.schedule], last.makespan_ms, last.critical_path, last.status)
    # The page of all routes names no other host, not even in the name of a namespace.
    example = picture.decode().replace(f' xmlns="{graph_svg.NAMESPACE}"', "")
    about = "A row for each sub-task; the namespace is left out here"
    return _of_one("The schedule of a graph as a picture", {"type": "string"}, example, graph_svg.MEDIA_TYPE, about)


def _of_one(
    what: str, form: dict[str, Any], example: Any, kind: str = "application/json", about: str = "What it does now"
) -> Operation:
    named = {"schema": {"type": "string"}, "example": GRAPH_ID, "description": "As the event graph told it"}
    return {
        "summary": what,
        "parameters": [{"name": "graph_id", "in": "path", "required": True} | named],
        "responses": examples.answered(form, example, kind, about) | refused("401", "403", "404", missing=NO_GRAPH),
    }


def _part(name: str) -> dict[str, Any]:
    """A definition without references, which would point into the OpenAPI document."""
    definitions = events_schema()["$defs"]

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolve(definitions[value["$ref"].rpartition("/")[2]])
            return {key: resolve(part) for key, part in value.items()}
        return [resolve(part) for part in value] if isinstance(value, list) else value

    resolved: dict[str, Any] = resolve(definitions[name])
    return resolved


@functools.cache
def events() -> tuple[GraphEvent, ...]:
    """Those of the example, as a board of it tells them."""
    board = Board(TaskGraph.from_json(REQUEST), {name: task["max_tokens"] for name, task in REQUEST["tasks"].items()})
    told: list[GraphEvent] = [GraphBegunEvent(0, GRAPH_ID, 2, [entry.to_json() for entry in board.entries.values()])]
    for name, (begun, ended_ms) in {"start": (0.1, 31.0), "end": (31.2, 52.4)}.items():
        board.begin(name, begun)
        told.append(TaskEvent(len(told), name, "running", begun, None))
        for event in _answer(name):
            told.append(OutputEvent(len(told), name, event))
        board.entries[name].visible_ms = begun + 15
        ids, text = WRITTEN[name][1:]
        board.done(name, text, "length", len(ids), ended_ms)
        told.append(TaskEvent(len(told), name, "done", ended_ms, None))
    entries = board.entries
    results = {name: entry.result() for name, entry in entries.items()}
    schedule = [entry.to_json() for entry in entries.values()]
    return (*told, GraphDoneEvent(len(told), GRAPH_ID, "done", 52.4, board.critical(), results, schedule))


def _answer(name: str) -> tuple[Event, ...]:
    prompt, ids, text = WRITTEN[name]
    begun, last = examples.EVENTS[0], examples.EVENTS[-1]
    assert isinstance(begun, SessionEvent)
    assert isinstance(last, DoneEvent)
    session = SessionEvent(0, begun.session_id, "device", "all", begun.draft, begun.full, begun.pair_digest, None, None, 7)
    shown = SpeculativeEvent(1, len(prompt), ids, text, 0.7)
    return session, shown, DoneEvent(2, "length", prompt, ids, text, 0, last.usage, last.figures)
