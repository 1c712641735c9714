"""The search charges what its cost model says, tells what adaptive misses, and shifts the world in the middle."""

from dataclasses import replace

import pytest

from benchmarks.adaptive_cells import PRICES, Found, Price, Row, world
from benchmarks.adaptive_worlds import Half, Spent, answered
from device_agent.config import AgentConfig

NEAR, FAR = Half(20.0, 0.9), Half(200.0, 0.9)
SPENT = Spent(0.03, 0.5, 2.0, 4.0, 0.1, 50.0, 0.2)


def row(second, ratio):
    found = Found("8 deep, 2 wide", 10.0, SPENT, 10.0 * ratio, SPENT)
    return Row(world(9.0, 60.0, NEAR, second), {price.name: found for price in PRICES})


def test_a_score_is_time_and_priced_joules_and_bytes():
    assert Price("", 0.1, 1e-4).score_ms(SPENT) == pytest.approx(30 + 10 + 5)


@pytest.mark.parametrize(
    ("second", "ratio", "is_miss"), [(NEAR, 1.029, False), (NEAR, 1.031, True), (FAR, 0.999, False), (FAR, 1.0, True)]
)
def test_a_miss_is_3_percent_behind_or_not_ahead_where_the_world_shifts(second, ratio, is_miss):
    assert bool(row(second, ratio).misses) == is_miss


def test_each_half_of_a_shifting_world_counts():
    config = AgentConfig(drafting="ahead")
    near, far = world(9.0, 60.0, NEAR), world(9.0, 60.0, FAR)
    shifted = answered(replace(near, second=FAR), config, 0, 80).seconds
    assert answered(near, config, 0, 80).seconds < shifted < answered(far, config, 0, 80).seconds


def test_a_row_makes_a_pass_longer():
    config, cell = AgentConfig(drafting="ahead"), world(9.0, 60.0, NEAR)
    assert answered(replace(cell, pass_row_ms=0.0), config, 0, 40).seconds < answered(cell, config, 0, 40).seconds
