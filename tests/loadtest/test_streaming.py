"""What the load test reports, from the lines of a stream."""

import json

import pytest

from loadtest.answers import Drafts
from loadtest.streaming import StreamTimes


def feed(times, name, at_s, **fields):
    times.feed(f"event: {name}", at_s)
    times.feed("data: " + json.dumps(fields), at_s)
    times.feed("", at_s)


def test_first_token_times_count_from_the_request():
    times = StreamTimes(began_s=100.0)
    feed(times, "session", 100.01)
    feed(times, "speculative", 100.05, position=3, token_ids=[1])
    feed(times, "commit", 100.20, position=3, count=1)
    assert times.first_visible_s == pytest.approx(0.05)
    assert times.first_final_s == pytest.approx(0.20)


def test_tokens_that_become_final_together_share_the_time_since_those_before():
    times = StreamTimes(began_s=0.0)
    feed(times, "commit", 1.0, count=2)
    feed(times, "correct", 1.6, token_ids=[1, 2, 3])
    assert times.gaps_s == pytest.approx([0.2, 0.2, 0.2])
    assert times.num_tokens == 5


def test_text_without_a_token_counts_for_no_token():
    times = StreamTimes(began_s=0.0)
    feed(times, "correct", 0.5, token_ids=[1])
    feed(times, "correct", 0.6, token_ids=[])
    assert (times.num_tokens, times.gaps_s) == (1, [])


def test_a_token_that_arrives_final_is_visible_too():
    times = StreamTimes(began_s=0.0)
    feed(times, "correct", 0.5, token_ids=[1])
    assert times.first_visible_s == times.first_final_s == 0.5


def test_an_error_is_a_failure_and_done_an_end():
    times = StreamTimes(began_s=0.0)
    feed(times, "error", 1.0, error={"message": "busy"})
    assert "busy" in times.failure
    assert not times.is_done
    feed(times, "done", 1.0)
    assert times.is_done


def test_a_comment_is_no_event():
    times = StreamTimes(began_s=0.0)
    times.feed(": ping", 1.0)
    assert times.first_visible_s is None


def test_what_was_shown_and_withdrawn_is_counted_and_what_agreed_is_told_at_the_end():
    times = StreamTimes(began_s=0.0)
    feed(times, "speculative", 0.1, token_ids=[1])
    feed(times, "speculative", 0.2, token_ids=[2])
    feed(times, "revoke", 0.3, count=1)
    feed(times, "done", 0.4, usage={"accepted": 5, "late": 2, "corrections": 3})
    assert times.drafts == Drafts(shown=2, withdrawn=1, agreed=7, contradicted=3)


def test_a_stream_can_be_read_on_behind_the_last_event_that_came():
    times = StreamTimes(began_s=0.0)
    feed(times, "session", 0.1, seq=0, session_id="s")
    feed(times, "speculative", 0.2, seq=1, token_ids=[1])
    assert (times.session_id, times.last_seq) == ("s", 1)
