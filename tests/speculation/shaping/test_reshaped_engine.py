"""An engine whose machine becomes another one between two jobs."""

import asyncio
import dataclasses

import pytest

from speculation.engines.base import Chunk
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, ConfigurationError
from speculation.shaping import profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, PhoneCost, ShapedEngine, WhenFull
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from tests.speculation.shaping.test_shaped_engine import COST, NOTHING, ForkingEngine, ListEngine

MODEL = parse_model("0.9B:int4")
SLOW = PhoneCost(dataclasses.replace(profiles.phone("dimensity-9300"), name="slow", bandwidth_bytes_per_s=1e9), MODEL)
FAST = PhoneCost(profiles.phone("dimensity-9300"), MODEL)
HOT = PhoneCost(profiles.phone("apple-a19-pro"), MODEL)


def step_s(cost: PhoneCost) -> float:
    return cost.step_s([Work(0, 1)])


async def timed_step(runner: EngineRunner) -> float:
    """Seconds of one step of a fresh cache."""
    began_s = asyncio.get_running_loop().time()

    def step(engine):
        cache = engine.open()
        engine.extend([Chunk(cache, [1], 1)])
        engine.close(cache)

    await runner.run(step)
    return asyncio.get_running_loop().time() - began_s


def test_a_step_takes_the_time_of_the_machine_that_is_played_when_it_begins():
    async def work():
        engine = ShapedEngine(ListEngine(), FAST)
        runner = EngineRunner(engine)
        took_s = [await timed_step(runner)]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(timed_step(runner))
            await asyncio.sleep(step_s(FAST) / 2)
            engine.reshape(SLOW)
        took_s += [running.result(), await timed_step(runner)]
        engine.reshape(NOTHING)
        took_s.append(await timed_step(runner))
        engine.reshape(FAST)
        took_s.append(await timed_step(runner))
        return took_s

    assert virtual_time.run(work()) == pytest.approx([step_s(cost) for cost in (FAST, FAST, SLOW)] + [0, step_s(FAST)])


def test_nothing_is_charged_and_the_inner_engine_is_called_as_it_is_while_no_machine_is_played():
    async def work():
        engine = ShapedEngine(ListEngine(), NOTHING)
        runner = EngineRunner(engine)
        assert await timed_step(runner) == 0
        assert (engine.take_charge_s(), runner.is_charged) == (None, False)
        engine.reshape(FAST)
        assert not runner.is_charged
        await timed_step(runner)
        assert runner.is_charged

    virtual_time.run(work())


def test_a_machine_without_room_is_refused_and_nothing_changes():
    large = parse_model("7B:fp16")
    engine = ShapedEngine(ListEngine(), PhoneCost(profiles.phone("none"), large))
    with pytest.raises(CapacityError, match="7B:fp16 does not fit"):
        engine.reshape(PhoneCost(profiles.phone("apple-a17-pro"), large))
    engine.work_begins(1.0)
    assert engine.cost.phone.name == "none"


def test_a_context_that_was_shortened_to_fit_every_slot_must_fit_the_next_machine_too():
    model = parse_model("3.215B:fp16:layers=32,kv_heads=8,head_size=100")
    inner = ForkingEngine()
    inner.description = dataclasses.replace(ListEngine.description, context_length=4096)
    engine = ShapedEngine(inner, PhoneCost(COST.phone, model), when_full=WhenFull.SHORTEN)
    context = engine.description.context_length
    with pytest.raises(CapacityError, match=f"of {4 * context} tokens"):
        engine.reshape(PhoneCost(dataclasses.replace(COST.phone, memory_bytes=COST.phone.memory_bytes * 0.99), model))
    engine.reshape(PhoneCost(profiles.phone("none"), model))
    engine.work_begins(0.0)
    with pytest.raises(CapacityError, match=f"of {context} positions are left"):
        engine.extend([Chunk(engine.open(), [1] * (context + 1), 0)])


def test_what_no_longer_fits_the_smaller_phone_is_refused_at_the_next_step():
    model = parse_model("3.215B:fp16:layers=32,kv_heads=8,head_size=100")
    inner = ForkingEngine()
    inner.description = dataclasses.replace(ListEngine.description, context_length=8192)
    engine = ShapedEngine(inner, PhoneCost(profiles.phone("none"), model))
    cache, other = engine.open(), engine.open()
    engine.extend([Chunk(cache, [1] * 6000, 0), Chunk(other, [1] * 6000, 0)])
    with pytest.raises(CapacityError, match="of 8192 tokens"):
        engine.reshape(PhoneCost(COST.phone, model))
    roomier = dataclasses.replace(COST.phone, memory_bytes=COST.phone.memory_bytes * 1.05)
    engine.reshape(PhoneCost(roomier, model))
    engine.work_begins(0.0)
    with pytest.raises(CapacityError, match="of 12001 tokens"):
        engine.extend([Chunk(cache, [1], 1)])


def test_joules_count_on_over_a_change_and_tell_of_a_phone_that_has_no_figures_of_them():
    engine = ShapedEngine(ListEngine(), FAST)
    assert engine.phone is not None

    def step_j() -> float:
        before_j = engine.phone.joules
        engine.work_begins(1000.0 * (1 + before_j))
        engine.extend([Chunk(engine.open(), [1], 1)])
        return engine.phone.joules - before_j

    one_j = step_j()
    engine.reshape(SLOW)
    assert step_j() > one_j > 0  # the same bytes, and compute that is drawn for longer
    assert engine.phone.num_gaps == 0
    engine.reshape(NOTHING)
    assert step_j() == 0
    assert (engine.phone.num_gaps, engine.phone.has_energy) == (1, False)
    engine.reshape(FAST)
    assert step_j() == pytest.approx(one_j)
    assert engine.phone.num_gaps == 2


def test_heat_begins_anew_with_a_setting_and_stays_with_a_figure():
    engine = ShapedEngine(ListEngine(), HOT, Heat.HOT)
    engine.work_begins(0.0)
    hot = engine.phone.temperatures
    engine.reshape(dataclasses.replace(HOT, phone=dataclasses.replace(HOT.phone, bandwidth_bytes_per_s=9e9)))
    engine.work_begins(0.0)
    assert engine.phone.temperatures == hot
    engine.reshape(HOT, Heat.ON)
    engine.reshape(HOT)  # before any job has taken the other over
    engine.work_begins(0.0)
    assert engine.phone.temperatures.die_c < hot.die_c
    engine.reshape(HOT, Heat.OFF)
    engine.work_begins(0.0)
    assert (engine.phone.temperatures, engine.phone.status) == (None, None)


def test_heat_of_a_phone_without_figures_of_it_is_refused_and_nothing_changes():
    engine = ShapedEngine(ListEngine(), HOT)
    with pytest.raises(ConfigurationError, match="the profile none has no figures"):
        engine.reshape(NOTHING, Heat.ON)
    engine.work_begins(0.0)
    assert engine.cost is HOT


def test_a_cloud_machine_has_no_gauges_and_may_become_another_all_the_same():
    engine = ShapedEngine(ListEngine(), CloudCost(profiles.cloud("mi300x"), MODEL))
    engine.reshape(CloudCost(profiles.cloud("h100"), MODEL))
    engine.work_begins(0.0)
    assert (engine.phone, engine.cost.cloud.name) == (None, "h100")
