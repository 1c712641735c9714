"""A full model that another server runs: what is asked, and what of the answers is taken."""

import threading

import numpy as np
import pytest

from speculation.choice import choose
from speculation.engines.base import Chunk
from speculation.engines.remote import ALL_LOGPROBS
from speculation.engines.remote_routes import UNLIKELY
from speculation.parameters import SamplingParameters
from tests.speculation.engines.remote.scene import VLLM, VOCABULARY, connected, rows_of, whole
from tests.support.served_model import NAME


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
    assert chosen == choose(whole(tokens), range(30), cut).token_ids


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
