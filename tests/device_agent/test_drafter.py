from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafter import Drafter, confidence
from speculation.choice import choose
from speculation.engines.base import Chunk
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters
from speculation.shaping import virtual_time
from tests.device_agent.doubles import VOCABULARY, DraftEngine

GREEDY = SamplingParameters()
tokens = st.integers(0, VOCABULARY - 1)
scripts = st.lists(st.one_of(st.none(), st.lists(tokens, min_size=1, max_size=3)), max_size=12)


def fresh_choice(context):
    engine = DraftEngine()
    logits = engine.extend([Chunk(engine.open(), context, 1)])
    return int(choose(logits, [len(context)], [GREEDY]).token_ids[0])


@given(
    st.lists(tokens, min_size=1, max_size=5),
    st.lists(st.one_of(st.none(), st.lists(tokens, min_size=1, max_size=3)), max_size=12),
)
def test_a_draft_is_what_a_fresh_cache_gives_whatever_was_settled_before(prompt, script):
    """None drafts a token; a list settles these tokens behind what is final."""

    async def work():
        drafter = Drafter(EngineRunner(DraftEngine()), prompt, GREEDY)
        await drafter.open()
        num_final = len(prompt)
        for token_ids in script:
            if token_ids is None:
                drafted = await drafter.draft()
                assert drafted.token_id == fresh_choice(list(drafter.context))
                drafter.append(drafted.token_id)
            else:
                drafter.settle(num_final, token_ids)
                num_final += len(token_ids)
                assert list(drafter.context[num_final - len(token_ids) : num_final]) == token_ids
        await drafter.close()

    virtual_time.run(work())


def test_a_choice_is_thrown_away_where_the_context_changed_under_it():
    async def work():
        engine = DraftEngine(step_s=1.0)
        drafter = Drafter(EngineRunner(engine), [1, 2], GREEDY)
        await drafter.open()

        class Settling(EngineRunner):
            async def run(self, job):
                result = await super().run(job)
                drafter.settle(2, [5])
                return result

        drafter._runner = Settling(engine)
        assert await drafter.draft() is None
        drafter._runner = EngineRunner(engine)
        drafted = await drafter.draft()
        assert drafted.token_id == fresh_choice([1, 2, 5])
        assert engine.num_fed == 3
        await drafter.close()

    virtual_time.run(work())


def test_closing_gives_the_cache_back_even_if_nothing_was_opened():
    async def work():
        engine = DraftEngine()
        drafter = Drafter(EngineRunner(engine), [1], GREEDY)
        await drafter.close()
        await drafter.open()
        assert len(engine.open_caches) == 1
        await drafter.close()
        await drafter.close()
        assert not engine.open_caches

    virtual_time.run(work())


@pytest.mark.parametrize("temperature", [0, 0.5, 1, 1e-9, 100])
def test_confidence_is_the_softmax_probability(temperature):
    engine = DraftEngine()
    (row,) = engine.extend([Chunk(engine.open(), [1], 1)])
    best = int(row.argmax())
    value = confidence(row, best, temperature)
    assert 1 / VOCABULARY <= value <= 1
    if temperature == 1:
        total = sum(confidence(row, token_id, 1) for token_id in range(VOCABULARY))
        assert total == pytest.approx(1, abs=1e-4)
