from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_agent.answer import Answer


def decode(token_ids: list[int]) -> str:
    return bytes(token_ids).decode(errors="replace")


byte_tokens = st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0x61])), max_size=30)


def filled(token_ids):
    answer = Answer(decode)
    answer.extend(token_ids)
    return answer


@given(byte_tokens)
def test_the_pieces_and_what_is_held_back_are_the_text_of_all_tokens(token_ids):
    answer = filled(token_ids)
    assert answer.text() + answer.held_back() == decode(token_ids)


@given(byte_tokens, byte_tokens, st.integers(0, 30))
def test_cutting_back_leaves_what_a_shorter_answer_is(token_ids, others, count):
    answer = filled(token_ids)
    answer.cut(count)
    answer.extend(others)
    kept = token_ids[:count] + others
    fresh = filled(kept)
    assert answer.token_ids() == fresh.token_ids() == tuple(kept)
    assert answer.text() == fresh.text()
    assert [answer.code_points(n) for n in range(len(kept) + 1)] == [len(answer.text(0, n)) for n in range(len(kept) + 1)]


def test_what_is_held_back_may_be_asked_for_before_the_rest_comes():
    answer = filled([0xE2, 0x82])
    assert answer.held_back() == answer.held_back() == "\ufffd"
    answer.extend([0xAC])
    assert answer.text() == "€"


def test_tokens_are_counted_by_the_text_that_they_reach_and_that_they_keep_within():
    answer = filled(b"ab\xc3\xa9c")
    assert [answer.tokens_reaching(code_points, 0) for code_points in range(5)] == [0, 1, 2, 4, 5]
    assert [answer.tokens_within(code_points, 0) for code_points in range(5)] == [0, 1, 3, 4, 5]
    assert (answer.tokens_reaching(1, 3), answer.tokens_within(0, 3)) == (3, 3)
