"""Answers that are none: each is an engine error with its reason, and changes nothing."""

import json

import pytest
from fastapi import Response

from speculation.engines.base import Chunk
from speculation.errors import EngineError
from tests.speculation.engines.remote.scene import VOCABULARY, last_row, rows_of


def first_row(answer):
    """The place of the row behind the last token but one, and of its last token's entry."""
    choices = answer.get("choices")
    if choices is None:
        return answer["meta_info"]["input_top_logprobs"]
    return choices[0]["prompt_logprobs"] or [choice["logprobs"]["top_logprobs"][0] for choice in choices]


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
