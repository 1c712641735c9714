"""A full model that another server runs: what is asked, what of the answers is taken, and how each failure is told."""

import gc
import json
import logging
import re
import threading

import httpx
import numpy as np
import pytest
from fastapi import Response

from speculation.choice import choose
from speculation.engines import remote, remote_http, self_test
from speculation.engines.base import Chunk
from speculation.engines.random import RandomEngine
from speculation.engines.remote import ALL_LOGPROBS, RemoteServer, connect
from speculation.engines.remote_http import JsonServer
from speculation.engines.remote_routes import ROUTES, UNLIKELY
from speculation.errors import ConfigurationError, EngineError, UnknownNameError
from speculation.parameters import SamplingParameters
from tests.support.served_model import KEY, NAME, ServedModel, serving

VOCABULARY, CONTEXT, SLOTS = 64, 40, 4
VLLM = ["vllm", "vllm-prefixes"]


class FullModel:
    """What the engine needs to know of a model's folder."""

    vocabulary_size, context_length = VOCABULARY, CONTEXT


def a_model(**changes):
    return type("Changed", (FullModel,), changes)()


@pytest.fixture(scope="module")
def running():
    """A server for all tests of this module, and its address."""
    served = ServedModel(RandomEngine(VOCABULARY, CONTEXT + 1, seed=3), CONTEXT + 1)
    with serving(served) as url:
        yield served, url


@pytest.fixture
def served(running):
    """The server as it was when it started."""
    running[0].__init__(RandomEngine(VOCABULARY, CONTEXT + 1, seed=3), CONTEXT + 1)
    vars(running[0]).pop("_draw", None)
    return running[0]


@pytest.fixture
def url(served, running):
    return running[1]


@pytest.fixture(params=ROUTES)
def route(request):
    return request.param


@pytest.fixture
def engine(url, route):
    return connected(url, route, num_logprobs=5)


def connected(url, route, name=None, model=None, **given):
    return connect(model or a_model(), RemoteServer(url, route, name, **given), SLOTS)


def rows_of(engine, tokens, count=None):
    cache = engine.open()
    logits = engine.extend([Chunk(cache, tokens, len(tokens) if count is None else count)])
    engine.close(cache)
    return logits


def whole(tokens):
    """The rows themselves, by an engine like that behind the server."""
    return rows_of(RandomEngine(VOCABULARY, CONTEXT, seed=3), tokens)


# What is taken.


def test_the_likeliest_tokens_have_their_log_probabilities_and_no_other_can_be_chosen(engine):
    tokens = list(range(12))
    logits, wanted = rows_of(engine, tokens), whole(tokens)
    for row, full in zip(logits, wanted, strict=True):
        top = np.argsort(-full)[:5]
        assert sorted((row > UNLIKELY).nonzero()[0]) == sorted(top)
        np.testing.assert_allclose(row[top] - row[top[0]], full[top] - full[top[0]], atol=1e-5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("temperature", [0.0, 0.8, 100.0])
@pytest.mark.parametrize("further", [{}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 3}, {"top_k": 30}])
def test_what_is_chosen_is_what_top_k_would_choose(engine, temperature, further):
    tokens = list(range(30))
    asked = [SamplingParameters(temperature=temperature, seed=seed, **further) for seed in range(30)]
    cut = [SamplingParameters(temperature, min(p.top_k or 5, 5), p.top_p, p.min_p, p.seed) for p in asked]
    chosen = choose(rows_of(engine, tokens), range(30), asked).token_ids
    assert chosen.tolist() == choose(whole(tokens), range(30), cut).token_ids.tolist()


def test_a_row_does_not_hang_on_what_follows_it(engine):
    """vLLM adds the token that follows to the row: were it kept, a draft would be weighed because it was drafted."""
    rows = [rows_of(engine, [7, 8, following])[:2].tobytes() for following in range(VOCABULARY)]
    assert len(set(rows)) == 1


@pytest.mark.parametrize("route", VLLM)
def test_a_row_does_not_hang_on_what_was_drawn_from_it(served, url, route):
    engine, rows = connected(url, route, num_logprobs=5), set()
    for token in range(VOCABULARY):
        served._draw = lambda row, temperature, token=token: token
        rows.add(rows_of(engine, [7, 8], 2).tobytes())
    assert len(rows) == 1


@pytest.mark.parametrize("count", range(1, 6))
def test_the_last_rows_are_the_last_of_all_rows(engine, count):
    tokens = list(range(20, 25))
    assert rows_of(engine, tokens, count).tobytes() == rows_of(engine, tokens)[-count:].tobytes()


