"""What a stream drafts is what a fresh cache would say, whatever was settled in between, and stays within its bounds."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.drafting.drafter import LONGEST_GATHER
from device_agent.drafting.linear import Ahead
from device_agent.drafting.second_branch import SecondBranch
from device_agent.drafting.step import DraftSteps
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import GREEDY, VOCABULARY, Emulated, Plain, Watched, fresh_chain
from tests.device_agent.drafting.streams import PROMPT, Stream

tokens = st.integers(0, VOCABULARY - 1)
sampled = st.builds(SamplingParameters, temperature=st.just(1.0), seed=st.integers(0, 3))


def verdict(data, stream):
    """Tokens along some branch of the tree, and perhaps others behind them."""
    branches = stream.drafter.branches
    path = branches.path(data.draw(st.sampled_from(stream.tree())))
    agreed = data.draw(st.integers(0, len(path)))
    return [branch.token_id for branch in path[:agreed]] + data.draw(st.lists(tokens, max_size=2))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.one_of(st.just(GREEDY), sampled))
def test_what_is_proposed_is_a_fresh_caches_choice_whatever_was_settled(data, width, num_choices, parameters):
    async def work():
        engine = Emulated()
        stream = Stream(engine, SecondBranch(width), parameters=parameters, depth=8, num_choices=num_choices)
        for is_during in data.draw(st.lists(st.booleans(), max_size=12)):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(stream.drafter.step())
                if is_during:
                    await asyncio.sleep(0.5)
                    stream.settle(verdict(data, stream))
            stream.check()
            if not is_during:
                stream.settle(verdict(data, stream) if data.draw(st.booleans()) else [])
                stream.check()
        assert engine.most_open <= width
        await stream.drafter.close()
        assert not engine.contents

    virtual_time.run(work())


class Overtaken(DraftSteps):
    """Each job is done, and not yet known to its stream, when ``arrives`` is called."""

    arrives = staticmethod(lambda: None)

    async def run(self, step):
        proposals = await super().run(step)
        self.arrives()
        return proposals


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_jobs_of_several_steps_are_right_too_whatever_verdict_overtakes_them(data, can_fork):
    async def work():
        engine = Watched()
        steps = Overtaken(EngineRunner(engine if can_fork else Plain(engine)))
        stream = Stream(engine, Ahead() if can_fork else SecondBranch(4), steps=steps, depth=12)
        for _ in range(data.draw(st.integers(1, 8))):
            steps.arrives = (lambda: stream.settle(verdict(data, stream))) if data.draw(st.booleans()) else (lambda: None)
            await stream.drafter.step()
            stream.check()
        assert engine.most_open == 1
        await stream.drafter.close()
        assert not engine.contents

    virtual_time.run(work())


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_wide_draft_has_a_branch_for_every_cache_and_a_device_that_cannot_fork_has_one(width):
    async def work(engine, seen):
        stream = Stream(engine, SecondBranch(width))
        await stream.draft()
        stream.check()
        wanted = width if engine is seen else 1
        assert seen.most_open == max(len(chunks) for chunks in seen.forwards) == wanted
        assert (len(stream.tree()) > 1 + len(stream.main)) == (wanted > 1)

    seen = Watched()
    virtual_time.run(work(seen, seen))
    seen = Watched()
    virtual_time.run(work(Plain(seen), seen))


@pytest.mark.parametrize("engine", [Watched, Emulated])
@pytest.mark.parametrize("policy", [Ahead(), SecondBranch(2)], ids=["one", "two"])
class TestBounds:
    def test_the_depth(self, engine, policy):
        stream = Stream(engine(), policy, depth=5)
        virtual_time.run(stream.draft())
        assert len(stream.main) == 5
        assert max(branch.position for branch in stream.tree()) == len(PROMPT) - 1 + 5

    def test_the_credit(self, engine, policy):
        stream = Stream(engine(), policy, credit=7)
        virtual_time.run(stream.draft())
        assert stream.session.room == 0
        assert 7 <= stream.session.live_nodes <= 7 + 2 * (policy.width - 1)

    def test_the_limit(self, engine, policy):
        stream = Stream(engine(), policy, max_tokens=6)
        virtual_time.run(stream.draft())
        assert max(branch.position for branch in stream.tree()) == len(PROMPT) + 6 - 1

    def test_the_drafts_context(self, engine, policy):
        """A token is chosen behind a full context, and none behind that."""
        stream = Stream(engine(context_length=9), policy, context_length=9)
        virtual_time.run(stream.draft())
        assert max(branch.position for branch in stream.tree()) == 9

    def test_an_end_token(self, engine, policy):
        told = [proposal.token_id for proposal in fresh_chain(PROMPT, 30)]
        for end in range(VOCABULARY):
            stream = Stream(engine(), policy, end_token_ids=[end])
            virtual_time.run(stream.draft())
            count = told.index(end) + 1 if end in told else 30
            assert stream.main[:30] == told[:count]
            assert not any(branch.children for branch in stream.tree()[1:] if branch.token_id == end)

    def test_the_room_of_a_lonely_device(self, engine, policy):
        stream = Stream(engine(), policy, credit=3, depth=3)
        for room in (4, 1, 5):
            before = len(stream.main)
            grown = virtual_time.run(self.alone(stream, room))
            assert grown == stream.main[before:]
            assert len(grown) == room
        stream.check()

    async def alone(self, stream, room):
        """As the agent asks: with what is left of the room each time."""
        grown = []
        while len(grown) < room:
            grown += [branch.token_id for branch in await stream.drafter.step(room - len(grown))]
        assert await stream.drafter.step(0) == []
        assert stream.drafter.is_paused
        return grown


def test_a_step_whose_every_leaf_a_verdict_killed_is_given_up_at_once():
    async def work():
        engine = Emulated()
        stream = Stream(engine, SecondBranch(2))
        await stream.drafter.step()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            step = tasks.create_task(stream.drafter.step())
            await asyncio.sleep(0.25)
            wrong = ({0, 1, 2} - {branch.token_id for branch in stream.drafter.branches.root.children}).pop()
            stream.settle([wrong])
            await asyncio.sleep(0)
        assert (step.result(), loop.time()) == ([], 1.25)
        await stream.drafter.step()
        stream.check()

    virtual_time.run(work())


def test_what_final_tokens_say_of_the_draft_is_learned():
    stream = Stream(Watched(), SecondBranch(2))
    virtual_time.run(stream.draft())
    root = stream.drafter.branches.root
    before = [branch.chance for branch in root.children]
    stream.settle([root.children[1].token_id])
    assert root.proposal is not None
    after = stream.drafter.beliefs.chances(root.proposal)
    assert after[0] < before[0]
    assert after[1] > before[1]
    assert stream.drafter.beliefs.pace.acceptance == 0


def test_no_token_is_fed_twice_along_one_branch_however_many_steps_a_job_takes():
    engine = Watched()
    stream = Stream(engine, Ahead(), depth=20)
    virtual_time.run(stream.draft())
    assert engine.num_fed == len(PROMPT) + 20 - 1
    stream.settle(stream.main[:3])
    virtual_time.run(stream.draft())
    assert len(stream.main) == 20
    assert engine.num_fed == len(PROMPT) + 23 - 1


async def send_moments(stream, num_steps):
    """After each step how many nodes are still to be sent, and from when on they should go out at the moment 5."""
    moments = []
    for _ in range(num_steps):
        await stream.drafter.step()
        moments.append((stream.session.unsent_nodes, stream.drafter.send_s(5.0)))
    return moments


def test_what_a_policy_gathers_goes_out_together():
    moments = virtual_time.run(send_moments(Stream(Emulated(), Ahead(gather=3)), 4))
    assert moments == [(1, math.inf), (2, math.inf), (3, 5.0), (4, 5.0)]


def test_so_many_drafts_as_one_message_should_hold_go_out_however_long_the_next_pass_is_away(monkeypatch):
    stream = Stream(Emulated(), Ahead(), depth=40)
    monkeypatch.setattr(stream.drafter.schedule, "leave_s", lambda now_s: now_s + 60)
    moments = virtual_time.run(send_moments(stream, LONGEST_GATHER + 1))
    assert moments == [(count, 5.0 if count >= LONGEST_GATHER else 65.0) for count in range(1, LONGEST_GATHER + 2)]
