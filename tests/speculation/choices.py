"""A choice beside that of the plain reference, and what choices are drawn from."""

import numpy as np
import pytest
from hypothesis import strategies as st

from speculation.choice import NEAR_TIE, choose, choose_ranked
from speculation.parameters import SamplingParameters
from tests.support import choice_reference as reference

LEVELS = st.integers(-12, 12).map(lambda n: n / 4)
ANY_LOGIT = st.floats(-40, 40, width=32)

PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 1e-3, 0.2, 0.8, 1.0, 1.7, 100.0]) | st.floats(0.01, 5),
    top_k=st.just(0) | st.integers(1, 30),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.25]) | st.floats(1e-6, 1),
    min_p=st.just(0.0) | st.floats(1e-12, 0.999),
    seed=st.integers(0, 2**64 - 1),
)
POSITIONS = st.integers(0, 2**40)


def one(logits, position, parameters):
    chosen = choose(np.array([logits], dtype=np.float32), [position], [parameters])
    return int(chosen.token_ids[0]), bool(chosen.near_ties[0])


def assert_equals_reference(logits, position, parameters):
    row = np.array(logits, dtype=np.float32)
    token_id, is_near_tie = one(row, position, parameters)
    wanted, lead = reference.choose(row, position, parameters)
    assert token_id == wanted
    if abs(lead - NEAR_TIE) > 1e-9:
        assert is_near_tie == (lead < NEAR_TIE)


def assert_ranked_equal_reference(logits, position, parameters, count=2):
    row = np.array(logits, dtype=np.float32)
    ranked = choose_ranked(row[None], [position], [parameters], count)
    assert ranked.token_ids[0, 0] == one(row, position, parameters)[0]
    ranking, shares = reference.ranking(row, position, parameters)
    spare = [-1] * count
    assert ranked.token_ids[0].tolist() == [*ranking, *spare][:count]
    assert ranked.confidences[0].tolist() == pytest.approx([*shares, *(0.0 for _ in spare)][:count], rel=1e-3, abs=1e-12)
