"""A draft that knows nothing."""

import numpy as np

from speculation.engines.base import Chunk
from speculation.engines.random import MAX_LOGIT, RandomEngine


def logits(seed, tokens):
    engine = RandomEngine(4096, 512, seed)
    return engine.extend([Chunk(engine.open(), tokens, len(tokens))])


def test_logits_are_a_function_of_seed_and_prefix():
    first = logits(1, [5, 6, 7])
    np.testing.assert_array_equal(first, logits(1, [5, 6, 7]))
    assert not np.array_equal(first, logits(2, [5, 6, 7]))
    other = logits(1, [5, 9, 7])
    np.testing.assert_array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[2], other[2])


def test_logits_are_spread_over_their_range():
    rows = logits(0, list(range(20)))
    assert rows.dtype == np.float32
    assert rows.min() >= 0
    assert rows.max() < MAX_LOGIT
    assert abs(rows.mean() - MAX_LOGIT / 2) < 0.05


def test_logits_do_not_change_with_the_release():
    np.testing.assert_array_equal(
        logits(1, [5])[0, :3], np.array([3.83845853805542, 3.4729199409484863, 2.468494415283203], np.float32)
    )
