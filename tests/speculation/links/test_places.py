"""Which verifier a stream goes to."""

from __future__ import annotations

from collections import Counter

import pytest

from speculation.links.places import FIRST_AVOIDED_S, LONGEST_AVOIDED_S, Place, pick


def places(*streams):
    return [Place(f"host:{number}", None, num_streams) for number, num_streams in enumerate(streams, 1)]


def test_the_one_with_the_fewest_streams_is_picked():
    assert pick(places(3, 1, 2), "s", 0.0).target == "host:2"


def test_among_equals_the_session_decides_and_sessions_spread():
    equals = places(0, 0, 0)
    assert pick(equals, "s", 0.0) is pick(equals[::-1], "s", 0.0)
    picked = Counter(pick(equals, f"session {number}", 0.0).target for number in range(300))
    assert len(picked) == 3
    assert min(picked.values()) > 60


def test_one_that_failed_is_passed_over_for_a_second_and_is_the_last_resort():
    first, second = places(0, 5)
    first.failed(10.0)
    assert pick([first, second], "s", 10.0) is second
    assert pick([first], "s", 10.0) is first
    assert pick([first, second], "s", 10.0 + FIRST_AVOIDED_S) is first


def test_where_none_is_well_the_one_that_is_avoided_for_the_shortest_is_picked():
    first, second = places(0, 0)
    first.failed(1.0)
    second.failed(0.5)
    assert pick([first, second], "s", 1.2) is second


def test_no_place_is_none():
    assert pick([], "s", 0.0) is None


def test_each_trial_that_fails_doubles_the_time_and_success_ends_it():
    [place] = places(0)
    waits, now_s = [], 0.0
    for _ in range(7):
        place.tried(now_s)
        place.failed(now_s)
        waits.append(place.avoided_until_s - now_s)
        now_s = place.avoided_until_s
    assert waits == [1, 2, 4, 8, 16, LONGEST_AVOIDED_S, LONGEST_AVOIDED_S]
    place.served()
    assert place.is_well(0.0)
    place.failed(now_s)
    assert place.avoided_until_s - now_s == FIRST_AVOIDED_S


def test_streams_that_break_together_are_one_failure():
    [place] = places(3)
    for _ in range(3):
        place.failed(5.0)
    assert place.num_failures == 1


def test_one_that_failed_is_tried_by_one_stream_at_a_time():
    first, second = places(0, 9)
    first.failed(0.0)
    first.tried(FIRST_AVOIDED_S)
    assert pick([first, second], "s", FIRST_AVOIDED_S) is second


@pytest.mark.parametrize(("told_s", "until_s"), [(4.0, 9.0), (None, 5.0 + FIRST_AVOIDED_S)])
def test_a_full_one_is_passed_over_as_long_as_it_says(told_s, until_s):
    [place] = places(0)
    place.refused(5.0, told_s)
    assert not place.is_well(until_s - 0.1)
    assert place.is_well(until_s)
