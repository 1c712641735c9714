"""The prompts benchmark: everybody has a first token, the orders are what they are called, and only prompts are reordered."""

from dataclasses import replace

import pytest

from benchmarks import prompts
from benchmarks.prompts_scene import Crowd, Order, run

EQUAL = Crowd("equal", 256, 256, 6)
UNEQUAL = Crowd("unequal", 64, 1024, 6, num_writing=2)


@pytest.fixture(scope="module")
def felt():
    return {(crowd, order): run((crowd, order)) for crowd in (EQUAL, UNEQUAL) for order in Order}


def mean(one):
    return sum(one.first_ms) / len(one.first_ms)


def test_every_prompt_has_a_first_token(felt):
    assert all(sorted(one.lengths) == sorted(crowd.lengths()) for (crowd, _), one in felt.items())


def test_equal_prompts_that_share_every_pass_are_all_as_late_as_the_last(felt):
    together, in_turn = felt[EQUAL, Order.SHARED], felt[EQUAL, Order.OURS]
    assert max(together.first_ms) == pytest.approx(min(together.first_ms))
    pass_ms = max(together.first_ms) / len(together.first_ms)
    assert max(in_turn.first_ms) <= max(together.first_ms) + pass_ms, "whose turn was early writes on meanwhile"
    assert mean(in_turn) < 0.75 * mean(together)


def test_the_shortest_first_has_the_earliest_mean_and_costs_those_who_write_nothing(felt):
    ours, arrival, shared = (felt[UNEQUAL, order] for order in Order)
    assert mean(ours) < min(mean(arrival), mean(shared))
    assert max(ours.between_ms) <= 1.01 * max(shared.between_ms)


def test_prompts_come_at_drawn_moments_that_make_the_load():
    alone = run((replace(UNEQUAL, load=0.01), Order.OURS))
    assert mean(alone) < mean(run((replace(UNEQUAL, load=0.9), Order.OURS)))


def test_the_table_has_a_row_for_each_crowd_and_order(felt):
    grid = prompts.grid(felt)
    assert all(len(row) == len(grid.columns) for row in grid.rows)
    assert [row[3] for row in grid.rows[::3]] == ["1.00", "1.00"]
    assert len(prompts.crowds(4, 6)) == 5
