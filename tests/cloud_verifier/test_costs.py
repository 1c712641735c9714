"""Costs of a pass: what is in it, what was measured of it, what an emulated machine takes for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.costs import LinearCosts, PassShape, RooflineCosts, fitted, growing
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.costs import Work, step_time_s
from speculation.shaping.models import parse_model

PRICES = LinearCosts(pass_s=1.5e-3, session_s=1e-4, row_s=1.6e-4, evened_s=3e-5, cached_s=8e-7, attended_s=5e-7)


STEPPED = replace(PRICES, row_s=1e-6, step_s=5e-3, rows_a_step=4)


def shape_of(*sessions):
    shape = PassShape()
    for num_rows, num_cached in sessions:
        shape = shape.with_session(num_rows, num_cached)
    return shape


def test_a_shape_sums_up_its_sessions():
    assert shape_of((1, 10), (4, 20), (3, 0)) == PassShape(3, 8, 2 + 4 + 4, 30, 20 + 80)


def test_a_row_more_is_the_session_with_a_row_more():
    for num_rows in range(1, 6):
        grown = shape_of((2, 7), (num_rows, 30)).with_row(num_rows, 30)
        assert grown == shape_of((2, 7), (num_rows + 1, 30))
    assert shape_of((1, 7)).with_row(1, 7, 0.3).num_sampled == 0.3
    assert PassShape().with_session(3, 7, num_sampled=3).num_sampled == 3


class OtherCosts:
    """The same prices of something that is no line by its class."""

    def __init__(self, costs):
        self.seconds = costs.seconds


@pytest.mark.parametrize("costs", [PRICES, STEPPED])
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300)), min_size=1, max_size=5),
    st.lists(st.integers(0, 4), min_size=1, max_size=9),
)
def test_a_pass_that_grows_costs_what_its_shape_does(costs, sessions, added):
    rows, shape = [count for count, _ in sessions], shape_of(*sessions)
    with_row = [growing(one, shape) for one in (costs, OtherCosts(costs))]
    for number in (number % len(sessions) for number in added):
        found = [one(rows[number], sessions[number][1], 0.3) for one in with_row]
        rows[number] += 1
        shape = shape_of(*[(count, cached) for count, (_, cached) in zip(rows, sessions, strict=True)])
        assert found == pytest.approx([costs.seconds(shape)] * 2)


def test_linear_costs_by_hand():
    drawn = PassShape().with_session(3, 0, num_sampled=3)
    assert replace(PRICES, sampled_s=1e-3).seconds(drawn) == pytest.approx(PRICES.seconds(drawn) + 3e-3)
    assert PRICES.seconds(shape_of((1, 100), (2, 200))) == pytest.approx(
        1.5e-3 + 2e-4 + 4.8e-4 + 1.2e-4 + 8e-7 * 300 + 5e-7 * 600
    )


def test_steps_by_hand():
    for num_rows, steps in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
        one = shape_of((num_rows, 0))
        assert STEPPED.seconds(one) == pytest.approx(replace(STEPPED, step_s=0.0).seconds(one) + steps * 5e-3)


def test_a_second_step_costs_what_the_first_does_also_where_no_pass_had_two():
    shapes = [shape_of(*[(rows, 32)] * count) for rows in (1, 2, 4, 8) for count in (1, 4)]
    found = fitted([(shape, 3e-3) for shape in shapes], rows_a_step=32)
    assert found.seconds(shape_of(*[(4, 32)] * 8)) == pytest.approx(3e-3)
    assert found.seconds(shape_of(*[(5, 32)] * 8)) == pytest.approx(6e-3)


def test_prices_are_found_again_from_passes_that_they_made():
    shapes = [shape_of(*[(rows, cached)] * count) for rows in (1, 2, 4, 8) for count in (1, 4, 16) for cached in (32, 256)]
    found = fitted([(shape, PRICES.seconds(shape)) for shape in shapes])
    for shape in shapes:
        assert found.seconds(shape) == pytest.approx(PRICES.seconds(shape), rel=1e-6)
    assert found.row_s == pytest.approx(PRICES.row_s, rel=1e-3)


def test_no_price_is_below_nothing_whatever_was_measured():
    shapes = [shape_of(*[(rows, 32)] * count) for rows in (1, 2, 4, 8) for count in (1, 4, 16)]
    # Passes that take less the more sessions they have, as a disturbed machine may tell.
    found = fitted([(shape, 2e-3 + 1e-4 * shape.num_rows / shape.num_sessions) for shape in shapes])
    assert min(found.pass_s, found.session_s, found.row_s, found.evened_s, found.cached_s, found.attended_s) >= 0
    assert found.seconds(shapes[0]) > 0


def test_an_emulated_machine_is_asked_for_its_own_time():
    cloud, model = Catalogue(None).cloud("mi300x"), parse_model("70B:fp16")
    costs = RooflineCosts(cloud.machine, model)
    works = [Work(100, 1), Work(300, 5)]
    assert costs.seconds(shape_of((1, 100), (5, 300))) == pytest.approx(step_time_s(cloud.machine, model, works))
