"""A draft model that also looks things up: what the blend does to a row, and that the text's repeats are found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speculation.engines.base import Chunk
from speculation.engines.blended import SHORTEST_ENDING, BlendedEngine, blend, blended
from speculation.engines.lookup import Guess, guess, repeats_of
from speculation.engines.random import RandomEngine
from speculation.errors import EngineError

VOCABULARY, SHARE = 11, 0.25
PHRASE = [7, 2, 9, 4, 1]


def chances_of(row):
    weights = np.exp(row.astype(float) - row.max())
    return weights / weights.sum()


def rows_of(engine, token_ids):
    return engine.extend([Chunk(engine.open(), token_ids, len(token_ids))])


def random_engine():
    return RandomEngine(VOCABULARY, context_length=60, seed=4)


def test_seen_tokens_get_their_share_of_the_blend_and_the_others_share_the_rest():
    before = np.random.default_rng(1).normal(size=VOCABULARY).astype(np.float32)
    row, found = before.copy(), Guess(np.array([2, 5]), np.array([0.7, 0.25]), unseen=0.0)
    blend(row, found, math.log(SHARE / (1 - SHARE)))
    wanted = (1 - SHARE) * chances_of(before)
    wanted[[2, 5]] += SHARE * found.chances
    assert chances_of(row) == pytest.approx(wanted / wanted.sum(), rel=1e-5)


def test_where_nothing_repeats_the_models_logits_stay_as_they_are():
    text = list(range(VOCABULARY))
    plain, blended = rows_of(random_engine(), text), rows_of(BlendedEngine(random_engine(), SHARE), text)
    assert plain.tobytes() == blended.tobytes()


def test_a_repeat_is_followed_once_enough_of_it_is_there():
    text = PHRASE * 2
    blended = rows_of(BlendedEngine(random_engine(), share=0.999), text)
    plain = rows_of(random_engine(), text)
    for end in range(1, len(text) + 1):
        if end < len(PHRASE) + SHORTEST_ENDING:
            assert plain[end - 1].tobytes() == blended[end - 1].tobytes()
        else:
            assert blended[end - 1].argmax() == PHRASE[end % len(PHRASE)]


def test_a_fork_and_a_cut_take_the_text_along():
    engine = BlendedEngine(random_engine(), share=0.999)
    cache = engine.open()
    engine.extend([Chunk(cache, [*PHRASE, *PHRASE, 3, 3], 0)])
    child = engine.fork(cache, 2 * len(PHRASE) - 1)
    assert engine.extend([Chunk(child, PHRASE[-1:], 1)])[0].argmax() == PHRASE[0]
    engine.truncate(child, 2 * len(PHRASE) - 1)
    engine.extend([Chunk(child, [8, 8, 8], 0)])
    engine.truncate(cache, 2 * len(PHRASE))
    assert engine.extend([Chunk(cache, PHRASE[:1], 1)])[0].argmax() == PHRASE[1]


def test_the_blends_weight_is_that_of_a_guess_of_the_text():
    """One row, worked out from both sides."""
    text = [*PHRASE, *PHRASE[:4]]
    found = guess(np.array(text), repeats_of(np.array(text)), VOCABULARY)
    plain, blended = rows_of(random_engine(), text)[-1], rows_of(BlendedEngine(random_engine(), SHARE), text)[-1]
    wanted = (1 - SHARE) * chances_of(plain)
    wanted[found.token_ids] += SHARE * found.chances
    assert chances_of(blended) == pytest.approx(wanted / wanted.sum(), rel=1e-5)


class CannotFork:
    """Another engine without that ability."""

    def __init__(self, inner):
        self.description = inner.description


def test_a_share_that_would_have_no_effect_is_refused():
    engine = CannotFork(random_engine())
    assert blended(engine, 0.0) is engine
    with pytest.raises(EngineError, match="random cannot fork"):
        blended(engine, 0.2)
