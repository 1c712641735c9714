"""The books of a stream's caches against real ones: every path is proposed behind as if its cache were fresh."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import VOCABULARY, Watched, Writer, fresh, fresh_chain, steps_on

tokens = st.integers(0, VOCABULARY - 1)
paths = st.lists(tokens, max_size=5).map(tuple)


@st.composite
def turns(draw, limit):
    """Paths to extend, how far, what becomes final while the step runs, and afterwards; some of it follows the paths."""
    asked = draw(st.lists(paths, min_size=1, max_size=limit, unique=True))
    along = draw(st.sampled_from(asked))
    agreed = list(along[: draw(st.integers(0, len(along)))])
    verdicts = [agreed + draw(st.lists(tokens, max_size=3)), draw(st.lists(tokens, max_size=2))]
    is_during = draw(st.booleans())
    return asked, draw(st.integers(1, 4)) if len(asked) == 1 else 1, verdicts, is_during


class Verdicts:
    """Steps whose verdicts arrive when the job is done and its stream does not know it yet."""

    def __init__(self, steps) -> None:
        self._steps = steps
        self.pending = lambda: None

    async def run(self, step):
        proposals = await self._steps.run(step)
        self.pending()
        return proposals

    async def close(self, slots):
        await self._steps.close(slots)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 4), st.lists(tokens, min_size=1, max_size=4))
def test_every_path_is_as_behind_a_fresh_cache_whatever_was_fed_and_settled_before(data, limit, prompt):
    async def work():
        engine = Watched()
        steps = Verdicts(steps_on(engine))
        writer = Writer(steps, prompt, limit)
        for asked, count, verdicts, is_during in data.draw(st.lists(turns(limit), max_size=8)):
            final = list(writer.final)
            steps.pending = lambda: [writer.settle(tokens) for tokens in verdicts] if is_during else None  # noqa: B023
            proposals = await writer.extend(*asked, max_steps=count)
            assert proposals == [fresh_chain([*final, *path], count) for path in asked]
            if not is_during:
                for token_ids in verdicts:
                    writer.settle(token_ids)
        assert engine.most_open <= limit
        await writer.close()
        assert not engine.contents

    virtual_time.run(work())


@settings(deadline=None)
@given(st.data(), st.integers(1, 4))
def test_a_path_that_grows_by_one_token_is_fed_one_token_also_behind_a_verdict_that_agrees(data, num_paths):
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1], num_paths)
        growing = data.draw(st.lists(paths.filter(len), min_size=num_paths, max_size=num_paths, unique=True))
        await writer.extend(*growing)
        for _ in range(data.draw(st.integers(1, 6))):
            growing = list(data.draw(st.permutations(growing)))
            count = data.draw(st.integers(1, len(growing)))
            growing[:count] = [(*path, data.draw(tokens)) for path in growing[:count]]
            await writer.extend(*growing[:count])
            assert [len(feed.token_ids) for feed in writer.feeds] == [1] * count
            agreed = data.draw(st.sampled_from(growing))[: data.draw(st.integers(0, 3))]
            writer.settle(agreed)
            growing = [path[len(agreed) :] for path in growing if path[: len(agreed)] == agreed and len(path) > len(agreed)]
            if not growing:
                return

    virtual_time.run(work())


def test_the_first_draft_behind_a_verdict_that_agrees_with_all_and_says_one_more_is_fed_one_token():
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1])
        await writer.extend([2, 2])
        writer.settle([2, 2, 0])
        await writer.extend([])
        assert engine.num_fed == 4 + 1

    virtual_time.run(work())


def test_a_branch_from_the_middle_of_another_is_copied_where_a_cache_is_free():
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1], 2)
        await writer.extend([2, 2, 2])
        await writer.extend([2, 2, 2, 0], [2, 1])
        assert engine.num_fed == 5 + 2
        assert engine.num_forks == 1
        await writer.extend([2, 2, 2, 0, 0], [2, 1, 0])
        assert engine.num_fed == 7 + 2
        assert sorted(engine.contents.values()) == [[0, 1, 2, 1, 0], [0, 1, 2, 2, 2, 0, 0]]

    virtual_time.run(work())


def test_a_branch_that_leaves_another_in_the_middle_costs_it_nothing_where_a_cache_is_free():
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1], 2)
        await writer.extend([2, 2, 2])
        await writer.extend([2, 1])
        await writer.extend([2, 2, 2, 0])
        assert engine.num_fed == 5 + 1 + 1
        assert engine.num_forks == 1

    virtual_time.run(work())


def test_a_branch_named_first_does_not_cost_another_that_only_grows_its_cache():
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1], 2)
        await writer.extend([2, 2, 2], [0, 0, 0])
        fed = engine.num_fed
        await writer.extend([2, 1], [0, 0, 0, 0])
        assert engine.num_fed == fed + 2

    virtual_time.run(work())


def test_a_single_cache_is_cut_back_to_what_it_shares():
    async def work():
        engine = Watched()
        writer = Writer(steps_on(engine), [0, 1])
        await writer.extend([2, 2, 2])
        await writer.extend([2, 1])
        assert engine.num_fed == 5 + 1
        assert list(engine.contents.values()) == [[0, 1, 2, 1]]

    virtual_time.run(work())


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_paths_that_share_much_are_each_fed_behind_their_own_beginning(limit):
    """Two tokens only, so that copies are made of copies within one step; random, seeded."""

    async def work(seed):
        rng = random.Random(seed)
        writer = Writer(steps_on(Watched()), [0, 1], limit)
        for _ in range(12):
            wanted = {tuple(rng.choices((0, 1), k=rng.randrange(5))) for _ in range(limit)}
            paths = rng.sample(sorted(wanted), len(wanted))
            chains = await writer.extend(*paths)
            assert chains == [[fresh((*writer.final, *path))] for path in paths]
            if rng.random() < 0.3:
                writer.settle(rng.choices((0, 1), k=rng.randrange(1, 3)))

    for seed in range(60):
        virtual_time.run(work(seed))
