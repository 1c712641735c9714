import asyncio

import pytest

from speculation.shaping import virtual_time


def test_a_nap_takes_exactly_as_long_as_it_says():
    async def nap() -> float:
        await asyncio.sleep(0.1)
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(nap()) == 3600.1


def test_timers_fire_in_the_order_of_their_times():
    async def race() -> list[tuple[str, float]]:
        finished: list[tuple[str, float]] = []

        async def nap(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            finished.append((name, asyncio.get_running_loop().time()))

        async with asyncio.TaskGroup() as naps:
            naps.create_task(nap("slow", 2.0))
            naps.create_task(nap("fast", 1.0))
        return finished

    assert virtual_time.run(race()) == [("fast", 1.0), ("slow", 2.0)]


def test_timeouts_work_on_the_virtual_clock():
    async def impatient() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(impatient()) == 5


def test_waiting_for_what_never_comes_is_an_error_and_no_hang():
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(virtual_time.StalledError):
        virtual_time.run(wait_for_ever())


def test_what_goes_to_the_loops_own_threads_is_computed_at_once():
    async def compute() -> tuple[int, float]:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(sum, [1, 2]), asyncio.get_running_loop().time()

    assert virtual_time.run(compute()) == (3, 0.0)
