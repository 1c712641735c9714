"""Texts are compared as the table says, and a signal is judged between chance and knowledge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing import Curve, curve_grid
from benchmarks.routing_runs import CONFIDENCE, STABILITY, ByConfidence, policy_of
from benchmarks.routing_texts import Point, agreement, area, best, distance, skill
from device_agent.request import Mode
from device_agent.routing.policy import View

texts = st.lists(st.integers(0, 3), max_size=8)


def test_agreement_counts_positions_and_a_missing_end_is_no_agreement():
    assert agreement([1, 2, 3, 4], [1, 9, 3, 4]) == 0.75
    assert agreement([1, 2], [1, 2, 3, 4]) == 0.5
    assert agreement([], []) == 1.0


def test_one_token_more_shifts_all_positions_and_is_one_edit():
    assert agreement([0, 1, 2, 3], [1, 2, 3]) == 0
    assert distance([0, 1, 2, 3], [1, 2, 3]) == 0.25
    assert distance([1, 2, 3], [4, 5, 6]) == 1


@given(texts, texts)
def test_a_distance_is_one_both_ways_and_nothing_between_equals(ours, theirs):
    assert distance(ours, theirs) == distance(theirs, ours)
    assert (distance(ours, theirs) == 0) == (ours == theirs)
    assert distance(ours, theirs) <= 1


def test_knowledge_sends_first_what_gains_most_a_pass():
    """Three drafts, worth 1, 0 and 0.5, that cost 2, 1 and 1 passes: the worst goes first, the right one last."""
    points = best([1.0, 0.0, 0.5], [2, 1, 1])
    assert [(point.passes, point.agreement) for point in points] == [(0, 0.5), (0.25, pytest.approx(2.5 / 3)), (0.5, 1), (1, 1)]


def test_skill_is_nothing_for_lots_and_one_for_knowledge():
    ideal = best([1.0, 0.0], [1, 1])
    assert area(ideal) == pytest.approx(0.5 * 0.75 + 0.5)
    assert skill([Point(0.5, 0.75)], ideal) == pytest.approx(0)
    assert skill(ideal, ideal) == pytest.approx(1)
    assert skill([Point(0.5, 0.5)], ideal) == pytest.approx(-1)
    assert skill([Point(1.1, 1.0)], ideal) == pytest.approx(0)
    assert skill([], best([0.5, 0.5], [1, 1])) is None, "all prompts alike: there is nothing to know"


@pytest.mark.parametrize("signal", [STABILITY, CONFIDENCE])
def test_each_signal_hands_over_where_it_is_below_its_threshold(signal):
    policy = policy_of(signal, 0.4)
    easy = View(prompt_tokens=4, max_tokens=16, draft_room=100, mode=Mode.DEVICE, stability=0.5, confidence=0.5)
    hard = View(prompt_tokens=4, max_tokens=16, draft_room=100, mode=Mode.DEVICE, stability=0.3, confidence=0.3)
    assert (policy.decide(easy).mode, policy.decide(hard).mode) == (Mode.DEVICE, Mode.COLLABORATE)


def test_who_hands_over_by_confidence_does_not_take_back():
    view = View(prompt_tokens=4, max_tokens=16, draft_room=100, mode=Mode.COLLABORATE)
    assert ByConfidence(0.0).decide(view).mode is Mode.COLLABORATE


def test_a_curve_is_told_in_order_with_its_skill():
    ideal = best([1.0, 0.0], [1, 1])
    grid = curve_grid([Curve("a", 8, [Point(1.0, 1.0), Point(0.5, 0.75)], ideal), Curve("b", 8, [], best([0.5], [1]))])
    assert [row[2:] for row in grid.rows] == [["0.50 : 0.75, 1.00 : 1.00", "0.00"], ["", "-"]]
