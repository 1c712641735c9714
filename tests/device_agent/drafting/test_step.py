"""Draft steps of several streams: one forward for all, and nobody pays for a neighbour that goes away or fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from device_agent.drafting.caches import Caches
from device_agent.drafting.step import DraftSteps, Step
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, EngineError
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import GREEDY, Emulated, Plain, Watched, Writer, fresh, fresh_chain, now_s, steps_on

PROMPTS = [[0], [1, 2], [2, 2, 1], [0, 1, 0, 1]]


def chosen(prompt, count):
    return [proposal.token_id for proposal in fresh_chain(prompt, count)]


async def later(delay_s, work):
    """The work's result and when it was there."""
    await asyncio.sleep(delay_s)
    return await work, now_s()


def test_streams_that_draft_at_once_take_the_time_of_one():
    async def work():
        engine = Emulated()
        steps = steps_on(engine)
        async with asyncio.TaskGroup() as tasks:
            writing = [tasks.create_task(Writer(steps, prompt).write(10)) for prompt in PROMPTS]
        assert [task.result() for task in writing] == [chosen(prompt, 10) for prompt in PROMPTS]
        return now_s(), len(engine.forwards)

    # The first to come starts alone; the others are one step behind it.
    assert virtual_time.run(work()) == (11, 11)


class ByTurns(Emulated):
    """Its forwards take one of these times after the other."""

    def __init__(self, *steps_s: float) -> None:
        super().__init__()
        self._steps_s = iter(steps_s)

    def extend(self, chunks):
        self._step_s = next(self._steps_s)
        return super().extend(chunks)


def test_one_step_that_took_long_is_not_what_a_step_takes():
    async def work():
        steps = steps_on(ByTurns(1.0, 1.25, 1.0, 3.0, 1.25, *[2.0] * 8))
        writer, seen_s = Writer(steps, [0]), []
        for _ in range(13):
            await writer.write(1)
            seen_s.append(steps.step_s)
        return seen_s

    seen_s = virtual_time.run(work())
    assert seen_s[:5] == [1.0, 1.0, 1.0, 1.0, 1.25]
    assert seen_s[-1] == 2.0


def test_steps_that_share_a_forward_get_as_many_choices_as_each_asked_for():
    async def work():
        engine = Emulated(vocabulary_size=9)
        steps, feeds = steps_on(engine), [Caches(1).feeds(prompt, [[]]) for prompt in PROMPTS]
        asked = [Step(its, GREEDY, count) for count, its in enumerate(feeds, 1)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(steps.run(step)) for step in asked]
        assert [len(chunks) for chunks in engine.forwards] == [1, len(PROMPTS) - 1]
        told = [fresh(tuple(prompt), 9, num_choices=count) for count, prompt in enumerate(PROMPTS, 1)]
        assert [task.result() for task in running] == [[[proposal]] for proposal in told]
        assert [len(proposal.token_ids) for proposal in told] == list(range(1, len(PROMPTS) + 1))

    virtual_time.run(work())


def test_who_comes_while_a_step_runs_joins_the_next():
    async def work():
        engine = Emulated()
        steps = steps_on(engine)
        delays_s = [0, 0.2, 0.5, 0.9]
        async with asyncio.TaskGroup() as tasks:
            works = zip(delays_s, PROMPTS, strict=True)
            running = [tasks.create_task(later(delay_s, Writer(steps, prompt).extend([]))) for delay_s, prompt in works]
        assert [task.result() for task in running] == [
            ([[fresh(tuple(prompt))]], 1 if delay_s == 0 else 2) for delay_s, prompt in zip(delays_s, PROMPTS, strict=True)
        ]
        assert [len(chunks) for chunks in engine.forwards] == [1, 3]

    virtual_time.run(work())


