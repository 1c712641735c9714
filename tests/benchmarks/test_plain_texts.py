"""Benchmarks under the virtual clock refuse the rate of a text that the full model alone would not write."""

import pytest

from benchmarks.first_order import Times
from benchmarks.grid_production import Meeting, answered, branches
from benchmarks.pair_grid import Cell, reached
from benchmarks.plain_texts import is_plain
from cloud_verifier import passes
from outrider.planning.synthetic import Acceptance, FullEngine
from speculation.engines.base import Chunk
from speculation.errors import SimulationError

TIMES, ACCEPTANCE = Times(9.0, 60.0, 20.0), Acceptance(0.6)
REFUSED = "not what the full model writes alone"


def test_a_text_is_plain_where_every_token_is_the_greedy_choice_behind_those_before_it():
    engine, text = FullEngine(ACCEPTANCE, 3, 16, 0.0), [1, 5]
    cache = engine.open()
    new = list(text)
    for _ in range(8):
        new = [int(engine.extend([Chunk(cache, new, 1)])[0].argmax())]
        text += new
    assert is_plain(engine, text[:2], text[2:])
    assert not is_plain(engine, text[:2], [*text[2:-1], text[-1] + 1])
    assert not is_plain(engine, text[:2], text[3:])


@pytest.fixture
def credulous(monkeypatch):
    """A verifier that takes the first wrong draft of each pass for the full model's choice."""
    run = passes._run

    def wrongly(engine, ready):
        run(engine, ready)
        for entry in ready:
            if entry.choices and entry.num_agreed < len(entry.drafted):
                choices, wrong = list(entry.choices), entry.num_agreed
                choices[wrong : wrong + 2] = [entry.drafted[wrong], 5]
                entry.choices, entry.num_agreed = choices, wrong + 1

    monkeypatch.setattr(passes, "_run", wrongly)


def test_a_verifier_that_commits_what_the_full_model_did_not_choose_has_no_rate_in_the_grid(credulous):
    with pytest.raises(SimulationError, match=REFUSED):
        answered(branches(1), Meeting(TIMES, ACCEPTANCE, 0, 40))


def test_nor_in_the_grid_of_the_bundled_pair(credulous):
    with pytest.raises(SimulationError, match=REFUSED):
        reached(branches(1), Cell(TIMES, 0.8), 1)
