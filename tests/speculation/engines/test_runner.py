"""The one owner of an engine."""

import asyncio
import threading

import pytest

from speculation.engines.base import Chunk
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError


class ChargedEngine(RandomEngine):
    """Takes 20 emulated milliseconds a look."""

    def take_charge_s(self):
        return 0.02


async def test_jobs_run_in_order_on_one_thread_that_is_not_the_loops():
    runner = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test")
    order = []

    def job(number):
        order.append(number)
        return number, threading.current_thread()

    try:
        results = await asyncio.gather(*[runner.run(lambda _, n=n: job(n)) for n in range(5)])
    finally:
        runner.shutdown()
    assert order == [number for number, _ in results] == list(range(5))
    assert {thread for _, thread in results}.isdisjoint({threading.main_thread()})
    assert len({thread for _, thread in results}) == 1


async def test_an_error_reaches_the_caller_and_the_next_job_runs():
    runner = EngineRunner(RandomEngine(16, 8, seed=0))
    cache = await runner.run(lambda engine: engine.open())
    with pytest.raises(CapacityError):
        await runner.run(lambda engine: engine.extend([Chunk(cache, [1] * 9, 1)]))
    assert await runner.run(lambda engine: engine.length(cache)) == 0


async def test_a_job_takes_at_least_its_emulated_time():
    loop = asyncio.get_running_loop()
    began = loop.time()
    await EngineRunner(ChargedEngine(16, 8, seed=0)).run(lambda engine: engine.open())
    assert loop.time() - began >= 0.019


async def test_a_job_whose_caller_gave_up_still_ends_before_the_next():
    runner = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test")
    started, release, order = threading.Event(), threading.Event(), []

    def slow(engine):
        started.set()
        release.wait(5)
        order.append("slow")

    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(runner.run(slow))
            await asyncio.to_thread(started.wait, 5)
            waiting.cancel()
            following = tasks.create_task(runner.run(lambda _: order.append("next")))
            await asyncio.sleep(0)
            release.set()
            await following
    finally:
        release.set()
        runner.shutdown()
    assert order == ["slow", "next"]
