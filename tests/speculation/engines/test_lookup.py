"""The draft without a model, against the same counts made one ending at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.engines.base import Chunk
from speculation.engines.lookup import LONGEST_ENDING, LookupEngine, repeats_of

VOCABULARY = 7
texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60)


def counted(text):
    """Witten and Bell's blend, an ending of no token first."""
    chances = np.full(VOCABULARY, 1 / VOCABULARY)
    for length in range(min(LONGEST_ENDING, len(text) - 1) + 1):
        ending = text[len(text) - length :]
        starts = [i for i in range(len(text) - length) if text[i : i + length] == ending]
        followers = Counter(text[i + length] for i in starts)
        if not followers:
            break
        total, kinds = followers.total(), len(followers)
        counts = np.array([followers[token] for token in range(VOCABULARY)])
        chances = (counts + kinds * chances) / (total + kinds)
    return chances


def last_row(text):
    engine = LookupEngine(VOCABULARY, context_length=100, num_slots=1)
    return engine.extend([Chunk(engine.open(), text, 1)])[0]


@given(texts)
def test_chances_are_the_blend_of_all_endings_that_occurred_before(text):
    row = last_row(text)
    assert row.dtype == np.float32
    assert np.exp(row.astype(float)) == pytest.approx(counted(text), rel=1e-5)
    assert np.exp(row.astype(float)).sum() == pytest.approx(1, abs=1e-5)


@given(texts)
def test_repeats_are_where_the_texts_end_occurred_before(text):
    found = repeats_of(np.array(text))
    for length, positions in enumerate(found):
        ending = text[len(text) - length :]
        wanted = [i + length for i in range(len(text) - length) if text[i : i + length] == ending]
        assert positions.tolist() == wanted != []
    longer = text[len(text) - len(found) :]
    assert len(found) > LONGEST_ENDING or all(text[i : i + len(found)] != longer for i in range(len(text) - len(found)))


def test_a_text_that_repeats_itself_goes_on_as_before():
    phrase = [5, 1, 4, 1, 3, 2]
    text = phrase * 3
    for step in range(len(phrase)):
        assert last_row(text).argmax() == phrase[step]
        text.append(phrase[step])


def test_a_token_that_never_came_stays_possible():
    row = last_row([3] * 50)
    assert np.isfinite(row).all()
    assert row.argmax() == 3
