"""Choices where a shortcut could lose a token: extreme, equal and many logits, near ties, rare noise."""

import math

import numpy as np
import pytest

from speculation import contest, noise
from speculation.choice import NEAR_TIE, choose, choose_ranked
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from tests.speculation.choices import assert_equals_reference, assert_ranked_equal_reference, one
from tests.support import choice_reference as reference

pytestmark = pytest.mark.usefixtures("way_of_choosing")


def test_extreme_logits_are_ranked_without_a_warning():
    for temperature in (0.0, 5e-324, 1.0, 100.0):
        asked = [SamplingParameters(temperature=temperature)]
        ranked = choose_ranked(np.array([[-3.4e38, 3.4e38, 0]], np.float32), [0], asked, 3)
        assert ranked.token_ids.tolist() == [[1, 2, 0]]
        assert ranked.confidences.tolist() == [[1, 0, 0]]


def test_logits_whose_sum_is_too_large_are_chosen_from_and_infinite_ones_refused_without_a_warning():
    for sampled in (SamplingParameters(), SamplingParameters(temperature=0.8)):
        assert one([3e38] * 8 + [3.1e38], 0, sampled)[0] == 8
        assert one([-3e38, -3.1e38, -3.2e38], 0, sampled)[0] == 0
        for wrong in ([np.inf, -np.inf, 0], [0, 1, -np.inf], [np.nan, 1, 2], [np.inf, np.nan, -np.inf]):
            with pytest.raises(EngineError, match="row 1 of the logits is not finite"):
                choose(np.array([[0, 1, 2], wrong], np.float32), [0, 1], [sampled] * 2)


def test_equal_highest_logits_go_to_the_lowest_id():
    assert one([1, 3, 3, 3], 0, SamplingParameters()) == (1, True)
    assert one([1, 3, 3, 3], 0, SamplingParameters(temperature=1, top_k=1)) == (1, False)


def test_a_close_runner_up_is_told():
    greedy = SamplingParameters()
    assert one([0, 1, 1 - NEAR_TIE / 2], 0, greedy) == (1, True)
    assert one([0, 1, 1 - NEAR_TIE * 2], 0, greedy) == (1, False)


def test_a_lead_is_measured_in_logits_whatever_the_temperature():
    # At so low a temperature the noise is nothing beside the scores, and the lead in scores is large.
    cold = SamplingParameters(temperature=1e-9)
    assert one([0, 1, 1 - NEAR_TIE / 2], 0, cold) == (1, True)
    assert one([0, 1, 1 - NEAR_TIE * 2], 0, cold) == (1, False)


def test_the_smallest_temperature_overflows_nothing():
    coldest = SamplingParameters(temperature=5e-324, top_p=0.5, min_p=0.1)
    assert one([-3e38, 1, 3e38, 2], 0, coldest)[0] == 2


def test_extreme_but_finite_logits_are_chosen_from():
    for temperature in (0.0, 1.0, 100.0):
        assert one([-3.4e38, 3.4e38, 0], 0, SamplingParameters(temperature=temperature))[0] == 1


@pytest.mark.parametrize("temperature", [1e-9, 1e-6, 2e-6, 0.05, 100.0])
def test_many_equal_logits_are_screened_rightly_at_any_temperature(temperature):
    logits = np.zeros(2000)
    logits[::3] = 1e-5
    for position in range(5):
        assert_equals_reference(logits, position, SamplingParameters(temperature=temperature, seed=position))


LUCKY_SEED, LUCKY_POSITION, LUCKY_TOKEN = 1, 8106, 298  # noise 17.27, the largest of 40 million addresses


