"""Several steps in one job: the same tokens as one at a time, and books that stay right whatever verdicts overtake them."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.drafting.linear import Ahead
from device_agent.drafting.step import DraftSteps
from speculation.engines.runner import EngineRunner
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import VOCABULARY, Emulated, Watched, Writer, fresh_chain, steps_on
from tests.device_agent.drafting.streams import PROMPT, Stream

tokens = st.integers(0, VOCABULARY - 1)


@settings(deadline=None)
@given(st.lists(tokens, min_size=1, max_size=4), st.integers(1, 8))
def test_several_steps_in_one_job_give_the_tokens_of_one_at_a_time(prompt, count):
    async def work():
        engine = Watched()
        (chain,) = await Writer(steps_on(engine), prompt).extend([], max_steps=count)
        assert chain == fresh_chain(prompt, count)
        assert engine.num_fed == len(prompt) + count - 1
        assert [proposal.token_id for proposal in chain] == await Writer(steps_on(Watched()), prompt).write(count)

    virtual_time.run(work())


@pytest.mark.parametrize("end", range(VOCABULARY))
def test_a_job_stops_at_an_end_token(end):
    async def work():
        chain = fresh_chain([0, 1], 8)
        told = [proposal.token_id for proposal in chain]
        count = told.index(end) + 1 if end in told else len(told)
        writer = Writer(steps_on(Watched()), [0, 1])
        assert await writer.extend([], max_steps=8, end_token_ids=[end]) == [chain[:count]]

    virtual_time.run(work())


def test_streams_of_one_job_may_take_different_numbers_of_steps():
    async def work():
        engine = Emulated()
        steps = steps_on(engine)
        first, long, short = Writer(steps, [2]), Writer(steps, [0]), Writer(steps, [1])
        results = await asyncio.gather(first.extend([]), long.extend([], max_steps=5), short.extend([], max_steps=2))
        assert results == [[fresh_chain([2], 1)], [fresh_chain([0], 5)], [fresh_chain([1], 2)]]
        assert [len(chunks) for chunks in engine.forwards] == [1, 2, 2, 1, 1, 1]

    virtual_time.run(work())


@settings(deadline=None)
@given(st.data(), st.integers(2, 8))
def test_verdicts_that_overtake_a_job_leave_the_cache_right_and_nothing_agreed_is_fed_twice(data, count):
    """The verdict takes a share of what the job drafts, and ends with one more token, which may agree or not."""

    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1])
        told = [proposal.token_id for proposal in fresh_chain([0, 1], count)]
        agreed = data.draw(st.integers(0, count - 1))
        final = [*told[:agreed], data.draw(tokens)]
        cuts = sorted(data.draw(st.sets(st.integers(1, len(final)))) | {0, len(final)})
        run = writer.steps.run

        async def overtaken(step):
            proposals = await run(step)
            for start, end in itertools.pairwise(cuts):
                writer.settle(final[start:end])
            return proposals

        writer.steps.run = overtaken
        await writer.extend([], max_steps=count)
        writer.steps.run = run
        fed = engine.num_fed
        assert await writer.extend([]) == [fresh_chain([0, 1, *final], 1)]
        missing = len(final) - next((i for i, (a, b) in enumerate(zip(final, told[:-1], strict=False)) if a != b), agreed)
        assert engine.num_fed - fed <= max(1, missing)

    virtual_time.run(work())


@pytest.mark.parametrize(("engine", "is_emulated"), [(Watched, False), (Emulated, True)])
def test_a_job_takes_several_steps_once_they_are_known_to_be_short_and_never_where_time_is_emulated(engine, is_emulated):
    async def work():
        writer = Writer(steps_on(engine()), [0, 1])
        assert writer.steps.burst == 1
        await writer.extend([])
        assert (writer.steps.burst > 1) is not is_emulated

    virtual_time.run(work())


class SlowHandOver(EngineRunner):
    """Half a second passes between the end of a job and its caller's next turn."""

    async def run(self, job, abandon=None):
        result = await super().run(job, abandon)
        await asyncio.sleep(0.5)
        return result


def test_a_slow_hand_over_between_threads_is_no_reason_for_a_job_of_one_step():
    async def work():
        steps = DraftSteps(SlowHandOver(Watched()))
        await Writer(steps, [0, 1]).extend([])
        assert steps.step_s == 0
        assert steps.burst > 1

    virtual_time.run(work())


class Interrupted(Watched):
    """Calls back in the middle of a job, before its forward number ``at``."""

    def __init__(self, at, call) -> None:
        super().__init__()
        self._at, self._call = at, call

    def extend(self, chunks):
        if len(self.forwards) == self._at:
            self._call()
        return super().extend(chunks)


async def interrupted(at, take):
    """A job of eight steps behind the prompt; before forward ``at`` of it ``take`` of what it drafted becomes final."""
    told = [proposal.token_id for proposal in fresh_chain(PROMPT, 20)]
    stream = Stream(None, Ahead(), steps=steps_on(engine := Interrupted(1 + at, lambda: stream.settle(take(told[1:])))))
    await stream.drafter.step()
    stream.settle(told[:1])
    await stream.drafter.step()
    stream.check()
    return engine, stream, told[1:]


@pytest.mark.parametrize("count", range(1, 8))
def test_what_a_job_drafts_behind_the_tokens_that_overtook_it_is_kept(count):
    async def work():
        engine, stream, told = await interrupted(7, lambda told: told[:count])
        assert len(engine.forwards) == 1 + 8
        assert stream.main == told[count:8]

    virtual_time.run(work())


@pytest.mark.parametrize("at", range(1, 7))
def test_a_job_that_a_verdict_contradicts_takes_no_further_step(at):
    async def work():
        engine, stream, _ = await interrupted(at, lambda told: [*told[: at - 1], (told[at - 1] + 1) % VOCABULARY])
        assert len(engine.forwards) == 1 + at + 1
        assert stream.main == []

    virtual_time.run(work())
