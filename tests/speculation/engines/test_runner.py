"""The one owner of an engine."""

import asyncio
import threading

import pytest

from speculation.engines.base import Chunk
from speculation.engines.handover import when_computing
from speculation.engines.random import RandomEngine
from speculation.engines.runner import HAND_OVER_S, EngineRunner, JobThread, emulated_start_s
from speculation.errors import CapacityError
from speculation.shaping import virtual_time


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


async def test_jobs_in_a_row_take_at_least_their_emulated_times_together():
    loop, runner = asyncio.get_running_loop(), EngineRunner.on_own_thread(ChargedEngine(16, 8, seed=0), "test")
    began = loop.time()
    try:
        for _ in range(5):
            await runner.run(lambda engine: engine.description)
    finally:
        runner.shutdown()
    assert loop.time() - began >= 0.099


def test_a_job_right_behind_another_began_when_that_was_over_and_a_later_one_when_it_came():
    assert emulated_start_s(7.0 + HAND_OVER_S / 2, free_at_s=7.0) == 7.0
    assert emulated_start_s(7.0 + HAND_OVER_S * 2, free_at_s=7.0) == 7.0 + HAND_OVER_S * 2


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


def on_virtual_clock(test):
    """Runs a coroutine function as a test whose clock jumps."""

    def run():
        virtual_time.run(test())

    run.__name__ = test.__name__
    return run


def now_s():
    return asyncio.get_running_loop().time()


@on_virtual_clock
async def test_emulated_time_is_cut_short_where_its_work_has_become_useless():
    runner, abandon = EngineRunner(ChargedEngine(16, 8, seed=0)), asyncio.Event()
    asyncio.get_running_loop().call_later(0.005, abandon.set)
    assert await runner.run(lambda engine: engine.open(), abandon) is not None
    assert now_s() == 0.005
    await runner.run(lambda engine: engine.open())
    assert now_s() == 0.025


@on_virtual_clock
async def test_an_event_that_is_never_set_cuts_nothing_short_and_one_set_before_cuts_all():
    runner, abandon = EngineRunner(ChargedEngine(16, 8, seed=0)), asyncio.Event()
    await runner.run(lambda engine: engine.open(), abandon)
    assert now_s() == 0.02
    abandon.set()
    await runner.run(lambda engine: engine.open(), abandon)
    assert now_s() == 0.02


@on_virtual_clock
async def test_a_job_that_waits_for_its_turn_does_not_begin_in_the_emulated_time_of_another():
    runner, abandon, began = EngineRunner(ChargedEngine(16, 8, seed=0)), asyncio.Event(), []
    asyncio.get_running_loop().call_later(0.03, abandon.set)
    jobs = [runner.run(lambda _: began.append(now_s()), abandon) for _ in range(3)]
    await asyncio.gather(*jobs)
    assert began == [0.0, 0.02, 0.03]
    assert now_s() == 0.03


