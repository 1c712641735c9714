from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_agent.retrieval.cutting import spans_of
from device_agent.retrieval.documents import Cut
from tests.support import small_bert


def cut_up(text, chunk_tokens, overlap_tokens):
    offsets = small_bert.tokenizer().encode(text, add_special_tokens=False).offsets
    return offsets, spans_of(text, offsets, Cut(chunk_tokens, overlap_tokens))


@given(st.text("ab \n", max_size=120), st.integers(1, 12), st.integers(0, 11))
def test_every_token_is_in_a_chunk_and_no_chunk_has_too_many(text, chunk_tokens, overlap_tokens):
    overlap_tokens = min(overlap_tokens, chunk_tokens - 1)
    offsets, spans = cut_up(text, chunk_tokens, overlap_tokens)
    inside = [[token for token in offsets if span.start <= token[0] and token[1] <= span.end] for span in spans]
    assert all(1 <= len(tokens) <= chunk_tokens for tokens in inside)
    assert {token for tokens in inside for token in tokens} == set(offsets)


def test_a_chunk_ends_with_a_paragraph_where_one_ends_in_its_second_half():
    _, spans = cut_up("aaaa bbbb\n\ncccc dddd", 12, 2)
    assert (spans[0].start, spans[0].end) == (0, 9)


def test_chunks_share_as_many_tokens_as_they_are_told_to():
    _, spans = cut_up("a" * 20, 8, 3)
    assert [(span.start, span.end) for span in spans] == [(0, 8), (5, 13), (10, 18), (15, 20)]
