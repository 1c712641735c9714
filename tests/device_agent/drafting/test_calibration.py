from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafting.calibration import MEMORY, NUM_BINS, PRIOR_STRENGTH, Calibration, Table

confidences = st.floats(0, 1)


def test_a_draft_that_nobody_has_checked_is_taken_at_its_word():
    calibration = Calibration()
    for confidence in (0.0, 0.02, 0.5, 0.999, 1.0):
        for rank in (0, 1):
            assert calibration.chance(confidence, rank, is_greedy=True) == confidence


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


def test_ranks_and_ways_of_choosing_are_learned_apart():
    calibration = Calibration()
    for _ in range(100):
        calibration.observe(0.5, 0, True, True)
        calibration.observe(0.5, 1, True, False)
        calibration.observe(0.5, 0, False, False)
    assert calibration.chance(0.5, 0, is_greedy=True) > 0.9
    assert calibration.chance(0.5, 1, is_greedy=True) < 0.1
    assert calibration.chance(0.5, 0, is_greedy=False) < 0.1
    assert calibration.chance(0.5, 1, is_greedy=False) == 0.5