async def three(steps, cancel, at_s):
    """Three streams of which the first runs alone from 0 to 1 s, the others together until 2 s; one of them is cancelled."""
    writers = [Writer(steps, prompt, 2) for prompt in PROMPTS[:3]]
    tasks = [asyncio.create_task(writer.extend([])) for writer in writers]  # noqa: TID251 (a task that fails ends nothing here)
    await asyncio.sleep(at_s)
    tasks[cancel].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[cancel]
    await writers[cancel].close()
    for number, prompt in enumerate(PROMPTS[:3]):
        if number != cancel:
            assert await tasks[number] == [[fresh(tuple(prompt))]]
            assert await writers[number].extend([0]) == [[fresh((*prompt, 0))]]
            await writers[number].close()


@pytest.mark.parametrize("cancel", [0, 1, 2])
@pytest.mark.parametrize("at_s", [0.5, 1.5])
def test_a_stream_that_is_cancelled_leaves_the_others_their_results_and_no_cache_behind(cancel, at_s):
    if (cancel, at_s) == (0, 1.5):
        return  # done by then

    async def work():
        engine = Emulated()
        await three(steps_on(engine), cancel, at_s)
        assert not engine.contents

    virtual_time.run(work())


def test_a_leader_cancelled_before_its_job_could_begin_leaves_the_others_their_results():
    class SlowToClose(Emulated):
        def close(self, cache):
            super().close(cache)
            self._charge_s += 1.0

    async def work():
        steps = steps_on(SlowToClose())
        gone, first, *waiting = [Writer(steps, prompt) for prompt in PROMPTS]
        await gone.extend([])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.extend([]))
            leader, other = [tasks.create_task(writer.extend([])) for writer in waiting]
            await asyncio.sleep(0.5)
            tasks.create_task(gone.close())  # goes first when the running step ends, and keeps the engine for a while
            await asyncio.sleep(1)
            leader.cancel()
        assert other.result() == [[fresh(tuple(PROMPTS[3]))]]

    virtual_time.run(work())


async def test_a_leader_cancelled_while_the_engines_thread_computes_leaves_the_others_their_results():
    began, may_go_on = threading.Event(), threading.Event()

    class Gated(Watched):
        """Waits in its second forward."""

        def extend(self, chunks):
            if len(self.forwards) == 1:
                began.set()
                may_go_on.wait()
            return super().extend(chunks)

    engine = Gated()
    runner = EngineRunner.on_own_thread(engine, "draft-model")
    steps = DraftSteps(runner)
    writers = [Writer(steps, prompt) for prompt in PROMPTS]
    async with asyncio.TaskGroup() as tasks:
        _, leader, *others = [tasks.create_task(writer.extend([])) for writer in writers]
        while not began.is_set():  # noqa: ASYNC110 (set by a thread)
            await asyncio.sleep(0)
        leader.cancel()
        for _ in range(10):  # the others learn of it while the thread still computes
            await asyncio.sleep(0)
        may_go_on.set()
    assert [task.result() for task in others] == [[[fresh(tuple(prompt))]] for prompt in PROMPTS[2:]]
    assert [len(chunks) for chunks in engine.forwards] == [1, 3]
    for writer in writers:
        await writer.close()
    assert not engine.contents
    runner.shutdown()


@pytest.mark.parametrize("failure", [EngineError("the runtime is broken"), RuntimeError("whatever")])
def test_an_engine_that_raises_is_told_to_every_stream_of_the_step_and_the_next_one_works(failure):
    async def work():
        engine = Emulated()
        steps = steps_on(engine)
        first, *others = [Writer(steps, prompt) for prompt in PROMPTS]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(first.extend([]))
            await asyncio.sleep(0.5)
            engine.failure = failure
            results = await asyncio.gather(*(other.extend([]) for other in others), return_exceptions=True)
            assert results == [failure] * len(others)
        assert running.result() == [[fresh(tuple(PROMPTS[0]))]]
        engine.failure = None
        assert await Writer(steps, [1, 1]).extend([]) == [[fresh((1, 1))]]
        for writer in (first, *others):
            await writer.close()

    virtual_time.run(work())


