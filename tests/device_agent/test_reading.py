"""At 238 words a minute of six code points each a reader passes 23.8 code points a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_agent.events import CommitOffset, CorrectEvent, RevokeEvent, SpeculativeEvent
from device_agent.reading import Reader

TEN = "x" * 10


def shown(*texts):
    return [SpeculativeEvent(0, 0, (1,), text, 0.5) for text in texts]


def corrected(text, num_tokens):
    return CorrectEvent(0, 0, (1,) * num_tokens, text, CommitOffset(0, 0))


def revoked(count):
    return RevokeEvent(0, 0, count, "contradicted")


def test_a_token_was_read_once_the_reader_passed_its_beginning():
    """After 0.5 s the reader stands at 11.9: past the beginnings 0 and 10, before 20."""
    reader = Reader()
    reader.follow(shown(TEN, TEN, TEN), 3.0)
    reader.follow([revoked(1)], 3.5)
    assert reader.num_revoked_after_read == 0
    reader.follow([revoked(2)], 3.5)
    assert reader.num_revoked_after_read == 2


def test_reading_begins_with_the_first_text():
    reader = Reader()
    reader.follow([], 100.0)
    reader.follow(shown(TEN, TEN), 200.0)
    reader.follow([revoked(1)], 200.4)
    assert reader.num_revoked_after_read == 0


def test_time_spent_at_the_end_of_the_text_is_not_made_up_for():
    """After an hour at 10, a tenth of a second later the reader is at 12.38: in the second token, not in the third."""
    reader = Reader()
    reader.follow(shown(TEN), 0.0)
    reader.follow(shown(TEN, TEN), 3600.0)
    reader.follow([revoked(2)], 3600.1)
    assert reader.num_revoked_after_read == 1


def test_after_a_revoke_the_reader_reads_on_from_its_place():
    """At 23.8 after a second; thrown back to 10; half a second later at 21.9 of what was put there."""
    reader = Reader()
    reader.follow(shown(TEN, TEN, TEN), 0.0)
    reader.follow([revoked(2), *shown(TEN, TEN, TEN)], 1.0)
    assert reader.num_revoked_after_read == 2
    reader.follow([revoked(3)], 1.5)
    assert reader.num_revoked_after_read == 2 + 2


def test_final_tokens_are_text_to_read_too():
    """20 code points of two final tokens take 0.84 s; then the token behind them begins."""
    for seconds, num_read in ((0.8, 0), (0.9, 1)):
        reader = Reader()
        reader.follow([corrected(TEN + TEN, 2), *shown(TEN)], 0.0)
        reader.follow([revoked(1)], seconds)
        assert reader.num_revoked_after_read == num_read


def test_what_comes_and_goes_at_once_is_never_read():
    reader = Reader()
    reader.follow([*shown(TEN), revoked(1)], 5.0)
    assert reader.num_revoked_after_read == 0


@given(st.lists(st.tuples(st.sampled_from(["", "a", "abc", TEN]), st.integers(0, 3), st.floats(0, 2)), max_size=20))
def test_the_reader_is_never_ahead_of_the_text(script):
    reader, texts, now_s, num_revoked = Reader(), [], 0.0, 0
    for text, num_lost, pause_s in script:
        now_s += pause_s
        lost = min(num_lost, len(texts))
        reader.follow([*shown(text), *([revoked(lost)] if lost else [])], now_s)
        texts = [*texts, text][: len(texts) + 1 - lost]
        num_revoked += lost
        assert reader._position <= len("".join(texts)) == reader._visible
    assert reader.num_revoked_after_read <= num_revoked
