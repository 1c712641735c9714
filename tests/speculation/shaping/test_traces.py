import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import ConfigurationError
from speculation.shaping.traces import SLOT_BYTES, Trace, TraceSender, parse_trace, synthetic_trace

TRACE = Trace((10, 20, 20, 40))


def sender(origin_s: float = 0.0) -> TraceSender:
    return TraceSender(TRACE, origin_s)


def test_a_message_leaves_at_the_next_opportunity():
    assert sender().sent_at_s(0.0, 100) == 0.010
    assert sender().sent_at_s(0.010, 100) == 0.010
    assert sender().sent_at_s(0.011, 100) == 0.020


def test_small_messages_share_an_opportunity_and_a_large_one_takes_several():
    shared = sender()
    assert [shared.sent_at_s(0.0, 700) for _ in range(3)] == [0.010, 0.010, 0.020]
    assert sender().sent_at_s(0.0, 2 * SLOT_BYTES) == 0.020
    assert sender().sent_at_s(0.0, 3 * SLOT_BYTES + 1) == 0.040


def test_an_opportunity_that_nobody_wanted_is_lost():
    late = sender()
    late.sent_at_s(0.0, 100)
    assert late.sent_at_s(0.015, SLOT_BYTES) == 0.020


def test_behind_its_last_line_a_trace_begins_again():
    wrapped = sender()
    assert wrapped.sent_at_s(0.0, 5 * SLOT_BYTES) == 0.050
    assert wrapped.sent_at_s(0.4, SLOT_BYTES) == pytest.approx(0.4)
    assert wrapped.sent_at_s(10.001, SLOT_BYTES) == pytest.approx(10.010)


def test_a_trace_counts_from_when_the_network_began():
    assert sender(origin_s=100.0).sent_at_s(100.0, 1) == pytest.approx(100.010)


def test_a_file_is_read_line_by_line():
    assert parse_trace("0\n1\n1\n5\n", "up.trace") == Trace((0, 1, 1, 5))
    assert Trace((0, 1, 1, 5)).mean_rate_bytes_per_s == 4 * SLOT_BYTES / 0.005


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "up.trace:1: the trace is empty"),
        ("1\n5\n4\n", "up.trace:3: 4 ms comes before 5 ms"),
        ("1\nsoon\n", "up.trace:2: 'soon' is no time"),
        ("1\n-2\n", "up.trace:2: '-2' is no time"),
        ("1\n2.5\n", "up.trace:2: '2.5' is no time"),
        ("1\n\n3\n", "up.trace:2: '' is no time"),
        ("0\n0\n", "up.trace:2: the last time is 0 ms"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_line_and_the_rule(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_trace(text, "up.trace")


def test_a_made_up_trace_has_exactly_the_mean_it_was_asked_for_and_varies_around_it():
    trace = synthetic_trace(625_000, 0.5, seed=3)
    assert trace.mean_rate_bytes_per_s == pytest.approx(625_000, rel=0.001)
    per_second = [len(list(group)) for _, group in itertools.groupby(trace.times_ms, lambda t: t // 1000)]
    assert min(per_second) < 0.7 * 625_000 / SLOT_BYTES
    assert max(per_second) > 1.4 * 625_000 / SLOT_BYTES


def test_the_same_seed_makes_the_same_trace_and_another_does_not():
    assert synthetic_trace(10_000, 0.5, 1) == synthetic_trace(10_000, 0.5, 1)
    assert synthetic_trace(10_000, 0.5, 1) != synthetic_trace(10_000, 0.5, 2)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=20).map(sorted).filter(lambda times: times[-1] > 0),
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 10_000)), min_size=1, max_size=20),
)
def test_no_more_is_sent_in_any_time_than_its_opportunities_carry(times, steps):
    trace = Trace(tuple(times))
    following, now_s, sent = TraceSender(trace, 0.0), 0.0, []
    for gap_s, size in steps:
        now_s += gap_s
        sent.append((following.sent_at_s(now_s, size), size))
        assert sent[-1][0] >= now_s
    assert [time_s for time_s, _ in sent] == sorted(time_s for time_s, _ in sent)
    last_s = sent[-1][0]
    num_slots = sum(1 for _ in itertools.takewhile(lambda slot: trace.time_ms(slot) <= last_s * 1000 + 1e-3, itertools.count()))
    assert sum(size for _, size in sent) <= num_slots * SLOT_BYTES


def test_the_rate_of_a_made_up_trace_wanders():
    """What it is in a tenth of a second tells of the next one, and hardly of one three seconds later."""
    trace = synthetic_trace(1.5e6, 0.5, seed=2, length_s=600)
    counts = np.histogram(trace.times_ms, bins=6000, range=(0, 600_000))[0].astype(float)
    near, far = (np.corrcoef(counts[:-lag], counts[lag:])[0, 1] for lag in (1, 30))
    assert near > 0.8
    assert abs(far) < 0.3
