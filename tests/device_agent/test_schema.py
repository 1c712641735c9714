from __future__ import annotations

import json

import jsonschema
import pytest

from device_agent import schema
from device_agent.events import (
    CommitEvent,
    CommitOffset,
    CorrectEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    RevokeEvent,
    SessionEvent,
    SpeculativeEvent,
    StateEvent,
    error_object,
)
from device_agent.figures import Meter, usage_json
from speculation.errors import InvalidRequestError
from speculation.protocol.messages import Usage

OFFSET = CommitOffset(2, 5)
EVENTS = [
    SessionEvent(0, "id", "collaborate", "all", "draft", "full", "digest", None, "lte", 7),
    SpeculativeEvent(1, 10, (4,), "x", 0.5),
    CommitEvent(2, 10, 1, OFFSET),
    RevokeEvent(3, 10, 1, "contradicted"),
    CorrectEvent(4, 10, (1, 2), "ab", OFFSET),
    StateEvent(5, "device", "offline"),
    DoneEvent(6, "stop", (1,), (2,), "x", 1, usage_json(1, 1, Usage()), Meter(0.0, False).report(1, None)),
    ErrorEvent(7, error_object(InvalidRequestError("no", "prompt"))),
]


@pytest.mark.parametrize("document", [schema.stream_schema(), schema.request_schema()], ids=["stream", "request"])
def test_the_committed_schemas_are_schemas(document):
    jsonschema.Draft202012Validator.check_schema(document)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_is_one_of_the_schemas_and_only_one(event):
    jsonschema.Draft202012Validator(schema.stream_schema()).validate(json.loads(json.dumps(event.to_json())))


def test_every_kind_of_event_is_here():
    assert {event.name for event in EVENTS} == {kind.name for kind in Event.__subclasses__()}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_an_event_without_one_of_its_fields_or_with_another_is_refused(event):
    validator = jsonschema.Draft202012Validator(schema.stream_schema())
    whole = json.loads(json.dumps(event.to_json()))
    assert not validator.is_valid(whole | {"more": 1})
    for key in whole:
        assert not validator.is_valid({k: v for k, v in whole.items() if k != key})


def test_the_openapi_description_holds_no_references():
    assert "$ref" not in json.dumps(schema.stream_operation())


def test_an_error_that_is_not_ours_tells_nothing_of_itself():
    assert error_object(KeyError("secret")) == {
        "message": "internal error",
        "type": "api_error",
        "param": None,
        "code": "internal",
    }
