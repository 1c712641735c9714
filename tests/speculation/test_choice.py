"""A choice equals the plain reference, alone and in a batch, and follows the distribution."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from speculation.choice import choose, choose_ranked
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from speculation.truncation import MAX_VOCABULARY_SIZE
from tests.speculation.choices import (
    ANY_LOGIT,
    LEVELS,
    PARAMETERS,
    POSITIONS,
    assert_equals_reference,
    assert_ranked_equal_reference,
    one,
)
from tests.support import choice_reference as reference

pytestmark = pytest.mark.usefixtures("way_of_choosing")

VECTORS = Path(__file__).parent / "vectors"


@given(st.lists(LEVELS, min_size=1, max_size=40) | st.lists(ANY_LOGIT, min_size=1, max_size=40), POSITIONS, PARAMETERS)
@example([0.0] * 16, 0, SamplingParameters(temperature=1, top_p=0.5))
@example([1.0] * 4 + [0.0] * 12, 5, SamplingParameters(temperature=1, top_k=6, top_p=0.99, min_p=0.01, seed=2**64 - 1))
@example([0.5, -2.8e-18, 0.0], 0, SamplingParameters(temperature=0.2, top_p=0.9))  # scores that differ, leads that do not
@settings(max_examples=400)
def test_a_choice_equals_the_plain_reference(logits, position, parameters):
    assert_equals_reference(logits, position, parameters)


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0, 3.0, 12.0])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"top_p": 0.9},
        {"top_p": 0.3},
        {"top_p": 0.999999},
        {"top_k": 40},
        {"top_k": 3000, "top_p": 0.97},
        {"min_p": 0.02},
        {"top_k": 2500, "top_p": 0.8, "min_p": 1e-4},
    ],
)
def test_a_choice_over_a_large_vocabulary_equals_the_plain_reference(asked, spread):
    random = np.random.default_rng(11)
    for rounding in (1024, 8):  # 8: many ties
        logits = np.round(random.standard_normal(3001) * spread * rounding) / rounding
        for position in (3, 2**33):
            assert_equals_reference(logits, position, SamplingParameters(temperature=0.8, seed=77, **asked))


@given(
    st.lists(LEVELS, min_size=1, max_size=40) | st.lists(ANY_LOGIT, min_size=1, max_size=40),
    POSITIONS,
    PARAMETERS,
    st.integers(1, 6),
)
@example([0.0] * 16, 0, SamplingParameters(temperature=1, top_p=0.5), 4)
@example([3.0, 3.0, 1.0], 0, SamplingParameters(), 4)
@settings(max_examples=400)
def test_the_first_choices_and_their_confidences_equal_the_plain_reference(logits, position, parameters, count):
    assert_ranked_equal_reference(logits, position, parameters, count)


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0, 3.0, 12.0])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 1e-3},
        {"temperature": 1e-9},
        {"top_p": 0.9},
        {"top_k": 1500},
        {"top_k": 40},
        {"min_p": 0.02},
    ],
)
def test_the_first_choices_of_a_large_vocabulary_equal_the_plain_reference(asked, spread):
    random = np.random.default_rng(12)
    for rounding in (1024, 8):  # 8: many ties
        logits = np.round(random.standard_normal(3001) * spread * rounding) / rounding
        for count in (1, 2, 4):
            assert_ranked_equal_reference(logits, 3, SamplingParameters(**{"temperature": 0.8, "seed": 78, **asked}), count)


@given(st.data())
def test_the_first_of_any_number_is_the_choice_in_a_batch_of_any_rows(data):
    size, count = data.draw(st.sampled_from([1, 2, 30, 600])), data.draw(st.integers(1, 5))
    num_rows = data.draw(st.integers(0, 5))
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((num_rows, size)).astype(np.float32) * 3
    positions = [data.draw(POSITIONS) for _ in range(num_rows)]
    parameters = [data.draw(PARAMETERS) for _ in range(num_rows)]
    ranked = choose_ranked(logits, positions, parameters, count)
    assert ranked.token_ids.shape == ranked.confidences.shape == (num_rows, count)
    assert ranked.token_ids[:, 0].tolist() == choose(logits, positions, parameters).token_ids
    assert (ranked.confidences >= 0).all()
    assert (np.diff(ranked.confidences, axis=1) <= 0).all()
    assert (ranked.confidences.sum(axis=1) <= 1 + 1e-9).all()
    assert ((ranked.confidences == 0) | (ranked.token_ids >= 0)).all()


def test_places_that_no_token_is_left_for_are_empty():
    for parameters in (SamplingParameters(), SamplingParameters(temperature=1, seed=3)):
        alone = choose_ranked(np.zeros((1, 1), np.float32), [0], [parameters], 3)
        assert (alone.token_ids.tolist(), alone.confidences.tolist()) == ([[0, -1, -1]], [[1.0, 0.0, 0.0]])
    cut = choose_ranked(np.array([[0, 5, 1]], np.float32), [0], [SamplingParameters(temperature=1, top_k=1)], 2)
    assert (cut.token_ids.tolist(), cut.confidences.tolist()) == ([[1, -1]], [[1.0, 0.0]])


def test_fewer_than_the_choice_itself_are_refused():
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        choose_ranked(np.zeros((1, 4), np.float32), [0], [SamplingParameters()], 0)


def test_whole_choices_equal_the_golden_vectors():
    for case in json.loads((VECTORS / "choices.json").read_text("utf-8"))["cases"]:
        made = case["logits"]
        logits = made if isinstance(made, list) else reference.made_logits(made["size"], made["number"])
        parameters = SamplingParameters(**{**case["parameters"], "seed": int(case["parameters"]["seed"])})
        assert one(logits, int(case["position"]), parameters)[0] == case["token_id"]
        assert reference.choose(np.array(logits, np.float32), int(case["position"]), parameters)[0] == case["token_id"]


@given(st.data())
def test_a_row_in_a_batch_equals_the_row_alone(data):
    size = data.draw(st.integers(1, 30))
    logit = data.draw(st.sampled_from([LEVELS, ANY_LOGIT]))
    rows = data.draw(st.lists(st.lists(logit, min_size=size, max_size=size), min_size=2, max_size=8))
    positions = [data.draw(POSITIONS) for _ in rows]
    parameters = [data.draw(PARAMETERS) for _ in rows]
    together = choose(np.array(rows, dtype=np.float32), positions, parameters)
    alone = [one(*row) for row in zip(rows, positions, parameters, strict=True)]
    assert list(zip(together.token_ids, together.near_ties, strict=True)) == alone


@pytest.mark.parametrize("num_rows", [3, 9])
def test_long_rows_in_a_batch_equal_the_rows_alone(num_rows):
    random = np.random.default_rng(5)
    logits = (random.standard_normal((num_rows, 4096)) * 3).astype(np.float32)
    ways = [
        SamplingParameters(),
        SamplingParameters(temperature=1, seed=4),
        SamplingParameters(temperature=1, top_p=0.9, seed=5),
    ]
    parameters = [ways[row % 3] for row in range(num_rows)]
    positions = np.arange(num_rows) + 100
    together = choose(logits, positions, parameters)
    assert together.token_ids == [one(logits[row], int(positions[row]), parameters[row])[0] for row in range(num_rows)]


def test_the_logits_are_left_as_they_were():
    logits = np.random.default_rng(1).standard_normal((2, 600)).astype(np.float32)
    before = logits.copy()
    choose(logits, [0, 1], [SamplingParameters(temperature=1, top_p=0.9), SamplingParameters()])
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    "asked", [{}, {"top_k": 4}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 1.6}, {"top_k": 5, "top_p": 0.9, "min_p": 0.05}]
)
def test_frequencies_follow_the_distribution(asked):
    num_draws = 6000
    logits = np.array([2.0, 1.5, 1.5, 0.5, -0.25, -1.0, -9.0], dtype=np.float32)
    parameters = SamplingParameters(**{"temperature": 0.7, "seed": 2024, **asked})
    chosen = choose(np.tile(logits, (num_draws, 1)), np.arange(num_draws), [parameters] * num_draws).token_ids
    scores, left = reference.tokens_left(logits, parameters)
    weights = np.exp([scores[token_id] for token_id in left])
    expected = weights / weights.sum() * num_draws
    counts = np.array([chosen.count(token_id) for token_id in left])
    assert counts.sum() == num_draws  # nothing that was cut off is ever chosen
    common = expected >= 5
    chi_square = float(((counts - expected)[common] ** 2 / expected[common]).sum())
    assert chi_square < 30  # 6 degrees of freedom: passed by chance once in 25,000


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("seed", [1, 2])
def test_two_models_agree_as_often_as_their_distance_allows(distance, seed):
    num_draws = 4000
    random = np.random.default_rng(seed)
    full = random.standard_normal(50) * 2
    draft = full + random.standard_normal(50) * distance
    p, q = (
        np.exp(x) / np.exp(x).sum() for x in (full.astype(np.float32).astype(float), draft.astype(np.float32).astype(float))
    )
    total_variation = np.abs(p - q).sum() / 2
    parameters = [SamplingParameters(temperature=1, seed=seed)] * num_draws
    chosen = [
        choose(np.tile(x.astype(np.float32), (num_draws, 1)), np.arange(num_draws), parameters).token_ids for x in (full, draft)
    ]
    agreement = np.mean(np.equal(*chosen))
    four_sigma = 4 * (0.25 / num_draws) ** 0.5
    assert (1 - total_variation) / (1 + total_variation) - four_sigma <= agreement <= 1 - total_variation + four_sigma


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 15])
def test_logits_that_are_not_finite_are_an_engine_error(bad, place):
    logits = np.zeros((2, 16), dtype=np.float32)
    logits[1, place] = bad
    for parameters in (SamplingParameters(), SamplingParameters(temperature=1)):
        with pytest.raises(EngineError, match="row 1 of the logits is not finite"):
            choose(logits, [0, 1], [parameters] * 2)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros(4, np.float32),
        np.zeros((1, 4)),
        np.zeros((1, 0), np.float32),
        np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, MAX_VOCABULARY_SIZE + 1), (0, 0)),
    ],
)
def test_logits_of_another_shape_or_type_are_an_engine_error(logits):
    with pytest.raises(EngineError, match="logits must be float32"):
        choose(logits, [0], [SamplingParameters()])


def test_rows_without_a_position_are_refused():
    with pytest.raises(ValueError, match="2 rows of logits, 1 positions, 2 parameters"):
        choose(np.zeros((2, 4), np.float32), [0], [SamplingParameters()] * 2)


def test_no_rows_give_no_choices():
    chosen = choose(np.empty((0, 4), np.float32), [], [])
    assert chosen.token_ids == chosen.near_ties == []


@pytest.mark.parametrize("is_writeable", [True, False])
def test_logits_stay_as_they_are_also_where_they_cannot_be_written_to(is_writeable):
    logits = np.random.default_rng(3).normal(size=(6, 50)).astype(np.float32)
    before = logits.copy()
    logits.flags.writeable = is_writeable
    asked = [SamplingParameters(), SamplingParameters(temperature=0.7, seed=3)] * 3
    together = choose(logits, range(6), asked)
    assert np.array_equal(logits, before)
    alone = [choose(before[row : row + 1], [row], [asked[row]]).token_ids[0] for row in range(6)]
    assert together.token_ids == alone