def test_all_tokens_are_those_of_the_vocabulary(served, url, route):
    served.max_logprobs = VOCABULARY
    for asked in (ALL_LOGPROBS, VOCABULARY, 10 * VOCABULARY):
        assert (rows_of(connected(url, route, num_logprobs=asked), [1, 2, 3]) > UNLIKELY).all()


@pytest.mark.parametrize("route", ["sglang"])
def test_a_probability_of_nothing_is_unlikely(served, engine):
    def meddle(path, answer):
        answer["meta_info"]["output_top_logprobs"][0][-1][0] = None
        answer["meta_info"]["output_top_logprobs"][0][-2][0] = -3.4028234663852886e38
        return answer

    served.meddle = meddle
    assert (rows_of(engine, [1, 2], 1) > UNLIKELY).sum() == 3


# What is asked.


def test_nothing_is_asked_for_rows_that_nobody_wants(served, engine):
    served.requests.clear()
    assert rows_of(engine, [1, 2, 3], 0).shape == (0, VOCABULARY)
    assert engine.extend([]).shape == (0, VOCABULARY)
    assert served.requests == []


VLLM_BODY = {
    "model": NAME,
    "max_tokens": 1,
    "temperature": 0.0,
    "logprobs": 5,
    "return_tokens_as_token_ids": True,
    "stream": False,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
SGLANG_BODY = {
    "sampling_params": {
        "max_new_tokens": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    },
    "return_logprob": True,
    "top_logprobs_num": 5,
    "return_text_in_logprobs": False,
    "stream": False,
}


@pytest.mark.parametrize(
    ("route", "count", "body"),
    [
        ("vllm", 1, VLLM_BODY | {"prompt": [4, 5, 6]}),
        ("vllm", 2, VLLM_BODY | {"prompt": [4, 5, 6], "prompt_logprobs": 5}),
        ("vllm-prefixes", 1, VLLM_BODY | {"prompt": [[4, 5, 6]]}),
        ("vllm-prefixes", 2, VLLM_BODY | {"prompt": [[4, 5], [4, 5, 6]]}),
        ("sglang", 1, SGLANG_BODY | {"input_ids": [4, 5, 6], "logprob_start_len": -1}),
        ("sglang", 2, SGLANG_BODY | {"input_ids": [4, 5, 6], "logprob_start_len": 1}),
    ],
)
def test_a_request_is_what_its_route_takes(served, engine, count, body):
    served.requests.clear()
    rows_of(engine, [4, 5, 6], count)
    assert served.requests == [body]


def test_the_whole_text_is_sent_with_every_request(served, engine):
    cache = engine.open()
    engine.extend([Chunk(cache, [1, 2, 3], 0)])
    engine.truncate(cache, 2)
    fork = engine.fork(cache)
    served.requests.clear()
    engine.extend([Chunk(cache, [4], 1)])
    engine.extend([Chunk(fork, [5], 1)])
    sent = [body.get("input_ids") or np.ravel(body["prompt"]).tolist() for body in served.requests]
    assert sent == [[1, 2, 4], [1, 2, 5]]


def test_chunks_of_a_pass_are_asked_for_at_once(served, engine):
    """Each request waits in the server until all have come."""
    everyone = threading.Barrier(3)
    post = engine._http.post

    def at_once(*given):
        everyone.wait(10)
        return post(*given)

    engine._http.post = at_once
    engine.extend([Chunk(engine.open(), [n, 2], 1) for n in range(3)])


# The start.


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


# Failures while it runs.


def first_row(answer):
    """The place of the row behind the last token but one, and of its last token's entry."""
    choices = answer.get("choices")
    if choices is None:
        return answer["meta_info"]["input_top_logprobs"]
    return choices[0]["prompt_logprobs"] or [choice["logprobs"]["top_logprobs"][0] for choice in choices]


def last_row(answer):
    choices = answer.get("choices")
    return answer["meta_info"]["output_top_logprobs"] if choices is None else choices[-1]["logprobs"]["top_logprobs"]


def changed(change):
    """An answer with the generated row changed by ``change`` on a list of [value, token id]."""

    def meddle(path, answer):
        rows = last_row(answer)
        is_tuples = isinstance(rows[0], list)
        pairs = [[v, t] for v, t, _ in rows[0]] if is_tuples else [[v, int(k.split(":")[1])] for k, v in rows[0].items()]
        change(pairs)
        rows[0] = [[v, t, None] for v, t in pairs] if is_tuples else {f"token_id:{t}": v for v, t in pairs}
        return answer

    return meddle


def set_entry(index, place, value):
    def change(pairs):
        pairs[index][place] = value

    return change


def without_row(path, answer):
    del last_row(answer)[0]
    return answer


def with_more_rows(path, answer):
    last_row(answer).append(last_row(answer)[0])
    return answer


def cut_off(path, answer):
    return Response(json.dumps(answer)[:-9], media_type="application/json")


FAILURES = {
    "internal error": (lambda p, a: Response("Internal Server Error", 500), "refused with status 500: Internal Server Error"),
    "overload": (
        lambda p, a: Response(json.dumps({"error": {"message": "try later", "type": "x", "code": 503}}), 503),
        "refused with status 503: try later",
    ),
    "older refusal": (
        lambda p, a: Response(json.dumps({"object": "error", "message": "too long", "code": 400}), 400),
        "refused with status 400: too long",
    ),
    "long refusal": (lambda p, a: Response("x" * 5000, 400), r"status 400: x{300}\.\.\.$"),
    "redirect": (lambda p, a: Response("", 307, {"location": "http://127.0.0.1/"}), r"redirects \(status 307\)"),
    "a page": (lambda p, a: Response("<html>", media_type="text/html"), "what is not JSON"),
    "cut off": (cut_off, "what is not JSON"),
    "deep": (lambda p, a: Response("[" * 100_000), "what is not JSON"),
    "a list": (lambda p, a: [], "in another form than its route has"),
    "an error as an answer": (lambda p, a: {"error": "no"}, "in another form than its route has"),
    "no row": (without_row, "one row of .* was asked for, 0 came"),
    "two rows": (with_more_rows, "one row of .* was asked for, 2 came"),
    "too few tokens": (changed(lambda pairs: pairs.pop()), "a row has 4 tokens, 5 were asked for"),
    "too many tokens": (
        changed(lambda pairs: pairs.extend([[-9.0, 60], [-9.0, 61]])),
        "a row has [67] tokens, 5 were asked for",
    ),
    "beyond the vocabulary": (changed(set_entry(2, 1, VOCABULARY)), f"of a vocabulary of {VOCABULARY}: ids .* to {VOCABULARY}"),
    "negative": (changed(set_entry(2, 1, -1)), f"of a vocabulary of {VOCABULARY}: ids -1 to"),
    "no number": (changed(set_entry(0, 0, float("nan"))), "highest log-probability is nan"),
    "infinite": (changed(set_entry(0, 0, float("inf"))), "highest log-probability is inf"),
    "a text for a number": (changed(set_entry(0, 0, "much")), "in another form than its route has"),
    "a long text": (changed(set_entry(0, 0, "much" * 1000)), r"in another form than its route has: ValueError.{290}\.\.\.$"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_an_engine_error_with_its_reason_and_changes_nothing(served, engine, failure):
    meddle, said = FAILURES[failure]
    cache, other = engine.open(), engine.open()
    engine.extend([Chunk(cache, [1, 2], 0)])
    served.meddle = meddle
    with pytest.raises(EngineError, match=said) as refused:
        engine.extend([Chunk(cache, [3, 4], 2), Chunk(other, [5], 1)])
    assert type(refused.value) is EngineError
    assert str(refused.value).startswith(("/v1/completions", "/generate"))
    assert "127.0.0.1" not in str(refused.value)
    served.meddle = None
    assert [engine.length(cache), engine.length(other)] == [2, 0]
    assert engine.extend([Chunk(cache, [3, 4], 2)]).tobytes() == rows_of(engine, [1, 2, 3, 4], 2).tobytes()


@pytest.mark.parametrize("route", ["vllm"])
def test_a_prefix_cache_that_was_read_leaves_rows_out(served, engine):
    served.cached = 3
    assert rows_of(engine, [1, 2, 3, 4], 2).shape == (2, VOCABULARY)
    with pytest.raises(EngineError, match="no row at position 2: was a prefix cache read"):
        rows_of(engine, [1, 2, 3, 4], 3)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("vllm", "prompt_logprobs has 2 rows for a prompt of 3 tokens"),
        ("vllm-prefixes", r"choices \[0, 1\] came for 3 prompts"),
        ("sglang", "input_top_logprobs has 2 rows, not 3"),
    ],
)
def test_another_number_of_rows_is_refused(served, engine, said):
    def meddle(path, answer):
        rows = answer["choices"] if route_of(answer) == "vllm-prefixes" else first_row(answer)
        rows.pop()
        return answer

    served.meddle = meddle
    with pytest.raises(EngineError, match=said):
        rows_of(engine, [1, 2, 3])


def route_of(answer):
    if "choices" not in answer:
        return "sglang"
    return "vllm" if answer["choices"][0]["prompt_logprobs"] else "vllm-prefixes"


@pytest.mark.parametrize("route", ["sglang"])
def test_a_missing_row_of_sglang_is_refused(served, engine):
    def meddle(path, answer):
        answer["meta_info"]["input_top_logprobs"][1] = None
        return answer

    served.meddle = meddle
    with pytest.raises(EngineError, match="row 0 of 3 has no top log-probabilities"):
        rows_of(engine, [1, 2, 3])


@pytest.mark.parametrize("route", ["vllm-prefixes"])
def test_choices_are_told_by_their_index(served, engine):
    wanted = rows_of(engine, [1, 2, 3])
    served.meddle = lambda path, answer: answer | {"choices": answer["choices"][::-1]}
    assert rows_of(engine, [1, 2, 3]).tobytes() == wanted.tobytes()
    served.meddle = lambda path, answer: answer | {"choices": answer["choices"][:1] * 3}
    with pytest.raises(EngineError, match=r"choices \[0\] came for 3 prompts"):
        rows_of(engine, [1, 2, 3])


@pytest.mark.parametrize("route", VLLM)
def test_a_server_that_gives_tokens_as_text_is_refused(served, url, route):
    def meddle(path, answer):
        for choice in answer.get("choices", ()):
            choice["logprobs"]["tokens"] = ["a"]
        return answer

    served.meddle = meddle
    with pytest.raises(ConfigurationError, match=r"must come as token_id:N, not as 'a': .*; a newer vLLM does"):
        connected(url, route)


def test_an_answer_that_does_not_come_is_given_up(served, url, route):
    engine, release = connected(url, route, timeout_s=0.2), threading.Event()
    served.meddle = lambda path, answer: release.wait(10) and answer
    try:
        with pytest.raises(EngineError, match=r"did not answer within 0.2 s"):
            rows_of(engine, [1, 2])
    finally:
        release.set()


def test_an_answer_without_end_is_given_up(served, engine, monkeypatch):
    monkeypatch.setattr(remote_http, "ERROR_LIMIT_BYTES", 100)
    served.meddle = lambda path, answer: Response(b" " * 3_000_000)
    with pytest.raises(EngineError, match=r"more than the \d+ bytes that are read"):
        rows_of(engine, [1, 2], 1)
    served.meddle = lambda path, answer: Response(b" " * 101, 500)
    with pytest.raises(EngineError, match="more than the 100 bytes"):
        rows_of(engine, [1, 2], 1)


def test_an_answer_that_drips_is_given_up():
    times_s = iter([0.0, 0.5, 1.5])
    answer = httpx.Response(200, content=iter([b"[", b"1", b"]"]))
    http = with_transport(lambda request: answer, timeout_s=1.0, clock=lambda: next(times_s))
    with pytest.raises(EngineError, match="did not answer within 1 s"):
        http.get("/v1/models", 100)
    http.close()


def with_transport(handler, timeout_s=10.0, **clock):
    http = JsonServer("http://model", None, timeout_s, 1, **clock)
    http.close()
    http._client = httpx.Client(transport=httpx.MockTransport(handler))
    return http


@pytest.mark.parametrize("error", remote_http.BROKEN)
@pytest.mark.parametrize("num_broken", [1, 2])
def test_a_broken_connection_is_tried_once_more_and_no_more(error, num_broken):
    """A server closes connections that it has kept for long, perhaps just as one is used again."""
    calls = []

    def handler(request):
        calls.append(request.url.path)
        if len(calls) <= num_broken:
            raise error("gone")
        return httpx.Response(200, content=iter([b'["fine"]']))

    http = with_transport(handler)
    if num_broken == 1:
        assert http.get("/v1/models", 100) == ["fine"]
    else:
        with pytest.raises(EngineError, match=r"^/v1/models cannot be reached: gone"):
            http.get("/v1/models", 100)
    assert len(calls) == 2
    http.close()


def test_a_server_that_goes_away_is_an_engine_error(served, route):
    with serving(served) as url:
        engine = connected(url, route)
    with pytest.raises(EngineError, match="cannot be reached"):
        rows_of(engine, [1, 2])


def test_a_proxy_named_in_the_environment_is_not_used(url, route, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert rows_of(connected(url, route), [1, 2]).shape == (2, VOCABULARY)


def test_connections_and_threads_end_with_the_engine(url, route, monkeypatch):
    ended = []
    monkeypatch.setattr(remote, "_end", lambda pool, http: ended.append((pool.shutdown(), http.close())))
    engine = connected(url, route)
    rows_of(engine, [1, 2])
    del engine
    gc.collect()
    assert len(ended) == 1


# The self-test.


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
