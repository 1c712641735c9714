from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafting.branches import Proposal
from device_agent.drafting.calibration import MEMORY, NUM_BINS, PRIOR_STRENGTH, Calibration, Table

confidences = st.floats(0, 1)


def test_a_draft_that_nobody_has_checked_is_taken_at_its_word():
    calibration = Calibration()
    for first, second in ((0.02, 0.01), (0.5, 0.5), (0.5, 0.1), (0.999, 0.0005), (1.0, 0.0)):
        assert calibration.chances(Proposal((1, 2), (first, second)), is_greedy=True) == pytest.approx([first, second])
    assert calibration.chances(Proposal((1,), (0.7,)), is_greedy=True) == [0.7]
    four = (0.4, 0.3, 0.2, 0.05)
    assert calibration.chances(Proposal((1, 2, 3, 4), four), is_greedy=True) == pytest.approx(list(four))


@pytest.mark.parametrize(
    "truth", [lambda said: said**2, lambda said: said**0.5, lambda said: 0.3 + 0.4 * said], ids=["vain", "shy", "flat"]
)
def test_a_biased_drafts_chances_come_to_the_true_rate_of_every_bin(truth):
    table, drawn = Table(), random.Random(1)
    for _ in range(NUM_BINS * 2000):
        said = drawn.random()
        table.observe(said, drawn.random() < truth(said))
    middles = [(index + 0.5) / NUM_BINS for index in range(NUM_BINS)]
    worst_before = max(abs(said - truth(said)) for said in middles)
    assert max(abs(table.chance(said) - truth(said)) for said in middles) < 0.05 < worst_before


def test_few_comparisons_move_a_chance_a_little():
    table = Table()
    table.observe(0.9, False)
    assert 0.9 - 1 / PRIOR_STRENGTH < table.chance(0.9) < 0.9
    assert table.chance(0.1) == 0.1


@given(st.lists(st.tuples(confidences, st.booleans()), max_size=200), confidences)
def test_a_chance_is_never_outside_0_and_1(observed, asked):
    table = Table()
    for confidence, is_right in observed:
        table.observe(confidence, is_right)
    assert 0 <= table.chance(asked) <= 1


@given(confidences)
def test_all_right_or_all_wrong_for_long_is_nearly_sure(said):
    for is_right in (False, True):
        table = Table()
        for _ in range(2000):
            table.observe(said, is_right)
        assert table.chance(said) == pytest.approx(float(is_right), abs=0.02)


def test_what_was_learned_of_another_kind_of_text_fades():
    table = Table()
    for _ in range(100 * int(MEMORY)):
        table.observe(0.9, True)
    for _ in range(3 * int(MEMORY)):
        table.observe(0.9, False)
    assert table.chance(0.9) < 0.1


def test_ways_of_choosing_are_learned_apart():
    calibration, said = Calibration(), Proposal((1, 2), (0.5, 0.25))
    for _ in range(100):
        calibration.observe(said, 1, is_greedy=True)
        calibration.observe(said, 3, is_greedy=False)
    right, wrong = (calibration.chances(said, is_greedy) for is_greedy in (True, False))
    assert right[0] > 0.9
    assert max(wrong) < 0.1


def test_where_the_first_choice_is_right_nothing_is_learned_of_the_second():
    calibration, said = Calibration(), Proposal((1, 2), (0.5, 0.25))
    for _ in range(1000):
        calibration.observe(said, 1, is_greedy=True)
    first, second = calibration.chances(said, is_greedy=True)
    assert second == pytest.approx((1 - first) / 2)


def test_a_runner_up_that_is_often_right_is_found_the_likelier_one():
    """The draft says of both the same; the second is right in five of ten, the first in two."""
    calibration, said = Calibration(), Proposal((1, 2), (0.2, 0.1999))
    for token_id in [1, 2, 2, 3, 2, 3, 1, 2, 3, 2] * 20:
        calibration.observe(said, token_id, is_greedy=True)
    assert calibration.chances(said, is_greedy=True) == pytest.approx([0.2, 0.5], abs=0.03)


def test_a_third_choice_is_judged_where_both_before_it_were_wrong():
    """Of ten, the first is right in four, the second in two, the third in three: three quarters of what they leave."""
    calibration, said = Calibration(), Proposal((1, 2, 3), (0.4, 0.2, 0.1))
    for token_id in [1, 2, 3, 1, 3, 4, 1, 2, 3, 1] * 40:
        calibration.observe(said, token_id, is_greedy=True)
    assert calibration.chances(said, is_greedy=True) == pytest.approx([0.4, 0.2, 0.3], abs=0.02)


def test_choices_behind_the_third_learn_with_it():
    calibration, said = Calibration(), Proposal((1, 2, 3, 4), (0.4, 0.2, 0.1, 0.075))
    for _ in range(400):
        calibration.observe(said, 3, is_greedy=True)
    without_first_and_second = (1 - calibration.chances(said, is_greedy=True)[0]) * (1 - 1 / 3)
    other = Proposal((5, 6, 7, 8), (0.4, 0.2, 0.0, 0.1))
    assert calibration.chances(other, is_greedy=True)[3] > 0.5 * without_first_and_second


def said_with(shares):
    """A proposal whose choices each take such a share of what those before them leave."""
    left, told = 1.0, []
    for share in shares:
        told.append(left * share)
        left -= told[-1]
    return Proposal(tuple(range(1, len(told) + 1)), tuple(told))


shares_of_rest = st.lists(confidences, min_size=1, max_size=4)


@given(st.lists(st.tuples(shares_of_rest, st.integers(1, 5)), max_size=100), shares_of_rest)
def test_the_chances_of_a_position_are_never_more_than_1_together(observed, asked):
    calibration = Calibration()
    for shares, token_id in observed:
        calibration.observe(said_with(shares), token_id, is_greedy=True)
    chances = calibration.chances(said_with(asked), is_greedy=True)
    assert min(chances) >= 0
    assert sum(chances) <= 1 + 1e-9
