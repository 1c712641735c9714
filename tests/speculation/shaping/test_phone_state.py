"""The gauges of an emulated phone, and an engine that slows down as it gets hot, on the loop's own clock."""

import asyncio
import dataclasses

import pytest

from speculation.engines.base import Chunk, Timed
from speculation.engines.runner import EngineRunner
from speculation.errors import ConfigurationError
from speculation.shaping import figures, profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, PhoneCost, ShapedEngine
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat, PhoneHeat, PhoneState
from speculation.shaping.phones import PhoneProfile
from tests.speculation.shaping.test_shaped_engine import ListEngine

PHONE = profiles.phone("apple-a19-pro")
COST = PhoneCost(PHONE, parse_model("0.9B:int4"))
MODEL, ENERGY = PHONE.heat, PHONE.energy
STEP_J = ENERGY.step_j(1e9, 0.02).total_j


def new_state() -> PhoneState:
    return PhoneState(ENERGY, PhoneHeat(MODEL, MODEL.cold))


def test_joules_are_those_of_the_work_whether_or_not_heat_is_emulated():
    for state in (new_state(), PhoneState(ENERGY)):
        state.begin(0.0)
        state.step(1e9, 0.02)
        state.step(1e9, 0.02)
        assert state.joules == pytest.approx(2 * STEP_J)


def test_a_phone_without_figures_takes_its_time_and_tells_nothing():
    state = PhoneState(None)
    state.begin(0.0)
    assert state.step(1e9, 0.02) == 0.02
    assert (state.joules, state.status, state.heat) == (0.0, None, None)


def test_the_first_job_may_begin_at_any_time():
    early, late = new_state(), new_state()
    early.begin(0.0)
    late.begin(1e6)
    assert early.step(1e9, 0.02) == pytest.approx(late.step(1e9, 0.02))
    assert late.heat.state.temperatures.die_c == pytest.approx(early.heat.state.temperatures.die_c)
    assert late.heat.state.at_s == pytest.approx(1e6 + 0.02)


def test_between_jobs_it_rests_and_cools():
    state = new_state()
    state.begin(0.0)
    for _ in range(3000):
        state.step(1e9, 0.02)
    hot = state.heat.state
    assert hot.speed < 0.6
    assert state.status == "serious"
    state.begin(hot.at_s + 600)
    assert state.heat.state.speed == 1.0
    assert state.status == "nominal"
    assert state.heat.state.temperatures.die_c < 40


def test_what_it_will_be_after_a_rest_can_be_asked_and_changes_nothing():
    state = PhoneState(ENERGY, PhoneHeat(MODEL, MODEL.hot(5.0)))
    hot = state.status_at(100.0)  # before any work there is nothing that a rest could be counted from
    assert hot == state.status
    state.begin(100.0)
    before, later = state.heat.state, state.heat.at(160.0)
    assert state.heat.state is before
    state.begin(160.0)
    assert state.heat.state == later
    assert state.status_at(160.0) == later.word
    assert PhoneState(ENERGY).status_at(1.0) is None


def test_a_job_that_was_given_up_heats_and_costs_only_for_as_long_as_it_lasted():
    whole, part, none = new_state(), new_state(), new_state()
    for state in (whole, part, none):
        state.begin(0.0)
        state.step(1e9, 0.02)
        state.step(1e9, 0.02)
    whole.begin(0.04)
    part.begin(0.01)
    none.begin(0.0)
    assert [s.joules for s in (whole, part, none)] == pytest.approx([2 * STEP_J, STEP_J / 2, 0.0])
    dies_c = [s.heat.state.temperatures.die_c for s in (none, part, whole)]
    assert dies_c[0] == MODEL.cold.temperatures.die_c
    assert dies_c == sorted(dies_c)
    power_w = MODEL.idle_w + STEP_J / 0.02
    expected = MODEL.circuit.after(MODEL.cold.temperatures, power_w, 0.01)
    assert part.heat.state.temperatures.die_c == pytest.approx(expected.die_c)


async def drafted_s(engine: ShapedEngine, num_tokens: int, pause_s: float = 0.0) -> list[float]:
    """Seconds of each draft step, on the virtual clock."""
    runner = EngineRunner(engine)
    cache = await runner.run(lambda engine: engine.open())
    times_s = []
    for _ in range(num_tokens):
        await runner.run(lambda engine: engine.truncate(cache, 0))
        began_s = asyncio.get_running_loop().time()
        await runner.run(lambda engine: engine.extend([Chunk(cache, [1], 1)]))
        times_s.append(asyncio.get_running_loop().time() - began_s)
        await asyncio.sleep(pause_s)
    return times_s


def test_an_engine_of_a_hot_phone_drafts_more_slowly_minute_after_minute():
    engine = ShapedEngine(ListEngine(), COST, Heat.ON)
    assert isinstance(engine, Timed)
    times_s = virtual_time.run(drafted_s(engine, 8000))
    full_speed_s = COST.step_s([Work(0, 1)])
    assert times_s[0] == pytest.approx(full_speed_s)
    assert times_s[4000] > 1.5 * full_speed_s
    assert times_s[7999] > times_s[4000]
    assert engine.phone.status == "serious"


def test_pauses_keep_it_cool_and_fast():
    engine = ShapedEngine(ListEngine(), COST, Heat.ON)
    times_s = virtual_time.run(drafted_s(engine, 6000, pause_s=0.1))
    assert max(times_s) == pytest.approx(COST.step_s([Work(0, 1)]))


def test_two_runs_are_the_same_to_the_last_digit():
    runs = [virtual_time.run(drafted_s(ShapedEngine(ListEngine(), COST, Heat.ON), 3000, 0.001)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_without_heat_the_thousandth_step_takes_as_long_as_the_first():
    times_s = virtual_time.run(drafted_s(ShapedEngine(ListEngine(), COST), 8000))
    assert max(times_s) == pytest.approx(min(times_s)) == pytest.approx(COST.step_s([Work(0, 1)]))


def test_a_phone_that_begins_hot_is_as_slow_as_it_gets():
    engine = ShapedEngine(ListEngine(), COST, Heat.HOT)
    times_s = virtual_time.run(drafted_s(engine, 3000))
    assert times_s[0] > 2 * COST.step_s([Work(0, 1)])
    assert times_s[-1] == pytest.approx(times_s[0], rel=0.03)


def test_heat_of_a_phone_without_figures_of_it_is_refused_by_name():
    heat = {attribute: None for attribute, key in figures.keys(PhoneProfile).items() if key.name.startswith("heat.")}
    phone = dataclasses.replace(PHONE, **heat)
    assert phone.heat is None
    with pytest.raises(ConfigurationError, match="the profile apple-a19-pro has no figures of it"):
        ShapedEngine(ListEngine(), PhoneCost(phone, COST.model), Heat.ON)
    assert ShapedEngine(ListEngine(), PhoneCost(phone, COST.model)).phone.status is None


def test_a_cloud_machine_has_no_gauges():
    engine = ShapedEngine(ListEngine(), CloudCost(profiles.cloud("mi300x"), COST.model))
    engine.work_begins(1.0)
    assert engine.phone is None
