from __future__ import annotations

from device_agent.request import Message, StreamRequest
from device_agent.retrieval.documents import Hit, Label, Span
from device_agent.retrieval.passages import passages_of, text_of, that_fit, with_passages

TEXT = "0123456789abcdefghij"


def hit(start, end, score, document="one"):
    return Hit(document, Label.SHARED, Span(start, end), score, TEXT[start:end])


def test_chunks_that_overlap_are_read_once():
    passages = passages_of([hit(6, 12, 0.9), hit(0, 8, 0.5), hit(15, 18, 0.7), hit(0, 4, 0.6, "two")])
    assert [(p.document, p.span.start, p.span.end, p.score, p.text) for p in passages] == [
        ("one", 0, 12, 0.9, TEXT[:12]),
        ("one", 15, 18, 0.7, TEXT[15:18]),
        ("two", 0, 4, 0.6, TEXT[:4]),
    ]


def test_a_chunk_inside_another_adds_nothing():
    assert [passage.text for passage in passages_of([hit(0, 10, 0.5), hit(2, 5, 0.6)])] == [TEXT[:10]]


def test_the_best_passage_stands_next_to_the_prompt():
    passages = passages_of([hit(0, 3, 0.5), hit(10, 13, 0.9)])
    assert with_passages(StreamRequest("Prompt"), passages).prompt == "012\n\nabc\n\nPrompt"
    assert with_passages(StreamRequest("Prompt"), []).prompt == "Prompt"


def test_a_conversation_gets_them_before_its_last_message():
    messages = (Message("system", "Be brief."), Message("user", "What?", "device_only"))
    request = with_passages(
        StreamRequest("Be brief.\n\nWhat?", messages=messages, mode="device"), passages_of([hit(0, 3, 0.5)])
    )
    assert request.messages == (Message("system", "Be brief."), Message("user", "012\n\nWhat?", "device_only"))


def test_as_many_of_the_best_as_fit_go_before_a_prompt():
    hits = [hit(0, 10, 0.9), hit(10, 18, 0.8, "two"), hit(0, 2, 0.7, "three")]

    def that_fit_in(tokens, num_bytes=1000):
        fitting = that_fit(StreamRequest("p"), hits, lambda request: len(request.prompt), tokens, num_bytes)
        return [len(text_of(passages_of(fitting))), *(found.document for found in fitting)]

    assert that_fit_in(1000) == [26, "one", "two", "three"]
    assert that_fit_in(17) == [16, "one", "three"]
    assert that_fit_in(1000, 13) == [12, "one"]
    assert that_fit_in(3) == [0]
