"""What a remote full model is asked before it is used, what is refused, and what the self-test says of it."""

import logging
import re

import pytest
from fastapi import Response

from speculation.engines import self_test
from speculation.engines.remote import RemoteServer, connect
from speculation.errors import ConfigurationError, UnknownNameError
from tests.speculation.engines.remote.scene import CONTEXT, SLOTS, VLLM, VOCABULARY, a_model, connected, last_row, rows_of
from tests.support.served_model import KEY, NAME


def test_a_key_is_sent_and_never_said(served, url, route, caplog):
    served.key = KEY
    caplog.set_level(logging.DEBUG)
    server = RemoteServer(url, route, api_key=KEY)
    assert rows_of(connect(a_model(), server, SLOTS), [1, 2]).shape == (2, VOCABULARY)
    wrong = "not-" + KEY
    with pytest.raises(ConfigurationError, match=r"status 401: Unauthorized; give that server's key as OUTRIDER_") as refused:
        connected(url, route, api_key=wrong)
    assert wrong not in str(refused.value)
    assert KEY not in caplog.text + repr(server)


@pytest.mark.parametrize("route", VLLM)
def test_more_tokens_than_a_server_gives_are_refused_with_what_would_be_right(url, route):
    with pytest.raises(ConfigurationError, match=r"logprobs of 21, which is greater than max allowed: 20; ask for fewer \("):
        connected(url, route, num_logprobs=21)


def test_a_model_is_found_by_its_name_or_as_the_only_one(served, url, route):
    served.names = ["other", NAME]
    with pytest.raises(ConfigurationError, match=rf"lists {NAME}, other: name one \(full_model\)"):
        connected(url, route)
    with pytest.raises(ConfigurationError, match=rf"lists {NAME}, other, not 'third' \(full_model\)"):
        connected(url, route, name="third")
    assert connected(url, route, name=NAME).description.name == f"{NAME}:{route}"


def test_a_server_that_takes_shorter_texts_shortens_the_context(served, url, route):
    assert connected(url, route).description.context_length == CONTEXT
    served.max_model_len = 30
    engine = connected(url, route)
    assert engine.description.context_length == 29
    assert rows_of(engine, [5] * 29, 1).shape == (1, VOCABULARY)
    served.meddle = lambda path, answer: without_length(answer)
    assert connected(url, route).description.context_length == CONTEXT


def without_length(answer):
    """Not every server says how long a text may be."""
    for card in answer.get("data", ()):
        del card["max_model_len"]
    return answer


@pytest.mark.parametrize("route", VLLM)
def test_a_folder_of_a_model_with_more_tokens_is_refused(url, route):
    with pytest.raises(ConfigurationError, match=r"Token id 99 is out of vocabulary; is the folder of the full model that"):
        connected(url, route, model=a_model(vocabulary_size=100))


def test_a_server_that_is_not_there_is_named(route):
    with pytest.raises(
        ConfigurationError, match=r"at http://127.0.0.1:1 .*: /v1/models cannot be reached: .*; start that server first"
    ):
        connected("http://127.0.0.1:1", route)


def test_another_servers_route_is_refused(served, url, route):
    served.meddle = lambda path, answer: answer if path == "/v1/models" else Response("Not Found", 404)
    with pytest.raises(ConfigurationError, match=r"refused with status 404: Not Found; full_url is the address before /v1"):
        connected(url, route)


@pytest.mark.parametrize("listed", [[], {}, {"data": [{}]}, {"data": [{"id": "a", "max_model_len": "long"}]}, {"data": []}])
def test_a_list_of_models_that_is_none_is_refused(served, url, route, listed):
    served.meddle = lambda path, answer: listed
    with pytest.raises(ConfigurationError, match=r"is no list of models|gives a a max_model_len of 'long'|lists none"):
        connected(url, route)


def test_a_route_that_does_not_exist_is_refused(url):
    with pytest.raises(UnknownNameError, match="unknown route of a remote model 'llama'; known: sglang, vllm, vllm-prefixes"):
        connected(url, "llama")


@pytest.mark.parametrize("route", VLLM)
def test_a_server_that_gives_tokens_as_text_is_refused(served, url, route):
    def meddle(path, answer):
        for choice in answer.get("choices", ()):
            choice["logprobs"]["tokens"] = ["a"]
        return answer

    served.meddle = meddle
    with pytest.raises(ConfigurationError, match=r"must come as token_id:N, not as 'a': .*; a newer vLLM does"):
        connected(url, route)


def test_a_server_that_gives_the_same_rows_however_it_is_asked_is_exact(engine):
    assert self_test.make_exact(engine).is_exact


def test_a_server_that_does_not_is_used_all_the_same_and_the_log_says_so(served, engine, caplog):
    def meddle(path, answer):
        rows = last_row(answer)
        if isinstance(rows[0], dict):
            rows[0] = {key: value + len(served.requests) * 1e-6 for key, value in rows[0].items()}
        else:
            rows[0] = [[value + len(served.requests) * 1e-6, token_id, None] for value, token_id, _ in rows[0]]
        return answer

    served.meddle = meddle
    assert not self_test.make_exact(engine).is_exact
    said = r"org/tiny:.*: rows depend on .*rows differ.*, and nothing here can mend it: .*, which devices are told"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert re.search(said, caplog.text)
