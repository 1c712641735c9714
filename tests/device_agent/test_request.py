from __future__ import annotations

import math
from dataclasses import fields

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent import schema
from device_agent.request import KNOWN_KEYS, NEUTRAL, Message, Mode, Reveal, StreamRequest
from speculation.errors import InvalidRequestError, UnknownNameError

VALIDATOR = jsonschema.Draft202012Validator(schema.request_schema())

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "x", "cloud", "device", "final", "stable", "auto", "device_only", "a" * 300]),
)
values = st.one_of(
    leaves,
    st.lists(leaves, max_size=6),
    st.dictionaries(st.sampled_from(["role", "content", "privacy", "x"]), leaves, max_size=3),
)
bodies = st.dictionaries(st.sampled_from([*KNOWN_KEYS, *NEUTRAL, "unknown"]), values, max_size=5)


@given(bodies)
def test_any_json_is_served_or_refused_and_the_schema_says_which(body):
    body = {"prompt": "x"} | body
    try:
        StreamRequest.from_json(body)
    except InvalidRequestError:
        is_served = False
    else:
        is_served = True
    if is_served:
        VALIDATOR.validate({key: value for key, value in body.items() if value is not None})
    elif VALIDATOR.is_valid(body):
        # What a schema cannot say: one key that contradicts another.
        assert body.get("mode") == "device"
        assert body.get("reveal") == "final" or body.get("logprobs") is not None


def test_every_field_of_a_request_is_a_key_and_in_the_schema():
    assert {field.name for field in fields(StreamRequest)} == set(KNOWN_KEYS)
    assert set(schema.request_schema()["properties"]) == set(KNOWN_KEYS) | set(NEUTRAL)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a \ud800 b"}, "prompt"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "logprobs": -1}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "logprobs": 1, "mode": "device"}, "logprobs"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "\ud800", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "prompt"),
        ({"messages": [{"role": "user", "content": ""}]}, "prompt"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "temperature": "hot"}, "temperature"),
        ({"prompt": "x", "temperature": 10**400}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "top_k": -1}, "top_k"),
        ({"prompt": "x", "top_k": 2**31}, "top_k"),
        ({"prompt": "x", "min_p": 1}, "min_p"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "seed": 2**64}, "seed"),
        ({"prompt": "x", "stop": ""}, "stop"),
        ({"prompt": "x", "stop": ["a"] * 5}, "stop"),
        ({"prompt": "x", "stop": 3}, "stop"),
        ({"prompt": "x", "mode": "both"}, "mode"),
        ({"prompt": "x", "reveal": "some"}, "reveal"),
        ({"prompt": "x", "mode": "device", "reveal": "final"}, "reveal"),
        ({"prompt": "x", "min_stability": 1.1}, "min_stability"),
        ({"prompt": "x", "offline_tokens": -1}, "offline_tokens"),
        ({"prompt": "x", "deadline_ms": 0}, "deadline_ms"),
        ({"prompt": "x", "n": 2}, "n"),
        ({"prompt": "x", "presence_penalty": 0.5}, "presence_penalty"),
        ({"prompt": "x", "frequency_penalty": 0.5}, "frequency_penalty"),
        ({"prompt": "x", "repetition_penalty": 1.1}, "repetition_penalty"),
        ({"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias"),
        ({"prompt": "x", "colour": 1}, "colour"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_what_is_wrong(body, parameter):
    with pytest.raises(InvalidRequestError) as caught:
        StreamRequest.from_json(body)
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)


@pytest.mark.parametrize("body", [None, [], "text", 3])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequestError, match="JSON object"):
        StreamRequest.from_json(body)


@pytest.mark.parametrize("value", [1.5, math.inf])
def test_a_number_that_is_not_whole_is_named(value):
    with pytest.raises(InvalidRequestError, match=f"max_tokens must be a whole number, not {value}"):
        StreamRequest.from_json({"prompt": "x", "max_tokens": value})


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(UnknownNameError, match="cloud, collaborate, device"):
        StreamRequest.from_json({"prompt": "x", "mode": "both"})
    with pytest.raises(UnknownNameError, match="max_tokens, messages, min_p"):
        StreamRequest.from_json({"prompt": "x", "colour": 1})


def test_parameters_that_change_nothing_may_be_given():
    body = {
        "prompt": "x",
        "n": 1,
        "presence_penalty": 0,
        "logit_bias": {},
        "repetition_penalty": 1.0,
        "frequency_penalty": None,
    }
    assert StreamRequest.from_json(body) == StreamRequest("x")


def test_messages_become_a_prompt_with_empty_lines_between():
    request = StreamRequest.from_json({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]})
    assert request.prompt == "a\n\nb"
    assert request.messages == (Message("system", "a"), Message("user", "b"))


def test_names_may_be_given_as_plain_strings_in_python():
    request = StreamRequest("x", mode="cloud", reveal="final")
    assert request.mode is Mode.CLOUD
    assert request.reveal is Reveal.FINAL
