"""Who is waited for, and how long: the rules alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.patience import AUTO, LONGEST_S, NEVER, Policy, Waiting, auto_patience_s, has_enough, ready_s

times = st.floats(0, 1e6)
patiences = st.floats(0, LONGEST_S)
gathers = st.integers(1, 64)
waitings = st.builds(Waiting, st.none() | times, st.integers(0, 64), st.booleans(), st.booleans(), st.booleans())
counts = st.integers(0, 100)
passes = st.floats(0, 10)


def waiting(**changes):
    return Waiting(**{"since_s": 5.0, "num_drafts": 0, "may_grow": True, "has_passed": False, "is_silent": False} | changes)


@given(waitings, patiences, gathers)
def test_everybody_runs_when_the_patience_is_over_at_the_latest(given_, patience_s, gather):
    assert 0 <= ready_s(given_, patience_s, gather) <= (given_.since_s or 0) + patience_s


@given(waitings, gathers)
def test_with_patience_0_everybody_runs_at_once(given_, gather):
    assert ready_s(given_, 0.0, gather) <= (given_.since_s or 0)


@given(waitings, patiences, gathers)
def test_before_the_first_choice_nobody_waits(given_, patience_s, gather):
    first = Waiting(None, given_.num_drafts, given_.may_grow, given_.has_passed, given_.is_silent)
    assert ready_s(first, patience_s, gather) == 0


@given(waitings, patiences, gathers)
def test_to_ask_for_more_never_lets_anybody_run_sooner(given_, patience_s, gather):
    assert ready_s(given_, patience_s, gather) <= ready_s(given_, patience_s, gather + 1)


def test_who_has_nothing_waits_from_its_last_verdict_on():
    assert ready_s(waiting(), 0.25, 1) == 5.25


@pytest.mark.parametrize(
    ("changes", "is_enough"),
    [
        ({}, False),
        ({"num_drafts": 2}, False),
        ({"num_drafts": 3}, True),
        ({"has_passed": True}, True),
        ({"num_drafts": 2, "may_grow": False}, True),
        ({"may_grow": False}, True),
        ({"is_silent": True}, True),
    ],
)
def test_what_is_enough_where_three_are_to_be_gathered(changes, is_enough):
    assert has_enough(waiting(**changes), 3) is is_enough


@given(counts, counts, st.integers(1, 50), passes)
def test_patience_by_load_is_0_below_full_and_never_too_long(num_running, num_refused, capacity, pass_s):
    patience_s = auto_patience_s(num_running, num_refused, capacity, pass_s)
    assert 0 <= patience_s <= LONGEST_S
    assert num_running >= capacity or patience_s == 0


@given(counts, counts, st.integers(1, 50), passes, counts, counts, passes)
def test_patience_by_load_only_grows_with_the_load(num_running, num_refused, capacity, pass_s, more, refused, longer_s):
    heavier = auto_patience_s(num_running + more, num_refused + refused, capacity, pass_s + longer_s)
    assert heavier >= auto_patience_s(num_running, num_refused, capacity, pass_s)


def test_patience_by_load_is_the_share_of_a_pass_by_which_more_want_to_run_than_fit():
    assert [auto_patience_s(8, num_refused, 8, 0.5) for num_refused in (0, 2, 8)] == [0, 0.125, 0.5]


def test_one_session_alone_has_nobody_to_make_room_for():
    assert auto_patience_s(1, 5, 1, 0.04) == 0


@pytest.mark.parametrize(("setting", "patience_s"), [(NEVER, LONGEST_S), (0.0, 0.0), (250.0, 0.25)])
def test_what_is_set_holds_under_any_load(setting, patience_s):
    policy = Policy(setting, 1, 4, 1.0)
    policy.passed(0.5)
    assert [policy.patience_s(num_running, 0.0) for num_running in (0, 1, 4)] == [patience_s] * 3


def test_who_was_turned_away_counts_for_a_while():
    policy = Policy(AUTO, 1, 4, 1.0)
    policy.passed(0.5)
    policy.refused(10.0)
    policy.refused(10.5)
    assert [policy.patience_s(4, now_s) for now_s in (10.5, 11.0, 11.5)] == [0.25, 0.125, 0]


def test_who_waits_for_room_counts_beside_who_was_turned_away():
    policy = Policy(AUTO, 1, 4, 1.0)
    policy.passed(0.5)
    policy.refused(10.0)
    assert [policy.patience_s(4, 10.0, num_waiting) for num_waiting in (0, 1, 3)] == [0.125, 0.25, 0.5]


def test_another_setting_holds_from_the_change_on():
    policy = Policy(250.0, 1, 4, 1.0)
    seen = []
    for setting in (NEVER, AUTO, 100.0):
        policy.change(setting)
        seen.append((policy.setting, policy.patience_s(4, 0.0)))
    assert seen == [(NEVER, LONGEST_S), (AUTO, 0), (100.0, 0.1)]


def test_a_flood_of_refusals_costs_no_more_than_a_pass():
    policy = Policy(AUTO, 1, 4, 1.0)
    policy.passed(0.5)
    for _ in range(1000):
        policy.refused(10.0)
    assert policy.patience_s(4, 10.0) == 0.5


def test_one_long_pass_does_not_rule_the_patience():
    policy = Policy(AUTO, 1, 2, 1.0)
    for took_s in (0.1, 0.1, 0.9):
        policy.passed(took_s)
    policy.refused(0.0)
    policy.refused(0.0)
    assert policy.patience_s(2, 0.0) == pytest.approx(0.2)


def test_before_the_first_pass_nobody_waits():
    policy = Policy(AUTO, 1, 2, 1.0)
    policy.refused(0.0)
    assert policy.patience_s(2, 0.0) == 0