def test_a_stream_that_gets_no_cache_fails_alone():
    async def work():
        engine = Emulated(num_slots=3)
        steps = steps_on(engine)
        writers = [Writer(steps, prompt) for prompt in PROMPTS]
        results = await asyncio.gather(*(writer.extend([]) for writer in writers), return_exceptions=True)
        assert results[:3] == [[[fresh(tuple(prompt))]] for prompt in PROMPTS[:3]]
        assert isinstance(results[3], CapacityError)
        await writers[0].close()
        assert await Writer(steps, [1, 1]).extend([]) == [[fresh((1, 1))]]

    virtual_time.run(work())


def test_a_copy_that_is_refused_fails_its_stream_alone_and_gives_all_its_caches_back():
    async def work():
        engine = Emulated(num_slots=2)
        steps = steps_on(engine)
        greedy, modest = Writer(steps, PROMPTS[0], 3), Writer(steps, PROMPTS[1])
        await greedy.extend([1, 1])
        await modest.extend([])
        results = await asyncio.gather(greedy.extend([1, 1, 2], [1, 2]), modest.extend([0]), return_exceptions=True)
        assert isinstance(results[0], CapacityError)
        assert results[1] == [[fresh((*PROMPTS[1], 0))]]
        await greedy.close()
        await modest.close()
        assert not engine.contents

    virtual_time.run(work())


class Small(Emulated):
    """Has room for so many tokens over all of its caches."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def extend(self, chunks):
        held = sum(self.length(cache) for cache in self.contents) + sum(len(chunk.token_ids) for chunk in chunks)
        if held > self.room:
            raise CapacityError(f"{held} tokens, and room for {self.room}")
        return super().extend(chunks)


def test_where_memory_runs_out_the_stream_that_holds_most_fails_alone():
    async def work():
        engine = Small(room=sum(map(len, PROMPTS)) - 1)
        steps = steps_on(engine)
        blocker, *writers = [Writer(steps, prompt) for prompt in ([0], *PROMPTS)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(blocker.extend([]))
            await asyncio.sleep(0.5)
            results = await asyncio.gather(*(writer.extend([]) for writer in writers), return_exceptions=True)
        assert results[:3] == [[[fresh(tuple(prompt))]] for prompt in PROMPTS[:3]]
        assert isinstance(results[3], CapacityError)
        await blocker.close()
        await writers[3].close()
        assert await writers[0].extend([1]) == [[fresh((*PROMPTS[0], 1))]]

    virtual_time.run(work())


def test_where_nobody_fits_everybody_is_told():
    async def work():
        steps = steps_on(Small(room=0))
        with pytest.raises(CapacityError, match="room for 0"):
            await Writer(steps, [0]).extend([])

    virtual_time.run(work())


@pytest.mark.parametrize(("who", "ends_s"), [([1], 2), ([2], 2), ([1, 2], 1.5)])
def test_a_step_that_is_given_up_ends_early_only_where_all_its_streams_gave_up(who, ends_s):
    async def work():
        steps = steps_on(Emulated())
        writers = [Writer(steps, prompt) for prompt in PROMPTS[:3]]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(later(0, writer.extend([]))) for writer in writers]
            await asyncio.sleep(1.5)
            for number in who:
                writers[number].step.give_up()
        assert [task.result()[1] for task in running] == [1, ends_s, ends_s]

    virtual_time.run(work())


def test_a_step_given_up_before_it_began_takes_no_emulated_time():
    async def work():
        steps = steps_on(Emulated())
        first, second = Writer(steps, [0]), Writer(steps, [1])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.extend([]))
            running = tasks.create_task(later(0, second.extend([])))
            await asyncio.sleep(0.5)
            second.step.give_up()
        assert running.result()[1] == 1

    virtual_time.run(work())


def test_an_engine_that_cannot_fork_is_known_as_such():
    assert steps_on(Watched()).can_fork
    assert not steps_on(Plain(Watched())).can_fork


def test_closing_gives_all_caches_back_also_twice_and_where_none_was_opened():
    async def work():
        engine = Watched()
        steps = steps_on(engine)
        await Writer(steps, [0, 1], 3).close()
        writer = Writer(steps, [0, 1], 3)
        await writer.extend([2], [1])
        assert len(engine.contents) == 2
        await writer.close()
        await writer.close()
        assert not engine.contents

    virtual_time.run(work())
