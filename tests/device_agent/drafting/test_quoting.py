"""Drafts that quote: what followed in the documents is drafted, and nothing else changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from device_agent.drafting.quotes import Quotes
from device_agent.drafting.quoting import QuotingSteps
from device_agent.drafting.share import Share
from device_agent.drafting.step import DraftSteps
from speculation.engines.runner import EngineRunner
from speculation.shaping import virtual_time
from speculation.shaping.engine import ShapedEngine
from tests.device_agent.drafting.doubles import NUM_CHOICES, Emulated, Watched, Writer, fresh_chain, steps_on
from tests.device_agent.drafting.test_sharing import PHONE, Stream

SIZE = 50
DOCUMENT = [7, 7, 10, 11, 12, 13, 14, 15, 16, 17]


def quoting(steps, final, share=0.999):
    """A writer of its own stream, which quotes."""
    writer = Writer(steps, final)
    writer.steps = QuotingSteps(steps, SimpleNamespace(final=writer.final), Quotes(DOCUMENT, share))
    return writer


def plain(prompt, count):
    return [proposal.token_id for proposal in fresh_chain(prompt, count, SIZE)]


def test_a_text_that_reads_like_a_document_goes_on_like_it():
    async def work():
        return await quoting(steps_on(Watched(vocabulary_size=SIZE)), [3, 10, 11, 12]).write(4)

    assert virtual_time.run(work()) == [13, 14, 15, 16]


def test_so_it_does_where_one_job_takes_several_steps():
    async def work():
        writer = quoting(steps_on(Watched(vocabulary_size=SIZE)), [3, 10, 11])
        ((*chain,),) = await writer.extend([12], max_steps=4)
        return [proposal.token_id for proposal in chain]

    assert virtual_time.run(work()) == [13, 14, 15, 16]


def test_so_it_does_where_a_step_is_taken_back_for_a_first_word():
    async def work():
        steps = steps_on(Emulated(step_s=1.0, vocabulary_size=SIZE))
        writer, high = quoting(steps, [3, 10, 11, 12]), Stream(steps, [2], Share(priority=1))
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(writer.write(4))
            await asyncio.sleep(1.5)
            tasks.create_task(high.write(1))
        assert steps.num_preempted == 1
        return writing.result()

    assert virtual_time.run(work()) == [13, 14, 15, 16]


def test_so_it_does_behind_a_text_that_is_read_in_pieces():
    async def work():
        engine = Watched(vocabulary_size=SIZE, context_length=1200)
        steps = DraftSteps(EngineRunner(ShapedEngine(engine, PHONE)))
        written = await quoting(steps, [*[3, 4, 5] * 200, 10, 11, 12]).write(4)
        assert len(engine.forwards[0][0].token_ids) < 603
        return written

    assert virtual_time.run(work()) == [13, 14, 15, 16]


def test_what_became_final_counts_as_the_texts_end():
    async def work():
        writer = quoting(steps_on(Watched(vocabulary_size=SIZE)), [3])
        await writer.write(1)
        writer.settle([10, 11, 12])
        return await writer.write(1)

    assert virtual_time.run(work()) == [13]


def test_a_text_that_reads_otherwise_and_one_of_another_stream_are_drafted_as_ever():
    async def work():
        steps = steps_on(Watched(vocabulary_size=SIZE))
        writers = [quoting(steps, [3, 10, 12, 12]), Writer(steps, [3, 10, 11, 12])]
        return await asyncio.gather(*(writer.write(3) for writer in writers))

    assert virtual_time.run(work()) == [plain([3, 10, 12, 12], 3), plain([3, 10, 11, 12], 3)]


def test_the_share_decides_how_early_a_quote_stands_among_the_choices():
    async def place(share):
        ((proposal,),) = await quoting(steps_on(Watched(vocabulary_size=SIZE)), [3, 10, 11, 12], share).extend([])
        return (*proposal.token_ids, 13).index(13)

    places = [virtual_time.run(place(share)) for share in (0.01, 0.1, 0.999)]
    assert places == sorted(places, reverse=True)
    assert (places[0], places[-1]) == (NUM_CHOICES, 0)
