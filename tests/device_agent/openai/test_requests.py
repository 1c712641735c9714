"""What OpenAI's clients may ask: what is understood, what is passed over, what is refused by name."""

from __future__ import annotations

import pytest

from device_agent.openai.requests import WITHOUT_EFFECT, chat, completion
from device_agent.request import Message, Reveal
from speculation.errors import InvalidRequestError

HELLO = [{"role": "user", "content": "hello"}]


def test_a_completion_takes_a_text_a_list_of_one_or_tokens():
    assert completion({"prompt": "a"}).request.prompt == "a"
    assert completion({"prompt": ["a"]}).request.prompt == "a"
    assert completion({"prompt": [5, 6]}).request.prompt_token_ids == (5, 6)
    assert completion({"prompt": [[5, 6]]}).request.prompt_token_ids == (5, 6)


@pytest.mark.parametrize("prompt", [None, "", [], [[]], ["a", "b"], [[1], [2]], [True], [1.5], ["a", 1], {}, 3, "\ud800"])
def test_any_other_prompt_is_refused(prompt):
    with pytest.raises(InvalidRequestError) as refusal:
        completion({"prompt": prompt})
    assert refusal.value.parameter == "prompt"


def test_only_final_text_is_asked_for_whatever_the_client_says():
    assert completion({"prompt": "a", "reveal": "all"}).request.reveal is Reveal.FINAL


def test_a_chat_takes_texts_and_parts_of_text():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    asked = chat({"messages": [{"role": "developer", "content": "be"}, {"role": "user", "content": parts, "name": "x"}]})
    assert asked.request.messages == (Message("system", "be"), Message("user", "one\ntwo"))


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "hello",
        ["hello"],
        [{"content": "hello"}],
        [{"role": 1, "content": "hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "assistant", "content": "x", "tool_calls": [{}]}],
        [{"role": "user", "content": ""}],
    ],
)
def test_any_other_messages_are_refused(messages):
    with pytest.raises(InvalidRequestError):
        chat({"messages": messages})


def test_the_newer_name_of_the_limit_goes_first_and_is_chats_alone():
    assert chat({"messages": HELLO, "max_tokens": 3}).request.max_tokens == 3
    assert chat({"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}).request.max_tokens == 4
    assert completion({"prompt": "a", "max_completion_tokens": 4}).request.max_tokens is None


def test_keys_that_nobody_knows_and_nulls_are_passed_over():
    extra = {"user": "me", "metadata": {}, "ignore_eos": True, "prediction": {"type": "content", "content": "x"}, "store": 1}
    assert completion({"prompt": "a", "seed": None} | extra) == completion({"prompt": "a"})


def test_a_stop_is_one_string_or_several():
    assert completion({"prompt": "a", "stop": "x"}).request.stop == ("x",)
    assert completion({"prompt": "a", "stop": ["x", "y"]}).request.stop == ("x", "y")


def test_what_vllm_calls_no_top_k_is_none():
    assert completion({"prompt": "a", "top_k": -1}).request.top_k == 0


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_what_would_change_the_answer_is_refused_and_what_asks_for_nothing_is_not(key):
    for value in (*WITHOUT_EFFECT[key], None):
        completion({"prompt": "a", key: value})
    with pytest.raises(InvalidRequestError, match=f"{key} is not implemented") as refusal:
        completion({"prompt": "a", key: {"type": "json_object"}})
    assert refusal.value.parameter == key


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": 0}, 0),
        ({"logprobs": 20}, 20),
        ({"logprobs": 2, "top_logprobs": 0}, 2),
    ],
)
def test_a_completion_says_with_one_key_how_many_likely_tokens_it_wants(given, wanted):
    assert completion({"prompt": "a"} | given).request.logprobs == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_a_chat_says_with_two(given, wanted):
    assert chat({"messages": HELLO} | given).request.logprobs == wanted


BAD_COUNTS = [-1, 21, 2**64, 1.5, "2", True, [2]]


@pytest.mark.parametrize(
    ("read", "given", "parameter"),
    [
        *[(completion, {"logprobs": count}, "logprobs") for count in BAD_COUNTS],
        (completion, {"logprobs": 2, "top_logprobs": 2}, "top_logprobs"),
        (completion, {"prompt_logprobs": 2}, "prompt_logprobs"),
        *[(chat, {"logprobs": True, "top_logprobs": count}, "top_logprobs") for count in BAD_COUNTS],
        *[(chat, {"logprobs": wrong}, "logprobs") for wrong in (2, 0, "yes")],
        (chat, {"top_logprobs": 2}, "top_logprobs"),
        (chat, {"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_what_asks_for_log_probabilities_otherwise_is_refused_by_name(read, given, parameter):
    with pytest.raises(InvalidRequestError) as refusal:
        read({"prompt": "a", "messages": HELLO} | given)
    assert refusal.value.parameter == parameter
    assert "0 to 20" in str(refusal.value) or "logprobs" in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
        ({"mode": "device"}, "reveal"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_values_that_cannot_be_served_are_refused_by_name(given, parameter):
    with pytest.raises(InvalidRequestError) as refusal:
        completion({"prompt": "a"} | given)
    assert refusal.value.parameter == parameter


@pytest.mark.parametrize("given", [{"mode": "device"}, {"privacy": "device_only"}])
def test_what_has_no_final_text_is_shown_the_route_that_serves_it(given):
    with pytest.raises(InvalidRequestError, match="use POST /v1/stream with reveal all or stable"):
        completion({"prompt": "a", "reveal": "all"} | given)


def test_a_stream_says_whether_it_wants_the_usage():
    assert not completion({"prompt": "a"}).is_stream
    options = {"include_usage": True, "continuous_usage_stats": True, "include_obfuscation": False}
    asked = completion({"prompt": "a", "stream": True, "stream_options": options})
    assert (asked.is_stream, asked.has_usage, asked.has_running_usage) == (True, True, True)


@pytest.mark.parametrize("body", [[], "x", None, 3])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequestError, match="JSON object"):
        completion(body)
