"""Choices that verify drafts: those of rows alone, up to the first that its draft does not equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation import choice
from speculation.choice import NOT_CHOSEN, Run, choose, choose_runs
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from tests.speculation.choices import PARAMETERS, POSITIONS, one

pytestmark = pytest.mark.usefixtures("way_of_choosing")

SIZES = st.sampled_from([1, 2, 30, 600])


def drafts_behind(data, logits, position, parameters, length):
    """Drafts of a run whose first few are the choices, by a draw."""
    truth = [one(row, position + place, parameters)[0] for place, row in enumerate(logits[:length])]
    agreeing = data.draw(st.integers(0, length))
    size = logits.shape[1]
    return [*truth[:agreeing], *((token_id + 1) % size for token_id in truth[agreeing:])]


@given(st.data())
def test_runs_hold_the_choices_of_their_rows_alone_up_to_the_first_that_its_draft_does_not_equal(data):
    size = data.draw(SIZES)
    lengths = data.draw(st.lists(st.integers(0, 4), max_size=5))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    logits = (random.standard_normal((sum(lengths) + len(lengths), size)) * 3).astype(np.float32)
    runs, wanted, row = [], [], 0
    for length in lengths:
        position, parameters = data.draw(POSITIONS), data.draw(PARAMETERS)
        rows = logits[row : row + length + 1]
        drafted = drafts_behind(data, rows, position, parameters, length)
        alone = [one(line, position + place, parameters) for place, line in enumerate(rows)]
        num_agreed = next((n for n, token_id in enumerate(drafted) if token_id != alone[n][0]), length)
        runs.append(Run(position, parameters, drafted))
        wanted += [*alone[: num_agreed + 1], *[(NOT_CHOSEN, False)] * (length - num_agreed)]
        row += length + 1
    found = choose_runs(logits, runs)
    assert list(zip(found.token_ids, found.near_ties, strict=True)) == wanted


@pytest.mark.parametrize("way_of_choosing", ["numpy"], indirect=True)  # the other way's functions cannot be watched
@pytest.mark.parametrize("num_agreed", [0, 2, 4])
def test_no_row_is_drawn_behind_a_draft_that_is_not_the_choice(monkeypatch, num_agreed):
    parameters = SamplingParameters(temperature=0.8, seed=3)
    logits = (np.random.default_rng(5).standard_normal((5, 600)) * 3).astype(np.float32)
    truth = choose(logits, range(10, 15), [parameters] * 5).token_ids
    drafted = [*truth[:num_agreed], *((token_id + 1) % 600 for token_id in truth[num_agreed:4])]
    drawn, plain = [], choice.contests

    def watched(rows, *arguments, **named):
        drawn.extend(left.position for left in rows)
        return plain(rows, *arguments, **named)

    monkeypatch.setattr(choice, "contests", watched)
    choose_runs(logits, [Run(10, parameters, drafted)])
    assert drawn == list(range(10, 11 + num_agreed))


def test_rows_have_to_be_those_of_the_runs():
    with pytest.raises(ValueError, match="3 rows of logits"):
        choose_runs(np.zeros((3, 4), np.float32), [Run(0, SamplingParameters(), (1,))])
    with pytest.raises(EngineError, match="not finite"):
        choose_runs(np.array([[0.0], [np.nan]], np.float32), [Run(0, SamplingParameters(), (1,))])
