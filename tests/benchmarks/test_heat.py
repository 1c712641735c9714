"""The heat model beside what was published of a real phone, and what the benchmark makes of it."""

import sys

import pytest

from benchmarks import heat
from benchmarks.heat import PUBLISHED, WITHIN, at, cost_of, decode, joules_per_token
from speculation.shaping.phone_state import Heat


@pytest.fixture(scope="module")
def runs():
    return {curve.label: decode(cost_of(curve.phone, heat.GEMMA), heat.LONGEST_S) for curve in PUBLISHED}


@pytest.mark.parametrize("curve", PUBLISHED, ids=lambda curve: curve.label)
def test_three_published_curves_are_met_within_10_percent_at_0_60_and_600_seconds(curve, runs):
    assert set(curve.bound) == {0, 60, 600}
    for moment_s, published in curve.bound.items():
        assert at(runs[curve.label], moment_s).tokens_per_s == pytest.approx(published, rel=WITHIN)


@pytest.mark.parametrize("curve", PUBLISHED, ids=lambda curve: curve.label)
def test_between_them_the_curves_are_met_as_well(curve, runs):
    for moment_s, published in curve.shown.items():
        assert at(runs[curve.label], moment_s).tokens_per_s == pytest.approx(published, rel=WITHIN)


def test_a_phone_that_nothing_was_fitted_to_is_met_within_15_percent():
    samples = decode(cost_of(heat.UNFITTED_PHONE, heat.UNFITTED_MODEL), 120)
    assert samples[0].tokens_per_s == pytest.approx(40, rel=0.01)
    for moment_s, published in heat.UNFITTED.items():
        assert at(samples, moment_s).tokens_per_s == pytest.approx(published, rel=0.15)


def test_the_power_that_makes_the_heat_is_the_batterys_within_its_gauges_steps(runs):
    for curve in PUBLISHED:
        ours = joules_per_token(cost_of(curve.phone, heat.GEMMA), runs[curve.label])
        assert ours == pytest.approx(curve.joules_per_token, rel=0.2)


def test_all_three_runs_end_in_the_status_that_the_phone_gave(runs):
    assert {samples[0].status for samples in runs.values()} == {"nominal"}
    assert {samples[-1].status for samples in runs.values()} == {"serious"}


def test_the_curve_does_not_depend_on_how_many_tokens_a_step_has(runs):
    """The governor decides often enough: prefill in long steps, with the same power, throttles as decoding does."""
    curve = PUBLISHED[0]
    state = cost_of(curve.phone, heat.GEMMA).state(Heat.ON)
    cost = cost_of(curve.phone, heat.GEMMA)
    step_s, num_bytes = cost.step_s([heat.Work(heat.CONTEXT, 1)]), cost.bytes_read([heat.Work(heat.CONTEXT, 1)])
    while state.heat.state.at_s < 60:
        state.step(64 * num_bytes, 64 * step_s)
    assert state.heat.state.speed / step_s == pytest.approx(at(runs[curve.label], 60).tokens_per_s, rel=0.05)


def test_the_tables_say_what_is_met(runs):
    grid = heat.curves_grid(runs)
    assert "9 of 9 within 10%" in grid.title
    assert len(grid.rows) == 18
    assert [row[1] for row in heat.energy_grid(runs).rows] == ["0.207", "0.232", "0.146"]


def test_the_quick_form_works_and_stops_early(monkeypatch, capsys, tmp_path):
    file = tmp_path / "heat.json"
    monkeypatch.setattr(sys, "argv", ["heat", "--quick", "--json", str(file)])
    heat.main()
    out = capsys.readouterr().out
    assert "6 of 6 within 10%" in out
    assert "dimensity-9300" in out
    assert file.exists()
