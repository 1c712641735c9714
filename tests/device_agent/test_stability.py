from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.stability import NUM_PROOFS, Stability, running

confidences = st.lists(st.floats(0, 1), max_size=12)
levels = st.floats(0, 1)


def wary(min_stability):
    made = Stability(min_stability)
    made.compared(0, True, 1)
    assert made.is_wary
    return made


def test_the_stability_of_a_draft_is_the_product_up_to_it():
    assert list(running([0.5, 0.5, 0.8])) == pytest.approx([0.5, 0.25, 0.2])


@pytest.mark.parametrize(("min_stability", "shown", "wary_shown", "kept"), [(0.5, 6, 1, 9), (0.25, 13, 3, 19), (0.95, 0, 0, 0)])
def test_bars_are_lengths_where_every_draft_is_equally_likely(min_stability, shown, wary_shown, kept):
    """ln 0.5 / ln 0.9 = 6.58 drafts, a quarter of that is 1.64, half as much again 9.87; ln 0.25 / ln 0.9 = 13.16."""
    drafts = [0.9] * 50
    assert Stability(min_stability).reach(drafts, 0) == shown
    assert wary(min_stability).reach(drafts, 0) == wary_shown
    assert Stability(min_stability).reach(drafts, 50) == kept


@given(confidences, levels, st.integers(0, 12))
def test_what_is_shown_now_stays_shown_and_more_only_over_the_bar(drafts, min_stability, num_shown):
    for rule in (Stability(min_stability), wary(min_stability)):
        reach = rule.reach(drafts, num_shown)
        assert rule.reach(drafts, reach) == reach
        stabilities = list(running(drafts))
        assert all(stability >= rule.hide_bar for stability in stabilities[:reach])
        assert all(stability >= rule.show_bar for stability in stabilities[num_shown:reach])
        if reach < len(drafts):
            assert stabilities[reach] < (rule.hide_bar if reach < num_shown else rule.show_bar)


@given(levels)
def test_the_bar_to_hide_is_never_over_the_bar_to_show(min_stability):
    calm, raised = Stability(min_stability), wary(min_stability)
    assert calm.hide_bar == raised.hide_bar <= calm.show_bar <= raised.show_bar


@given(confidences, st.integers(0, 12))
def test_at_zero_everything_is_shown_whatever_went_wrong(drafts, num_shown):
    assert Stability(0.0).reach(drafts, num_shown) == wary(0.0).reach(drafts, num_shown) == len(drafts)


def test_enough_drafts_in_a_row_cure():
    rule = wary(0.5)
    rule.compared(NUM_PROOFS - 1, False, 0)
    assert rule.is_wary
    rule.compared(1, False, 0)
    assert not rule.is_wary


def test_what_was_never_shown_raises_no_bar_but_keeps_a_raised_one_up():
    rule = Stability(0.5)
    rule.compared(2, True, 0)
    assert not rule.is_wary
    rule.compared(0, True, 1)
    rule.compared(NUM_PROOFS - 1, True, 0)
    rule.compared(NUM_PROOFS - 1, False, 0)
    assert rule.is_wary
