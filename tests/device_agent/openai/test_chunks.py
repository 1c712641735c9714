"""The law of chunks: joined they are the answer, nothing tentative shows, and there is one end."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.display import Display
from device_agent.events import CommitOffset, CorrectEvent, DoneEvent, ErrorEvent, SessionEvent, SpeculativeEvent
from device_agent.logprobs import Spelling
from device_agent.openai.chunks import Chunks
from device_agent.openai.logprobs import completion_json
from device_agent.openai.requests import Asked
from device_agent.openai.shapes import CHAT, COMPLETION
from device_agent.request import Reveal, StreamRequest
from speculation.logprobs import TokenLogprobs
from speculation.text import TokenBytes

SESSION = SessionEvent(0, "a1", "collaborate", "final", "d", "f", "c" * 64, None, None, 7)
PIECES = ["a", "b", "x", " ", "\n", "é", "\u2028", '"']
START = 5


def decode(token_ids):
    return "".join(PIECES[token_id] for token_id in token_ids)


def done(display, seq=99, reason="length"):
    counts = {
        "passes": 3,
        "proposed": 9,
        "accepted": 2,
        "late": 1,
        "corrections": 1,
        "bonus": 1,
        "discarded": 5,
        "near_ties": 0,
    }
    num_tokens = len(display.token_ids)
    usage = {"prompt_tokens": START, "completion_tokens": num_tokens, "total_tokens": START + num_tokens} | counts
    return DoneEvent(seq, reason, (0,) * START, display.token_ids, display.text, display.num_final, usage, {})


def read(lines):
    """What a client reads: the chunks, and whether the stream said that it is over."""
    data = [line.removeprefix("data: ") for line in lines.split("\n\n") if line]
    is_done = data[-1] == "[DONE]"
    return [json.loads(one) for one in (data[:-1] if is_done else data)], is_done


def text_of(shape, chunks):
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["text"] if shape is COMPLETION else choice["delta"].get("content", "") for choice in choices)


TOKENS = st.integers(0, len(PIECES) - 1)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(st.tuples(st.lists(TOKENS, max_size=3), st.lists(TOKENS, min_size=1, max_size=3)), max_size=8),
    st.lists(st.sampled_from(["x", "ab", "é"]), max_size=2),
    st.sampled_from([CHAT, COMPLETION]),
    st.booleans(),
    st.booleans(),
)
def test_the_chunks_joined_are_the_text_of_the_answer(passes, stops, shape, has_usage, has_running_usage):
    display = Display(START, decode, itertools.count(1), Reveal.FINAL, stops=stops)
    chunks = Chunks(shape, Asked(StreamRequest("p"), True, has_usage, has_running_usage), 1)
    lines = chunks.lines([SESSION])
    for drafted, final in passes:
        lines += chunks.lines([event for token_id in drafted for event in display.drafted(token_id, 0.5)])
        lines += chunks.lines(display.finalised(final))
    lines += chunks.lines(display.finish(0))
    assert not chunks.is_over
    last = done(display)
    told, is_done = read(lines + chunks.lines([last]))
    assert chunks.is_over
    assert is_done
    assert text_of(shape, told) == last.text
    reasons = [choice["finish_reason"] for chunk in told for choice in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert len({json.dumps([chunk[key] for key in ("id", "object", "created", "model")]) for chunk in told}) == 1
    assert [chunk["choices"] for chunk in told].count([]) == has_usage


WORDS = [b"a", b"b", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xff", b"", "é€".encode(), b"aXb\xe2"]
TABLE = TokenBytes(dict(enumerate(WORDS)))


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=3), max_size=10),
    st.lists(st.sampled_from(["X", "ab", "€", "b"]), max_size=2),
    st.sampled_from([CHAT, COMPLETION]),
)
def test_log_probabilities_come_once_in_order_and_with_the_text_that_their_token_is_part_of(passes, stops, shape):
    display = Display(START, TABLE, itertools.count(1), Reveal.FINAL, stops=stops, spelling=Spelling(TABLE, {}))
    chunks, told, values = Chunks(shape, Asked(StreamRequest("p"), True), 1), 0, itertools.count(1)
    lines = chunks.lines([SESSION])
    for final in passes:
        logprobs = [TokenLogprobs(-float(next(values))) for _ in final]
        lines += chunks.lines(display.finalised(final, logprobs))
    lines += chunks.lines(display.finish(0))
    choices = [choice for chunk in read(lines + chunks.lines([done(display)]))[0] for choice in chunk["choices"]]
    text, data = "", b""
    for choice in choices:
        text += text_of(shape, [{"choices": [choice]}])
        for value, token, offset in logprobs_of(shape, choice["logprobs"]):
            told, data = told + 1, data + token
            assert value == -told
            # Not before its text: only what comes last has none.
            assert offset is None or offset < len(text) or choice["finish_reason"]
        # And not behind it: what was told makes the text.
        assert data.decode(errors="replace").startswith(text)
    assert told == len(display.token_ids)


def logprobs_of(shape, logprobs):
    """Of one choice: value, bytes and, where it has one, offset of each token."""
    if logprobs is None:
        return []
    if shape is CHAT:
        return [(entry["logprob"], bytes(entry["bytes"]), None) for entry in logprobs["content"]]
    data = [
        bytes.fromhex(name[6:].replace("\\x", "")) if name.startswith("bytes:") else name.encode()
        for name in logprobs["tokens"]
    ]
    return list(zip(logprobs["token_logprobs"], data, logprobs["text_offset"], strict=True))


def test_a_token_that_ends_in_the_middle_of_a_character_waits_for_its_end():
    display = Display(START, TABLE, itertools.count(1), Reveal.FINAL, spelling=Spelling(TABLE, {}))
    chunks = Chunks(CHAT, Asked(StreamRequest("p"), True), 1)
    lines = chunks.lines([SESSION])
    for token_id in (0, 2, 3, 7):
        lines += chunks.lines(display.finalised([token_id], [TokenLogprobs(-float(token_id))]))
    lines += chunks.lines([*display.finish(0), done(display)])
    choices = [chunk["choices"][0] for chunk in read(lines)[0]]
    told = [(choice["delta"].get("content"), logprobs_of(CHAT, choice["logprobs"])) for choice in choices]
    assert told[1:] == [
        ("a", [(0, b"a", None)]),
        ("é", [(-2, b"\xc3", None), (-3, b"\xa9", None)]),
        (None, [(-7, b"", None)]),
    ]


def test_names_that_tokens_share_stand_for_the_likelier_and_bytes_say_that_they_are_bytes():
    spelling = Spelling(TABLE, {11: "a"})
    told = spelling.final(2, TokenLogprobs(-3.0, ((0, -0.5), (11, -1.0))), 0)
    assert completion_json([told])["top_logprobs"] == [{"a": -0.5, "bytes:\\xc3": -3.0}]
    assert completion_json([told])["tokens"] == ["bytes:\\xc3"]


def test_a_tentative_token_never_shows():
    chunks = Chunks(COMPLETION, Asked(StreamRequest("p"), True), 1)
    assert chunks.lines([SESSION, SpeculativeEvent(1, START, (1,), "b", 0.9)]) == ""


def test_bytes_that_are_never_completed_are_part_of_the_text():
    chunks = Chunks(COMPLETION, Asked(StreamRequest("p"), True), 1)
    told, _ = read(chunks.lines([SESSION, CorrectEvent(1, START, (), "\ufffd", CommitOffset(1, 1))]))
    assert text_of(COMPLETION, told) == "\ufffd"


def test_an_answer_that_fails_has_an_error_object_and_no_done():
    chunks = Chunks(CHAT, Asked(StreamRequest("p"), True), 1)
    error = {"message": "gone", "type": "api_error", "param": None, "code": "link"}
    told, is_done = read(chunks.lines([SESSION, ErrorEvent(1, error)]))
    assert (told[-1], is_done, chunks.is_over) == ({"error": error}, False, True)


def test_the_first_delta_of_a_chat_has_the_role_and_the_last_chunk_the_seed():
    chunks = Chunks(CHAT, Asked(StreamRequest("p"), True), 1)
    display = Display(START, decode, itertools.count(1), Reveal.FINAL)
    lines = chunks.lines([SESSION, *display.finalised([0, 1]), *display.finish(0), done(display, reason="stop")])
    told, _ = read(lines)
    assert [chunk["choices"][0]["delta"] for chunk in told] == [{"role": "assistant", "content": ""}, {"content": "ab"}, {}]
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["outrider"] == {"seed": 7}
    assert all("usage" not in chunk for chunk in told)
    assert {chunk["system_fingerprint"] for chunk in told} == {"fp_" + "c" * 16}


@pytest.mark.parametrize("has_running_usage", [False, True])
def test_usage_is_told_where_it_was_asked_for(has_running_usage):
    chunks = Chunks(COMPLETION, Asked(StreamRequest("p"), True, True, has_running_usage), 1)
    display = Display(START, decode, itertools.count(1), Reveal.FINAL)
    told, _ = read(chunks.lines([SESSION, *display.finalised([0, 1]), *display.finish(0), done(display)]))
    counts = {"prompt_tokens": START, "completion_tokens": 2, "total_tokens": START + 2}
    details = {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 6}
    whole = counts | {"completion_tokens_details": details}
    assert [chunk["usage"] for chunk in told] == ([counts, whole, whole] if has_running_usage else [None, None, whole])
