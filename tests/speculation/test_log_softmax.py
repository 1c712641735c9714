import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.errors import MalformedMessageError
from speculation.log_softmax import token_logprobs
from speculation.logprobs import LEAST_LOGPROB, MAX_LOGPROBS, TokenLogprobs
from tests.support.likelihoods import likelihood

LOGITS = st.lists(st.floats(-30, 30, width=32) | st.integers(-2, 2).map(float), min_size=1, max_size=60)


@given(LOGITS, st.integers(0, 2**16), st.integers(0, MAX_LOGPROBS))
@settings(max_examples=200, deadline=None)
def test_log_probabilities_are_the_log_softmax_in_double_precision_and_in_the_order_of_the_choice(logits, place, count):
    row, token_id = np.array(logits, np.float32), place % len(logits)
    told, wanted = token_logprobs(row, token_id, count), likelihood(row, token_id, count)
    assert [other for other, _ in told.top] == [other for other, _ in wanted.top]
    assert told.logprob == pytest.approx(wanted.logprob, abs=1e-6, rel=2e-7)
    assert [value for _, value in told.top] == pytest.approx([value for _, value in wanted.top], abs=1e-6, rel=2e-7)


def test_a_row_of_a_batch_is_told_as_the_row_alone_bit_for_bit():
    batch = np.random.default_rng(5).normal(0, 4, (9, 32_003)).astype(np.float32)
    for number in (0, 4, 8):
        alone = np.array(batch[number])
        assert token_logprobs(batch[number], 77, 20) == token_logprobs(alone, 77, 20)


def test_equals_are_told_by_their_ids():
    told = token_logprobs(np.array([1, 3, 3, 2, 3], np.float32), 0, 4)
    assert [token_id for token_id, _ in told.top] == [1, 2, 4, 3]
    assert len({value for _, value in told.top[:3]}) == 1


def test_the_weights_of_all_tokens_make_one():
    row = np.random.default_rng(6).normal(0, 3, 20).astype(np.float32)
    assert math.fsum(math.exp(value) for _, value in token_logprobs(row, 3, 20).top) == pytest.approx(1, abs=1e-6)


def test_what_no_number_could_hold_is_very_unlikely():
    told = token_logprobs(np.array([3e38, -3e38], np.float32), 1, 5)
    assert told == TokenLogprobs(LEAST_LOGPROB, ((0, 0.0), (1, LEAST_LOGPROB)))


def test_a_count_that_is_none_is_refused():
    with pytest.raises(ValueError, match="-1"):
        token_logprobs(np.zeros(4, np.float32), 0, -1)


@pytest.mark.parametrize("value", [0.5, -math.inf, math.nan, -10_000.0])
def test_what_is_no_log_probability_is_malformed(value):
    for made in ((value,), (-1.0, ((3, value),))):
        with pytest.raises(MalformedMessageError, match="from -9999"):
            TokenLogprobs(*made)
