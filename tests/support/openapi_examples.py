"""Holds the examples of an agent's OpenAPI document to what the agent answers."""

from __future__ import annotations

import json
import subprocess

import httpx
import jsonschema

from device_agent.api_page import operations
from device_agent.schema import graphs

WRITTEN = ("text", "token_ids", "tokens", "content", "prompt", "prompt_tokens", "completion_tokens", "finish_reason")
"""What the bundled pair writes to the example of a request, so the example has it word for word."""


def check_all(url, session_id, graph_id, subtests):
    """Runs the command that the page shows for each route, and compares."""
    document = httpx.get(f"{url}/openapi.json").json()
    for shown in operations(document, url, has_keys=False):
        with subtests.test(f"{shown.method} {shown.path}"):
            (kind, example), *_ = shown.told["responses"]["200"]["content"].items()
            ids = shown.curl.replace("c015de3a43feb957", session_id).replace(graphs.GRAPH_ID, graph_id)
            command = ids.replace("curl ", "curl -sS --max-time 60 ", 1)
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
            compare(kind, done.stdout, example["example"], example["schema"])


def compare(kind, answer, example, schema):
    if kind == "application/json":
        told = json.loads(answer)
        for value in (told, example):
            jsonschema.validate(value, schema)
        assert form(told) == form(example)
        assert written(told) == written(example)
    elif kind == "text/event-stream":
        for event in (*events(answer), *events(example)):
            jsonschema.validate(event, schema)
        if "event" in schema["oneOf"][0]["properties"]:  # a timeline's items are other ones each time
            assert written(events(answer)[-1]) == written(events(example)[-1])
            assert form(events(answer)[-1]) == form(events(example)[-1])
    else:
        assert {line for line in example.splitlines() if line.startswith("#")} <= set(answer.splitlines())


def events(body):
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def form(value):
    """The keys of a value, all the way down."""
    if isinstance(value, dict):
        return {key: form(part) for key, part in value.items()}
    return [form(value[0])] if isinstance(value, list) and value else None


def written(value):
    """What of a value is the same on every run; of a list, of its first."""
    if isinstance(value, dict):
        own = {key: part for key, part in value.items() if key in WRITTEN and not isinstance(part, dict)}
        return [own, *(written(part) for part in value.values())]
    return written(value[0]) if isinstance(value, list) and value else []
