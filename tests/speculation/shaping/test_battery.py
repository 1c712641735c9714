from __future__ import annotations

from dataclasses import replace

import pytest

from speculation.shaping import profiles
from speculation.shaping.battery import Battery
from speculation.shaping.energy import PhoneEnergy
from speculation.shaping.phone_state import PhoneState

ENERGY = PhoneEnergy(dram_j_per_bit=0.0, compute_w=2.0, idle_w=0.5)


def worked(seconds: float, energy: PhoneEnergy | None = ENERGY) -> PhoneState:
    phone = PhoneState(energy)
    phone.begin(0.0)
    phone.step(0.0, seconds)
    return phone


def test_work_and_time_empty_it_by_hand_made_numbers():
    """10 Wh are 36 kJ. 3600 s of work at 2 W are 7.2 kJ, 20 %; 7200 s at 0.5 W are 3.6 kJ, 10 %."""
    phone = worked(0.0)
    battery = Battery(phone, capacity_wh=10, full_percent=80)
    assert battery.percent(1000.0) == 80
    phone.begin(1000.0)
    phone.step(0.0, 3600.0)
    assert battery.percent(1000.0) == pytest.approx(60)
    assert battery.percent(8200.0) == pytest.approx(50)


def test_time_before_anybody_asked_costs_nothing():
    assert Battery(worked(0.0), capacity_wh=1, full_percent=50).percent(1e6) == 50


def test_a_phone_that_becomes_another_draws_by_each_of_them_for_its_own_time():
    """Nothing is charged by it, and nothing is drawn for the time before: 3600 s at 0.5 W are 5 % of 10 Wh, at 2 W 20 %."""
    phone = worked(0.0)
    battery = Battery(phone, capacity_wh=10, full_percent=80)
    battery.percent(0.0)
    for number, idle_w, left in ((1, 2.0, 75), (2, 0.0, 55), (3, 0.5, 55), (4, 0.5, 50)):
        assert battery.percent(3600.0 * number) == pytest.approx(left)
        phone.become(PhoneState(replace(ENERGY, idle_w=idle_w)), 3600.0 * number)
        assert battery.percent(3600.0 * number) == pytest.approx(left)
    phone.become(PhoneState(None), 14400.0)
    assert battery.percent(1e6) == pytest.approx(50)


def test_it_is_never_below_nothing():
    battery = Battery(worked(0.0), capacity_wh=0.001, full_percent=1)
    battery.percent(0.0)
    assert battery.percent(3600.0) == 0


def test_a_phone_without_figures_of_energy_keeps_it_as_it_is():
    battery = Battery(worked(100.0, None), capacity_wh=1, full_percent=50)
    assert (battery.percent(0.0), battery.percent(1e6)) == (50, 50)


def test_a_bundled_phone_drafts_for_hours_before_it_is_empty():
    """Some 15 Wh at some 5 W: an hour of drafting takes a third or so, not a tenth of it and not all."""
    energy = profiles.phone("dimensity-9300").energy
    assert energy is not None
    phone = PhoneState(energy)
    battery = Battery(phone, capacity_wh=15.4, full_percent=100)
    battery.percent(0.0)
    phone.begin(0.0)
    for _ in range(360):
        phone.step(0.45e9 * 1000, 10.0)  # a thousand reads of a draft's weights in ten seconds
    assert 50 < battery.percent(3600.0) < 80
