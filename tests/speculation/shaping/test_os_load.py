"""What the rest of a phone takes from its draft: worked out by hand, whatever the work is cut into, and tokens untouched."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.engines.base import Chunk, Forkable, Timed
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.errors import UnknownNameError
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.models import parse_model
from speculation.shaping.os_load import LOADS, QUIET, Interrupt, LoadedEngine, OsLoad, done_s, loaded, os_load
from tests.device_agent.drafting.doubles import Plain, Watched

HALF = OsLoad("half", "half the speed in the first half of every second", (Interrupt(1.0, 0.5, 0.5, is_regular=True),))
STOP = OsLoad("stop", "nothing at all for a fifth of every second", (Interrupt(1.0, 0.2, 1.0, is_regular=True),))
BOTH = OsLoad("both", "the two at once", (*HALF.interrupts, *STOP.interrupts))
PHONE = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4"))
loads = st.sampled_from([HALF, STOP, BOTH, *LOADS.values()])
times = st.floats(0, 1e4)


@pytest.mark.parametrize(
    ("load", "began_s", "work_s", "ends_s"),
    [
        (HALF, 0.0, 0.1, 0.2),  # all of it at half speed
        (HALF, 0.0, 0.25, 0.5),  # done just as the interrupt ends
        (HALF, 0.0, 0.5, 0.75),
        (HALF, 0.5, 0.5, 1.0),  # between two interrupts
        (HALF, 0.5, 0.75, 1.5),
        (STOP, 0.0, 0.1, 0.3),
        (STOP, 0.1, 0.8, 1.0),
        (BOTH, 0.0, 0.1, 0.4),  # 0.2 s nothing, then half the speed
        (OsLoad("ticks", "", (), 1000, 1e-4), 3.0, 0.9, 4.0),
        (LOADS[QUIET], 2.0, 0.5, 2.5),
    ],
)
def test_when_work_is_done(load, began_s, work_s, ends_s):
    assert done_s(load, 0, began_s, work_s) == pytest.approx(ends_s)


@given(loads, st.integers(0, 99), times, st.lists(st.floats(0, 0.1), min_size=1, max_size=5))
def test_work_ends_at_the_same_moment_however_it_is_cut(load, seed, began_s, pieces_s):
    now_s = began_s
    for piece_s in pieces_s:
        now_s = done_s(load, seed, now_s, piece_s)
    assert now_s == pytest.approx(done_s(load, seed, began_s, sum(pieces_s)), abs=1e-9)


@given(loads, st.integers(0, 99), times)
def test_in_the_long_run_what_is_left_is_about_the_mean_speed(load, seed, began_s):
    assert 100 * load.mean_speed / (done_s(load, seed, began_s, 100 * load.mean_speed) - began_s) == pytest.approx(
        load.mean_speed, rel=0.1
    )


def test_another_seed_brings_other_moments():
    one, other = ([done_s(LOADS["busy"], seed, at / 20, 0.02) for at in range(20)] for seed in (1, 2))
    assert one != other


def test_an_unknown_name_is_told_which_there_are():
    with pytest.raises(UnknownNameError, match="busy"):
        os_load("bussy")
    assert os_load("busy").title


def test_a_step_on_a_loaded_phone_takes_that_time_and_gives_the_same_logits():
    async def work(load):
        engine = loaded(ShapedEngine(RandomEngine(7, 64, 1), PHONE), load)
        runner = EngineRunner(engine)
        cache = await runner.run(lambda engine: engine.open())
        rows = [await runner.run(lambda engine: engine.extend([Chunk(cache, [1], 1)]).tolist()) for _ in range(20)]
        return rows, asyncio.get_running_loop().time()

    (quiet, quiet_s), (stopped, stopped_s) = virtual_time.run(work(LOADS[QUIET])), virtual_time.run(work(STOP))
    assert stopped == quiet
    assert stopped_s == pytest.approx(done_s(STOP, 0, 0.0, quiet_s))


def test_it_forks_exactly_where_the_inner_engine_does_and_is_told_when_work_begins():
    forks = LoadedEngine(ShapedEngine(Watched(), PHONE), STOP)
    assert isinstance(forks, Forkable)
    assert isinstance(forks, Timed)
    cache = forks.open()
    forks.extend([Chunk(cache, [1, 2], 0)])
    assert forks.length(forks.fork(cache, 1)) == 1
    assert not isinstance(LoadedEngine(ShapedEngine(Plain(Watched()), PHONE), STOP), Forkable)
