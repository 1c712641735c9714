"""Places and the queue: who is next, who is refused with what, and that nothing is lost with who goes away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafting.share import Share
from device_agent.events import Reason
from device_agent.tasks.places import STARVED_S, Places
from device_agent.tasks.promises import Promises
from speculation.errors import CapacityError
from speculation.shaping import virtual_time


def places(num_places=1, num_waiting=9):
    return Places(num_places, num_waiting, 1.5, Promises(lambda: None))


async def use(place, order, name, for_s=1.0):
    told = []
    async with place.had(told.append):
        order.append(name)
        await asyncio.sleep(for_s)
    return told


def served(*asked):
    """The order in which answers get the one place: (name, priority, deadline) each, all asked for at once."""

    async def work():
        made, order = places(), []
        async with asyncio.TaskGroup() as tasks:
            for name, priority, ends_s in asked:
                tasks.create_task(use(made.ask(Share(priority, ends_s=ends_s)), order, name))
        assert (made.num_taken, made.num_waiting) == (0, 0)
        return order

    return virtual_time.run(work())


def test_the_next_place_goes_by_priority_then_deadline_then_order():
    asked = [("first", 0, None), ("b", 0, None), ("c", 0, 90.0), ("d", 0, 80.0), ("e", 1, None), ("f", 0, None)]
    assert served(*asked) == ["first", "e", "d", "c", "b", "f"]


def test_who_waited_too_long_goes_before_any_priority():
    async def work():
        made, order = places(), []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(use(made.ask(Share()), order, "first", STARVED_S - 1))
            tasks.create_task(use(made.ask(Share(-5)), order, "low"))
            for number in range(4):
                tasks.create_task(use(made.ask(Share(1)), order, f"high {number}"))
        return order

    assert virtual_time.run(work()) == ["first", "high 0", "low", "high 1", "high 2", "high 3"]


def test_who_waits_is_told_so_and_how_long_it_was():
    async def work():
        made, order = places(), []
        first, second = made.ask(Share()), made.ask(Share())
        assert (first.is_queued, second.is_queued) == (False, True)
        async with asyncio.TaskGroup() as tasks:
            told = [tasks.create_task(use(place, order, "", 2.0)) for place in (first, second)]
        assert [task.result() for task in told] == [[], [Reason.QUEUED, Reason.STARTED]]
        assert (first.queued_s, second.queued_s) == (0.0, 2.0)

    virtual_time.run(work())


def test_where_the_queue_is_full_too_the_refusal_says_what_there_is_and_when_to_come_again():
    async def work():
        made = places(2, 1)
        for _ in range(3):
            made.ask(Share())
        with pytest.raises(
            CapacityError, match=r"2 answers .* already, and 1 wait, as many as may .*; one of them has to end"
        ) as full:
            made.ask(Share(9))
        assert full.value.retry_after_s == 1.5

    virtual_time.run(work())


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_nobody_more_than_may_has_a_place_and_no_place_is_idle_while_somebody_waits(doings):
    async def work():
        made, asked = places(2, 3), []
        for number, is_asking in doings:
            if is_asking:
                try:
                    asked.append(made.ask(Share(number)))
                except CapacityError:
                    assert (made.num_taken, made.num_waiting) == (2, 3)
            elif asked:
                place = asked.pop(number % len(asked))
                place.leave()
                place.leave()
            assert made.num_taken == min(2, len(asked))
            assert made.num_waiting == len(asked) - made.num_taken
            assert sum(not place.is_queued for place in asked) == made.num_taken

    virtual_time.run(work())


async def test_who_is_cancelled_while_it_waits_leaves_the_queue():
    made, order = places(), []
    made.ask(Share())
    waiting = made.ask(Share())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(use(waiting, order, "never"))
        await asyncio.sleep(0)
        task.cancel()
    assert (made.num_waiting, order) == (0, [])
