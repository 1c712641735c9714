"""What the benchmark makes of plans and real answers."""

import dataclasses

import pytest

from benchmarks import plan_check
from benchmarks.plan_check import CELLS, Pair, errors, summary, table
from device_agent.request import Mode
from outrider.planning.scene import Written

REAL = Written(96, 0.0, 4.0, 0.010, 0.100, 25.0, 0.5, 0.8, 0.3, 10.0, 5.0, 1.2, 0.1, 0.05)


def pair(mode=Mode.COLLABORATE, prompt=0, **planned):
    return Pair(CELLS[0], mode, prompt, dataclasses.replace(REAL, **planned), REAL)


def test_an_error_is_the_prediction_over_the_real_figure_less_one():
    assert pair(tokens_per_s=30.0).error("tokens_per_s") == pytest.approx(0.2)
    assert pair(first_final_s=0.095).late_ms("first_final_s") == pytest.approx(5.0)


def test_a_figure_without_meaning_has_no_error():
    without = pair(first_final_s=None)
    assert without.error("first_final_s") is without.late_ms("first_final_s") is None
    assert errors([without, pair(first_final_s=0.1)], "first_final_s") == [0.0]


def test_the_summary_takes_errors_whatever_their_sign():
    rates = summary([pair(tokens_per_s=24.0), pair(tokens_per_s=26.0), pair(tokens_per_s=30.0)]).rows[0]
    assert rates == ["tokens a second", "3", "4.0%", "20.0%", "under 5%", "yes"]
    assert summary([pair(tokens_per_s=30.0)]).rows[0][-1] == "no"


def test_the_table_has_a_row_for_each_mode_with_the_lateness_of_moments():
    rows = table([pair(mode, first_visible_s=0.008) for mode in plan_check.MODES]).rows
    assert [row[3] for row in rows] == ["collaborate", "cloud", "device"]
    assert rows[0][7] == "-20.0% (+2.0 ms)"
