"""Whether a rate was kept, worked out by hand."""

from __future__ import annotations

import pytest

from device_agent.events import CommitOffset, CorrectEvent, RevokeEvent, SpeculativeEvent
from device_agent.tasks.target import Target


def shown(count=1):
    return [SpeculativeEvent(0, 1, (7,), "x", 1.0)] * count


def test_a_text_that_keeps_ahead_of_its_reader_is_never_late():
    target = Target(4.0)
    for at_s in (9.0, 9.1, 9.2, 9.7):
        target.showed(shown(), at_s)
    assert (target.late_s, target.is_met) == (0.0, True)
    assert target.achieved_per_s == 3 / (9.7 - 9.0)


def test_a_token_is_late_by_what_it_came_behind_its_moment_and_a_quarter_of_a_second_is_allowed_for_a_while():
    target = Target(4.0)
    target.showed(shown(), 0.0)
    target.showed(shown(), 0.5)
    assert (target.late_s, target.achieved_per_s, target.is_met) == (0.25, 2.0, False)
    target.showed(shown(2), 0.5)
    assert (target.late_s, target.achieved_per_s, target.is_met) == (0.25, 6.0, True)


def test_a_text_that_stood_still_for_longer_has_not_kept_its_rate_however_fast_the_rest_came():
    target = Target(4.0)
    target.showed(shown(), 0.0)
    target.showed(shown(50), 0.55)
    assert target.achieved_per_s > 90
    assert target.late_s == pytest.approx(0.3)
    assert not target.is_met


def test_a_text_whose_last_token_is_late_by_little_came_at_less_than_its_rate():
    target = Target(10.0)
    for number in range(21):
        target.showed(shown(), number / 10)
    assert target.is_met
    target.showed(shown(), 2.11)
    assert target.late_s == pytest.approx(0.01)
    assert not target.is_met


def test_what_was_withdrawn_has_not_come():
    target = Target(2.0)
    target.showed(shown(3), 0.0)
    target.showed([RevokeEvent(0, 2, 2, "contradicted"), CorrectEvent(0, 2, (1, 2), "ab", CommitOffset(3, 3))], 0.75)
    assert target.late_s == 0.25


def test_a_pause_makes_nothing_late():
    target = Target(2.0)
    target.held(5.0)
    target.showed(shown(), 0.0)
    assert target.achieved_per_s is None
    target.held(10.0)
    target.showed(shown(), 10.5)
    assert (target.late_s, target.achieved_per_s) == (0.0, 2.0)
