"""Streams of different rank on one queue: steps taken back, texts cut, streams held, and the tokens of a fresh cache."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.drafting.share import Share
from device_agent.drafting.step import DraftSteps, Step
from device_agent.drafting.turns import SLOWDOWN, Order
from speculation.engines.runner import EngineRunner
from speculation.shaping import profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.models import parse_model
from tests.device_agent.drafting.doubles import GREEDY, Emulated, Watched, Writer, fresh_chain, now_s, steps_on

PHONE = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4"))


class Stream(Writer):
    """One with a share; it writes along the first choice."""

    def __init__(self, steps, prompt, share=None, limit=1):
        super().__init__(steps, prompt, limit)
        self.share = share or Share()

    async def extend(self, *paths, **_):
        self.feeds = self.caches.feeds(self.final, [list(path) for path in paths])
        self.step = Step(self.feeds, GREEDY, 4, share=self.share)
        proposals = await self.steps.run(self.step)
        self.share.wrote(max(map(len, paths)) + 1, now_s())
        return proposals

    async def timed(self, count=1):
        began_s = now_s()
        return await self.write(count), now_s() - began_s


def told(prompt, count):
    return [proposal.token_id for proposal in fresh_chain(prompt, count)]


def phone_steps(order=Order.FAIR, context_length=1200):
    return DraftSteps(EngineRunner(ShapedEngine(Watched(context_length=context_length), PHONE)), order)


@pytest.mark.parametrize("offset", [0.1, 0.4, 0.7])
def test_a_first_word_of_higher_priority_does_not_wait_for_the_step_that_runs_and_who_lost_it_loses_nothing_else(offset):
    async def work():
        steps = steps_on(Emulated(step_s=1.0))
        low, high = Stream(steps, [0, 1]), Stream(steps, [2], Share(priority=1))
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(low.timed(4))
            await asyncio.sleep(2 + offset)
            first, took_s = await high.timed()
        assert (first, took_s) == (told([2], 1), 1.0)
        assert writing.result() == (told([0, 1], 4), 4 + offset)  # the two shared the step that began anew
        assert steps.num_preempted == 1
        return steps.step_s

    assert virtual_time.run(work()) == 1.0  # a step cut short is none that counts


def test_a_step_is_taken_back_once_at_most_and_not_for_its_equals_nor_for_what_is_nearly_over():
    async def work():
        steps = steps_on(Emulated(step_s=1.0))
        low, high, higher = Stream(steps, [0, 1]), Stream(steps, [2], Share(1)), Stream(steps, [1], Share(2))
        equal, late = Stream(steps, [1, 1]), Stream(steps, [2, 2], Share(3))
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(low.timed(4))
            await asyncio.sleep(1.5)
            joining = [tasks.create_task(equal.timed()), tasks.create_task(high.timed())]
            await asyncio.sleep(0.5)
            hasty = tasks.create_task(higher.timed())
            await asyncio.sleep(1.47)  # at 3.47 the step that began at 2.5 has 0.03 s left
            last = tasks.create_task(late.timed())
        assert [task.result()[1] for task in joining] == [1.0, 1.0]
        assert hasty.result()[1] == 1.5
        assert last.result()[1] == pytest.approx(1.03)
        assert writing.result()[0] == told([0, 1], 4)
        assert steps.num_preempted == 1

    virtual_time.run(work())


def test_a_first_word_that_was_written_alone_is_told_before_the_others_take_their_step():
    async def work():
        steps = steps_on(Emulated(step_s=0.05))
        low, equal, high = Stream(steps, [0, 1]), Stream(steps, [1, 1]), Stream(steps, [2], Share(1))
        async with asyncio.TaskGroup() as tasks:
            writing = [tasks.create_task(each.timed(4)) for each in (low, equal)]
            await asyncio.sleep(0.12)
            assert (await high.timed())[1] == pytest.approx(0.05)
        return [task.result()[1] for task in writing]

    # The first of the two begins alone, loses 20 ms that are taken back, and makes way for 50.
    assert virtual_time.run(work()) == pytest.approx([0.27, 0.32])


def test_streams_that_shared_a_step_share_the_next_whoever_led_it():
    async def work():
        engine = Emulated(step_s=1.0)
        steps = steps_on(engine)
        async with asyncio.TaskGroup() as tasks:
            for prompt in ([0], [1, 2], [2, 2, 1]):
                tasks.create_task(Stream(steps, prompt).write(6))
        return [len(forward) for forward in engine.forwards]

    assert virtual_time.run(work()) == [1, 3, 3, 3, 3, 3, 2]


def test_once_it_writes_a_higher_priority_takes_no_step_back():
    async def work():
        steps = steps_on(Emulated(step_s=1.0))
        low, high = Stream(steps, [0, 1]), Stream(steps, [2], Share(1))
        await high.timed()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(low.timed(3))
            await asyncio.sleep(0.5)
            assert (await high.extend([0]), now_s())[1] == 3.0
        assert steps.num_preempted == 0

    virtual_time.run(work())


def test_branches_that_were_copied_for_a_step_that_is_taken_back_are_right_when_it_runs_again():
    async def work():
        engine = Emulated(step_s=1.0)
        steps = steps_on(engine)
        low, high = Stream(steps, [0, 1], limit=3), Stream(steps, [2], Share(1))
        await low.extend([])
        async with asyncio.TaskGroup() as tasks:
            again = tasks.create_task(low.extend([2], [1], [0]))
            await asyncio.sleep(0.5)
            await high.extend([])
        assert steps.num_preempted == 1
        assert [chain[0] for chain in again.result()] == [fresh_chain([0, 1, token], 1)[0] for token in (2, 1, 0)]
        for stream in (low, high):
            await stream.close()
        assert not engine.contents

    virtual_time.run(work())


def test_a_stream_that_is_cancelled_when_its_step_was_taken_back_leaves_no_step_and_no_cache_behind():
    async def work():
        engine = Emulated(step_s=1.0)
        steps = steps_on(engine)
        low, high = Stream(steps, [0, 1]), Stream(steps, [2], Share(1))
        leaving = asyncio.get_running_loop().create_task(low.extend([]))
        await asyncio.sleep(0.5)
        staying = asyncio.get_running_loop().create_task(high.extend([]))
        await asyncio.sleep(0.6)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        await low.close()
        assert await staying == [fresh_chain([2], 1)]
        await high.extend([0])
        assert len(engine.forwards[-1]) == 1
        await high.close()
        assert not engine.contents

    virtual_time.run(work())


def test_a_step_that_is_taken_back_is_none_by_which_steps_are_told():
    async def work():
        steps = steps_on(Emulated(step_s=1.0))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Stream(steps, [0, 1]).timed(2))
            await asyncio.sleep(1.5)
            tasks.create_task(Stream(steps, [2], Share(1)).timed())
            await asyncio.sleep(0.1)
            assert (steps.num_preempted, steps.step_s) == (1, 1.0)

    virtual_time.run(work())


@pytest.mark.parametrize("after_s", [0.02, 0.03, 0.04, 0.05])  # the two take turns in leading the steps that they share
def test_nobody_reads_on_for_a_stream_that_is_cancelled_in_the_middle_of_its_text(after_s):
    async def work():
        steps = phone_steps()
        other, reader = Stream(steps, [2, 1] * 250), Stream(steps, [0, 1] * 250)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(other.timed(2))
            await asyncio.sleep(0.001)
            reading = tasks.create_task(reader.timed())
            await asyncio.sleep(after_s)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            await reader.close()
        assert writing.result()[0] == told([2, 1] * 250, 2)
        assert steps._waiting == []

    virtual_time.run(work())


def test_a_long_text_alone_takes_the_time_it_takes_whole_and_a_newcomer_waits_a_step_at_most():
    async def alone(order):
        stream = Stream(phone_steps(order), [0, 1] * 250)
        return await stream.timed()

    cut, cut_s = virtual_time.run(alone(Order.FAIR))
    whole, whole_s = virtual_time.run(alone(Order.FIRST_COME))
    assert cut == whole
    assert cut_s == pytest.approx(whole_s)

    async def beside():
        steps = phone_steps()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(Stream(steps, [0, 1] * 250).timed())
            await asyncio.sleep(0.02)
            first, took_s = await Stream(steps, [2]).timed()
        assert first == told([2], 1)
        assert reading.result()[0] == whole
        return took_s, reading.result()[1]

    took_s, read_s = virtual_time.run(beside())
    step_s = PHONE.step_s([Work(0, 1)])
    assert took_s <= 2 * (1 + 2 * SLOWDOWN) * step_s
    assert read_s <= whole_s + 2 * step_s


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=150)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(prompts, st.integers(-2, 2), st.integers(0, 60), st.integers(1, 4)), min_size=2, max_size=4),
    st.data(),
)
def test_whatever_is_cut_taken_back_or_held_the_tokens_are_those_of_a_fresh_cache(streams, data):
    """Prompts of several lengths and priorities that come at any time, some held in between."""

    async def work():
        engine = Watched()
        steps = DraftSteps(EngineRunner(ShapedEngine(engine, PHONE)))
        made = [Stream(steps, prompt, Share(priority)) for prompt, priority, _, _ in streams]

        async def write(stream, after_ms, count):
            await asyncio.sleep(after_ms / 1000)
            return await stream.write(count)

        async with asyncio.TaskGroup() as tasks:
            writing = [
                tasks.create_task(write(stream, after_ms, count))
                for stream, (_, _, after_ms, count) in zip(made, streams, strict=True)
            ]
            held = made[data.draw(st.integers(0, len(made) - 1))]
            await asyncio.sleep(data.draw(st.integers(0, 60)) / 1000)
            held.share.hold(now_s())
            await asyncio.sleep(data.draw(st.integers(0, 60)) / 1000)
            held.share.release(now_s())
        for (prompt, _, _, count), task in zip(streams, writing, strict=True):
            assert task.result() == told(prompt, count)
        for stream in made:
            await stream.close()
        assert not engine.contents

    virtual_time.run(work())


def test_a_held_stream_takes_no_step_and_the_others_go_on_without_it():
    async def work():
        engine = Emulated(step_s=1.0)
        steps = steps_on(engine)
        held, other = Stream(steps, [0, 1]), Stream(steps, [2])
        held.share.hold(now_s())
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(held.timed())
            assert (await other.timed(3))[1] == 3.0
            assert all(len(chunks) == 1 for chunks in engine.forwards)
            await asyncio.sleep(2)
            held.share.release(now_s())
        assert waiting.result() == (told([0, 1], 1), 6.0)

    virtual_time.run(work())


def test_a_stream_whose_promised_pace_is_paused_is_not_behind_it_when_it_goes_on():
    share = Share(tokens_per_s=4.0)
    assert share.due_s(0.0) is None
    share.wrote(1, 10.0)
    assert share.due_s(10.0) == 10.25
    share.hold(11.0)
    share.release(16.0)
    assert share.due_s(16.0) == 15.25


def test_a_deadline_is_spread_over_the_tokens_that_are_left():
    share = Share(ends_s=20.0, max_tokens=10)
    assert share.due_s(10.0) == 11.0
    share.wrote(5, 10.0)
    assert share.due_s(10.0) == 12.0
    assert share.due_s(30.0) == 30.0
    assert not share.is_promised


async def test_on_a_real_engine_a_first_word_ends_the_steps_in_a_row_of_lower_ones():
    class Gated(Watched):
        """Tells the loop of its second forward, and waits there."""

        def extend(self, chunks):
            rows = super().extend(chunks)
            if len(self.forwards) == 2:
                loop.call_soon_threadsafe(in_a_row.set)
                while not high.step or high.step not in steps._waiting:
                    pass
            return rows

    loop, in_a_row = asyncio.get_running_loop(), asyncio.Event()
    engine = Gated()
    runner = EngineRunner.on_own_thread(engine, "draft-model")
    steps = DraftSteps(runner)
    low, high = Writer(steps, [0, 1]), Stream(steps, [2], Share(1))
    async with asyncio.TaskGroup() as tasks:
        burst = tasks.create_task(low.extend([], max_steps=8))
        await in_a_row.wait()
        first = tasks.create_task(high.extend([]))
    assert first.result() == [fresh_chain([2], 1)]
    assert len(burst.result()[0]) in (2, 3)  # the flag is read behind the forward that ran
    assert burst.result()[0] == fresh_chain([0, 1], len(burst.result()[0]))
    assert steps.num_preempted == 0
    for stream in (low, high):
        await stream.close()
    runner.shutdown()