@pytest.mark.parametrize("others", [-100.0, -18.0], ids=["few that can win", "many that can win"])
@pytest.mark.parametrize("asked", [{}, {"top_k": 1000}, {"min_p": 1e-9}, {"top_p": 0.9999999999}])
def test_a_token_far_down_wins_exactly_when_its_noise_lifts_it_to_the_top(others, asked):
    parameters = SamplingParameters(temperature=1, seed=LUCKY_SEED, **asked)
    logits = np.full(1024, others, dtype=np.float32)
    logits[5] = 0
    noise_of = {token_id: reference.gumbel(LUCKY_SEED, LUCKY_POSITION, token_id) for token_id in (5, LUCKY_TOKEN)}
    for margin, winner in ((1e-3, LUCKY_TOKEN), (-1e-3, 5)):
        logits[LUCKY_TOKEN] = noise_of[5] - noise_of[LUCKY_TOKEN] + margin
        assert one(logits, LUCKY_POSITION, parameters) == (winner, False)
        ranked = choose_ranked(logits[None], [LUCKY_POSITION], [parameters], 2)
        assert ranked.token_ids[0].tolist() == [winner, 5 + LUCKY_TOKEN - winner]
        assert ranked.confidences[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    logits[LUCKY_TOKEN] = noise_of[5] - noise_of[LUCKY_TOKEN] - NEAR_TIE / 2
    assert one(logits, LUCKY_POSITION, parameters) == (5, True)


@pytest.mark.parametrize("count", [2, 4])
def test_noise_too_large_to_be_told_roughly_wins_over_two_near_rivals(count):
    logits = np.full(1024, -18, dtype=np.float32)
    noise_of = {token_id: reference.gumbel(LUCKY_SEED, LUCKY_POSITION, token_id) for token_id in (5, 6, LUCKY_TOKEN)}
    for token_id, total in ((5, 1.0), (6, 0.99), (LUCKY_TOKEN, 1.01)):
        logits[token_id] = total - noise_of[token_id]
    assert_ranked_equal_reference(logits, LUCKY_POSITION, SamplingParameters(temperature=1, seed=LUCKY_SEED), count)


@pytest.mark.parametrize("count", [2, 4])
def test_weights_too_small_to_be_compared_lose_nobody(count):
    logits = np.random.default_rng(8).uniform(-7.46, -7.43, 1200)
    logits[7] = 0
    for position in range(8):
        assert_ranked_equal_reference(logits, position, SamplingParameters(temperature=0.01, seed=9), count)


@pytest.mark.parametrize("behind", [8.2, 12.0, 14.1])
@pytest.mark.parametrize("num_high", [1, 3, 6])
def test_a_few_high_tokens_among_many_low_ones_lose_to_none_but_the_luckiest(behind, num_high, monkeypatch):
    """Low tokens of a long row are weighed only where their bits are high enough, for the choice and the places behind it."""
    monkeypatch.setattr(contest, "LONG_ROW", 0)
    row = np.full(1500, -behind)
    row[np.arange(num_high) * 250 + 5] = -np.arange(num_high) / 8
    num_low = 0
    for seed in range(12):
        asked = SamplingParameters(temperature=1.0, seed=seed)
        assert_equals_reference(row, 7, asked)
        assert_ranked_equal_reference(row, 7, asked, 4)
        first = choose_ranked(row[None].astype(np.float32), [7], [asked], 4).token_ids[0]
        num_low += int(np.count_nonzero(row[first] == -behind))
    assert num_low > 0 or behind > 9


def test_deep_tokens_of_ordinary_luck_are_not_lost_to_screening():
    seen = 0
    for position in range(40):
        drawn = noise.gumbel([3], [position], np.arange(1024))
        luckiest = int(drawn.argmax())
        logits = np.full(1024, -16, dtype=np.float32)
        logits[0] = 0
        if drawn[luckiest] - drawn[0] > 6.5:
            seen += 1
            logits[luckiest] = drawn[0] - drawn[luckiest] + 1e-3
            assert one(logits, position, SamplingParameters(temperature=1, seed=3)) == (luckiest, False)
    assert seen > 10


def test_the_smallest_weights_count_in_top_p():
    # Tokens 0 and 1 share nearly all of the weight; half of it is token 0 alone, unless the 3,000 others weigh something.
    logits = np.full(3002, -21.5, dtype=np.float32)
    logits[:2] = 0
    parameters = SamplingParameters(temperature=1, top_p=0.5, seed=1)
    for position in range(12):
        assert_equals_reference(logits, position, parameters)
    chosen = choose(np.tile(logits, (12, 1)), range(12), [parameters] * 12).token_ids
    assert set(chosen) == {0, 1}


def test_a_token_exactly_at_the_boundary_of_min_p_is_left():
    min_p = next(p for p in np.linspace(0.2, 0.3, 999).tolist() if -1 / (-1 / math.log(p)) == math.log(p))
    parameters = SamplingParameters(temperature=-1 / math.log(min_p), min_p=min_p)
    assert {one([0, -1], position, parameters)[0] for position in range(40)} == {0, 1}


@pytest.mark.parametrize("spread", [3.0, 12.0, 60.0], ids=["some stand out", "few do", "fewer than are asked for"])
def test_where_few_stand_out_by_score_a_row_is_chosen_from_as_any_other(spread, monkeypatch):
    """As it is with long rows alone."""
    monkeypatch.setattr("speculation.contest.LONG_ROW", 1)
    logits = np.round(np.random.default_rng(13).standard_normal(3001) * spread * 8) / 8
    for position in range(40):
        parameters = SamplingParameters(temperature=0.8, seed=79)
        assert_equals_reference(logits, position, parameters)
        for count in (1, 4):
            assert_ranked_equal_reference(logits, position, parameters, count)
