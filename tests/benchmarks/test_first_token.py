"""First tokens of the real pair are where they should be, and a table made by hand shows what is not."""

import dataclasses

import pytest

from benchmarks import first_token
from benchmarks.first_token import Case, Models, Row, grids, spreads
from device_agent.drafting.policies import ADAPTIVE
from speculation.shaping import profiles

SMALL, LARGE = first_token.MODELS
DEVICE_FIRST = Case(profiles.DEFAULT_PHONE, SMALL, ADAPTIVE, "short")
CLOUD_FIRST = Case(profiles.DEFAULT_PHONE, LARGE, ADAPTIVE, "longest")


@pytest.fixture(scope="module")
def models():
    return Models()


@pytest.fixture(scope="module")
def rows(models):
    return first_token.measure(models, [DEVICE_FIRST, CLOUD_FIRST], first_token.ENDS_MS)


def made(together_ms, device_ms, cloud_ms, round_trip_ms=20.0):
    return Row(DEVICE_FIRST, 47, round_trip_ms, together_ms, device_ms, cloud_ms)


def test_together_they_are_as_early_as_whoever_is_first(rows):
    assert [row.is_device_first for row in rows] == [True, True, False, True]
    for row in rows:
        assert row.collaborate_ms == pytest.approx(min(row.device_ms, row.cloud_ms), abs=first_token.LATER_MS)
        assert not row.is_missed


def test_a_first_token_costs_the_prefill_of_who_gives_it_and_the_way(rows):
    near, far, long_near, long_far = rows
    assert near.device_ms == far.device_ms < long_near.device_ms == long_far.device_ms
    assert far.cloud_ms - near.cloud_ms == pytest.approx(280.0, abs=0.1)
    assert long_near.cloud_ms > near.cloud_ms + 20
    assert near.prompt_tokens < 100 < 400 < long_near.prompt_tokens


def test_it_is_flat_in_the_round_trip_where_the_device_is_first(rows):
    (found,) = spreads(rows)
    assert [row.round_trip_ms for row in found.rows] == [20.0, 300.0]
    assert found.share < 0.001


def test_every_case_fits_the_pair(models):
    cases = first_token.all_cases(list(models.prompts))
    assert {case.config.drafting for case in cases} == set(first_token.POLICIES)
    assert {case.phone for case in cases} == set(profiles.phones()) - {profiles.UNSHAPED}
    assert set(first_token.few(cases)) < set(cases)


def test_later_than_either_alone_is_a_miss():
    assert not made(9.0, 9.0, 60.0).is_missed
    assert made(9.1, 9.0, 60.0).is_missed
    assert not made(60.0, 90.0, 60.0).is_missed
    assert made(60.1, 90.0, 60.0).is_missed


def test_a_spread_counts_round_trips_where_the_device_is_first():
    rows = [made(60.0, 90.0, 60.0, 20.0), made(90.0, 90.0, 100.0, 60.0), made(92.7, 90.0, 340.0, 300.0)]
    (found,) = spreads(rows)
    assert list(found.rows) == rows[1:]
    assert found.share == pytest.approx(0.03)
    assert found.is_missed
    assert list(spreads(rows[:2])) == []


def test_tables_say_what_is_missed():
    flat, steep = made(9.0, 9.0, 60.0), made(9.5, 9.0, 340.0, 300.0)
    every, spread = grids([flat, steep])
    assert "in 1 of 2 rows" in every.title
    assert [line[-1] for line in every.rows] == ["", "MISS"]
    assert "0 of 1" in spread.title
    assert spread.rows[0][-3:] == ["9.00 to 9.50", "5.56%", "MISS"]
    assert all(len(grid.columns) == len(line) for grid in (every, spread) for line in grid.rows)
    other = dataclasses.replace(steep, case=CLOUD_FIRST)
    assert grids([flat, other])[1].rows == []


@pytest.mark.parametrize("phone", ["brick", profiles.UNSHAPED])
def test_a_phone_without_a_row_is_refused_and_does_not_reach_every_aim(phone, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["first_token", "--quick", "--phone", phone])
    with pytest.raises(SystemExit) as left:
        first_token.main()
    assert left.value.code == 2
    assert f"invalid choice: '{phone}'" in capsys.readouterr().err
