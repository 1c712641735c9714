import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.truncation import nucleus, top_by_value


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(st.integers(1, 700), st.integers(1, 12), st.integers(1, 400), st.integers(0, 2**32))
@settings(max_examples=200)
def test_the_first_by_value_are_those_of_a_full_sort(kind, size, count, num_levels, seed):
    values = np.random.default_rng(seed).integers(-num_levels, num_levels, size).astype(kind)
    count = min(count, size)
    wanted = np.sort(np.argsort(-values, kind="stable")[:count])
    assert np.array_equal(top_by_value(values, count), wanted)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_high_values_in_few_blocks_are_all_found(count):
    values = np.zeros(2000)
    values[[3, 11, 19, 27, 35][:count]] = range(1, count + 1)
    assert top_by_value(values, count).tolist() == [3, 11, 19, 27, 35][:count]
    values[:count] = 9
    assert top_by_value(values, count).tolist() == list(range(count))


@pytest.mark.parametrize("num_tokens", [8, 4096])
def test_a_share_that_is_reached_exactly_takes_nobody_more(num_tokens):
    scores = np.zeros(num_tokens)
    assert nucleus(scores, 0.0, 0.5).tolist() == list(range(num_tokens // 2))
    assert nucleus(scores, 0.0, 0.25).tolist() == list(range(num_tokens // 4))