@on_virtual_clock
async def test_nobody_pays_for_the_emulated_time_of_a_caller_who_gave_up():
    runner = EngineRunner(ChargedEngine(16, 8, seed=0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.004):
            await runner.run(lambda engine: engine.open())
    await runner.run(lambda engine: engine.open())
    assert now_s() == 0.024


class OnceChargedEngine(RandomEngine):
    """Charges an emulated hour for what was opened since the last look."""

    charge_s = 0.0

    def open(self):
        self.charge_s += 3600
        return super().open()

    def take_charge_s(self):
        charge_s, self.charge_s = self.charge_s, 0.0
        return charge_s


async def test_a_job_on_a_thread_does_not_pay_for_one_whose_caller_gave_up():
    runner = EngineRunner.on_own_thread(OnceChargedEngine(16, 8, seed=0), "test")
    started, release = threading.Event(), threading.Event()
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def slow(engine):
        started.set()
        release.wait(5)
        return engine.open()

    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(runner.run(slow))
            await asyncio.to_thread(started.wait, 5)
            waiting.cancel()
        release.set()
        async with asyncio.timeout(5):
            await runner.run(lambda _: None)
    finally:
        release.set()
        runner.shutdown()
    assert waiting.cancelled()
    assert complaints == []


async def test_a_thread_tells_errors_and_goes_on():
    thread = JobThread("test")
    try:
        with pytest.raises(ZeroDivisionError):
            await thread.submit(lambda: 1 // 0)
        assert await thread.submit(lambda: 7) == 7
    finally:
        thread.shutdown()


async def test_a_thread_that_was_shut_down_has_done_its_jobs_and_refuses_more():
    thread, done = JobThread("test"), []
    futures = [thread.submit(lambda n=n: done.append(n)) for n in range(3)]
    thread.shutdown()
    thread.shutdown()
    assert done == [0, 1, 2]
    await asyncio.gather(*futures)
    with pytest.raises(RuntimeError, match="shut down"):
        thread.submit(lambda: None)


def test_a_thread_outlives_a_loop_that_was_closed_under_its_job():
    thread, release = JobThread("test"), threading.Event()

    async def leave():
        thread.submit(lambda: release.wait(5))

    async def ask():
        return await thread.submit(lambda: 7)

    try:
        asyncio.run(leave())
        release.set()
        assert asyncio.run(ask()) == 7
    finally:
        release.set()
        thread.shutdown()


def test_a_thread_ends_with_its_owner():
    thread = JobThread("test")
    worker = thread._thread
    del thread
    worker.join(5)
    assert not worker.is_alive()


def counting(most, seen):
    """Jobs that count, and what asks for the next until there were ``most``; ``seen`` notes who asks."""

    def job(_):
        seen.append(("job", threading.current_thread()))
        return len(seen)

    def follow(result):
        assert result == len(seen)
        seen.append(("follow", threading.current_thread()))
        return job if len(seen) < 2 * most else None

    return job, follow


async def test_what_follows_runs_on_the_engines_thread_before_any_other_job():
    runner, seen = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test"), []
    job, follow = counting(3, seen)
    try:
        result, other = await asyncio.gather(runner.run(job, follow=follow), runner.run(lambda _: len(seen)))
    finally:
        runner.shutdown()
    assert [what for what, _ in seen] == ["job", "follow"] * 3
    assert (result, other) == (5, 6)  # the last job's result
    assert len({thread for _, thread in seen}) == 1
    assert {thread for _, thread in seen}.isdisjoint({threading.main_thread()})


async def test_nothing_follows_inline_or_behind_emulated_time_or_where_the_loop_shall_have_its_turn():
    seen = []
    job, follow = counting(3, seen)
    await EngineRunner(RandomEngine(16, 8, seed=0)).run(job, follow=follow)
    charged = EngineRunner.on_own_thread(ChargedEngine(16, 8, seed=0), "test")
    patient = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test", may_follow=False)
    for runner in (charged, patient):
        try:
            await runner.run(job, follow=follow)
        finally:
            runner.shutdown()
    assert [what for what, _ in seen] == ["job"] * 3


async def test_a_machine_that_is_emulated_from_now_on_is_not_followed_any_more():
    engine = ChargedEngine(16, 8, seed=0)
    charges_s = [None, None, 0.02]
    engine.take_charge_s = lambda: charges_s.pop(0)
    runner, seen = EngineRunner.on_own_thread(engine, "test"), []
    job, follow = counting(9, seen)
    try:
        await runner.run(job, follow=follow)
    finally:
        runner.shutdown()
    assert [what for what, _ in seen] == ["job", "follow", "job", "follow", "job"]
    assert runner.is_charged


async def test_an_error_of_what_follows_reaches_the_caller():
    runner = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test")

    def follow(_):
        raise LookupError

    try:
        with pytest.raises(LookupError):
            await runner.run(lambda _: 1, follow=follow)
        assert await runner.run(lambda _: 2) == 2
    finally:
        runner.shutdown()


async def test_what_waits_for_computing_is_done_before_anything_follows_a_job_that_never_computes():
    runner, seen = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test"), []
    jobs = [lambda _: when_computing(lambda: seen.append("done")), lambda _: seen.append("second")]
    try:
        await runner.run(jobs[0], follow=lambda _: None if len(jobs) < 2 else jobs.pop())
    finally:
        runner.shutdown()
    assert seen == ["done", "second"]
