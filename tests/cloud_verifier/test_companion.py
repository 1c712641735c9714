"""Speculation inside the cloud, under the virtual clock: fewer passes, the same text, and statistics that stay true."""

import numpy as np
import pytest

from cloud_verifier.companion import Companion, Wish
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import build_engine
from cloud_verifier.server import serve
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Draft, FinishReason, Node, Verdict, VerdictKind
from speculation.shaping import virtual_time
from speculation.shaping.engine import ShapedEngine
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import CONTEXT, SAMPLED, SEED, VOCABULARY, collect, finished_of, wait_until
from tests.cloud_verifier.sessions import check_texts, opened, table, truth_of
from tests.cloud_verifier.virtual import PASS_S, TimedEngine, running, virtually

PROMPT = (1, 2, 3)
STEP_S = PASS_S / 16
GREEDY = SamplingParameters()


class SometimesWrong(RandomEngine):
    """Drafts what the full model would choose, but for positions that ``every`` divides."""

    def __init__(self, every: int = 10**6, context_length: int = CONTEXT, num_slots: int = 8) -> None:
        super().__init__(VOCABULARY, context_length, SEED, num_slots)
        self._every = every
        self.steps: list[tuple[int, ...]] = []
        self.failure: Exception | None = None

    @property
    def num_open(self) -> int:
        return len(self._prefixes)

    def extend(self, chunks):
        self.steps.append(tuple(len(chunk.token_ids) for chunk in chunks))
        if self.failure is not None:
            raise self.failure
        logits = super().extend(chunks)
        wrong = [self.length(chunk.cache) % self._every == 0 for chunk in chunks if chunk.num_logits]
        return np.where(np.array(wrong, bool)[:, None], np.roll(logits, 1, axis=1), logits)


def tokens_of(messages):
    return [m.choice for m in messages if isinstance(m, Verdict)]


@virtually
async def test_right_drafts_make_one_pass_of_many_tokens():
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=3) as (engine, verifier, connector):
        messages = await collect(await opened(connector, prefix=PROMPT, max_tokens=13))
        assert [*PROMPT, *tokens_of(messages)] == truth_of(PROMPT, GREEDY, 13)
        # The prompt's own choice, then three times three drafts and a choice.
        assert engine.passes == [(3,), (4,), (4,), (4,)]
        assert draft.steps == [(4,), (1,), (1,)] + [(2,), (1,), (1,)] * 2
        assert (verifier.statistics.own_proposed, verifier.statistics.own_accepted) == (9, 9)


@virtually
async def test_its_drafts_are_no_drafts_of_the_device():
    async with running(draft=SometimesWrong(every=4), draft_length=3) as (engine, verifier, connector):
        messages = await collect(await opened(connector, max_tokens=20))
        usage = finished_of(messages).usage
        assert (usage.proposed, usage.accepted, usage.late, usage.corrections, usage.bonus, usage.discarded) == (0,) * 6
        assert usage.passes == len(engine.passes) < 20 == usage.completion_tokens
        assert {m.kind for m in messages if isinstance(m, Verdict)} == {VerdictKind.DECODED}
        assert 0 < verifier.statistics.own_accepted < verifier.statistics.own_proposed


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@virtually
async def test_its_cache_follows_the_final_log(every):
    """After each wrong draft the next ones are right again: only a cache that was cut back can say so."""
    async with running(draft=SometimesWrong(every), draft_length=4) as (_, verifier, connector):
        messages = await collect(await opened(connector, prefix=PROMPT, max_tokens=100))
        assert [*PROMPT, *tokens_of(messages)] == truth_of(PROMPT, GREEDY, 100)
        starts = range(4, 103)
        accepted, position = 0, starts[0]
        while position < 103:
            wished = range(position, min(position + 4, 102))
            run = next((p - position for p in wished if p % every == 0), len(wished))
            accepted, position = accepted + run, position + run + 1
        assert verifier.statistics.own_accepted == accepted


@pytest.mark.parametrize("max_rows", [3, 24, 256])
@pytest.mark.parametrize("accuracy", [0.0, 0.8])
@virtually
async def test_no_text_changes_whoever_drafts(max_rows, accuracy):
    draft = SometimesWrong(every=3)
    async with running(draft=draft, draft_length=5, max_rows=max_rows) as (engine, _, connector):
        await check_texts(connector, accuracy, longest=12)
        await wait_until(lambda: not engine.open_caches and not draft.num_open)
        assert all(sum(step) <= max(max_rows, 6) for step in draft.steps)


@virtually
async def test_many_sessions_share_one_step_a_position():
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=2) as (_, _verifier, connector):
        links = [await opened(connector, session_id=str(n), max_tokens=7) for n in range(3)]
        for link in links:
            await collect(link)
        assert draft.steps == [(4, 4, 4), (1, 1, 1), (2, 2, 2), (1, 1, 1)]


@virtually
async def test_what_the_device_drafted_comes_first():
    truth = truth_of(PROMPT, GREEDY, 20)
    draft = SometimesWrong(every=1)
    async with running(draft=draft, draft_length=4) as (engine, _, connector):
        link = await opened(connector, prefix=PROMPT, max_tokens=20)
        await link.receive()
        await link.send(Draft(tuple(Node(n, n - 1, truth[3 + n], 4) for n in range(1, 7)), 4))
        verdict = await link.receive()
        assert (verdict.count, verdict.last_node) == (6, 6)
        assert draft.steps == []
        assert engine.passes == [(3,), (7,)]


@virtually
async def test_its_time_is_part_of_the_sessions():
    class Slow(SometimesWrong):
        def take_charge_s(self):
            charge_s, self.charged = STEP_S * (len(self.steps) - getattr(self, "charged", 0)), len(self.steps)
            return charge_s

    async with running(draft=Slow(), draft_length=3) as (engine, _, connector):
        await collect(await opened(connector, max_tokens=9))
        assert engine.began_s == [0, PASS_S + 3 * STEP_S, 2 * PASS_S + 6 * STEP_S]


@virtually
async def test_a_long_prompt_does_not_stall_the_others_drafts():
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=2, max_rows=16) as (_, _verifier, connector):
        short = await opened(connector, session_id="short", max_tokens=60)
        long = await opened(connector, session_id="long", prefix=(5,) * 100, generation_start=100, max_tokens=12)
        assert tokens_of(await collect(long)) == truth_of((5,) * 100, GREEDY, 12)[100:]
        await collect(short)
        assert max(sum(step) for step in draft.steps) <= 16


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5])
@virtually
async def test_it_drafts_no_further_than_the_limit(max_tokens):
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=8) as (engine, _, connector):
        messages = await collect(await opened(connector, max_tokens=max_tokens))
        assert finished_of(messages).reason is FinishReason.LENGTH
        assert len(engine.passes) == min(max_tokens, 2)
        assert len(draft.steps) == max(0, max_tokens - 2)


@virtually
async def test_it_stops_before_an_end_token():
    truth = truth_of(PROMPT, SAMPLED, 20)
    end = truth[7]
    async with running(draft=SometimesWrong(), draft_length=8) as (engine, verifier, connector):
        messages = await collect(
            await opened(connector, prefix=PROMPT, parameters=SAMPLED, max_tokens=20, end_token_ids=(end,))
        )
        assert finished_of(messages).reason is FinishReason.STOP
        assert [*PROMPT, *tokens_of(messages)] == truth[: truth.index(end) + 1]
        assert verifier.statistics.own_proposed == truth.index(end) - 4
        assert len(engine.passes) == 2


@virtually
async def test_it_stops_where_its_own_context_ends():
    draft = SometimesWrong(context_length=10)
    async with running(draft=draft, draft_length=4) as (engine, verifier, connector):
        messages = await collect(await opened(connector, prefix=PROMPT, max_tokens=20))
        assert [*PROMPT, *tokens_of(messages)] == truth_of(PROMPT, GREEDY, 20)
        # Behind 4, then 9 final tokens: four drafts, then two, for the positions 9 and 10.
        assert verifier.statistics.own_proposed == 6
        assert engine.passes[1:3] == [(5,), (3,)]


@virtually
async def test_a_draft_model_that_fails_costs_drafts_and_no_session(caplog):
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=4) as (engine, _, connector):
        draft.failure = RuntimeError("out of memory")
        messages = await collect(await opened(connector, prefix=PROMPT, max_tokens=10))
        assert [*PROMPT, *tokens_of(messages)] == truth_of(PROMPT, GREEDY, 10)
        assert (len(draft.steps), caplog.text.count("draft model failed")) == (1, 1)
        draft.failure = None
        await collect(await opened(connector, session_id="next", max_tokens=10))
        assert len(engine.passes) == 10 + 3
        await wait_until(lambda: not draft.num_open)


@virtually
async def test_a_device_is_waited_for_before_the_verifier_drafts():
    draft = SometimesWrong()
    async with running(draft=draft, draft_length=2, patience=125) as (engine, _, connector):
        await collect(await opened(connector, max_tokens=7))
        # In vain once; then at once.
        assert engine.began_s == [0, PASS_S + 0.125, 2 * PASS_S + 0.125]


def test_a_log_that_grew_by_another_way_than_its_drafts_is_followed():
    """The companion alone: its second draft is wrong, and the log goes on far behind it."""
    draft = SometimesWrong(every=6)
    companion = Companion(EngineRunner(draft), 3, 256)
    truth = truth_of(PROMPT, GREEDY, 20)

    async def grow():
        first, second = [(await companion.draft([Wish("s", truth[:length], GREEDY, 3, frozenset())]))[0] for length in (5, 9)]
        assert (first[0], first[1] == truth[6]) == (truth[5], False)
        assert second == tuple(truth[9:12])

    virtual_time.run(grow())
    assert draft.steps == [(5,), (1,), (1,), (3,), (1,), (1,)]


async def test_the_bundled_pair_drafts_for_itself_over_grpc():
    config = doubles.settings(draft_length=4)
    full_model = build_engine(config)
    async with serve(config, full_model=full_model) as served:
        connector = GrpcConnector(served.target)
        prompt = tuple(range(100, 140))
        changes = {"identity": full_model.identity, "prefix": prompt, "generation_start": 40, "max_tokens": 40}
        messages = await collect(await opened(connector, **changes))
        await connector.aclose()
        statistics = served.verifier.statistics
    assert tokens_of(messages) == doubles.plain_decoding(full_model.engine, prompt, GREEDY, 40)[40:]
    assert statistics.own_proposed > 0
    assert finished_of(messages).usage.passes == 40 - statistics.own_accepted


def test_its_time_is_charged_to_the_cloud():
    full_model = build_engine(VerifierConfig(draft_length=2, cloud="mi300x"))
    assert isinstance(full_model.draft, ShapedEngine)
    assert (full_model.draft.cost.cloud.name, full_model.draft.cost.model.name) == ("mi300x", "0.9B:int4")
    assert full_model.draft.description.num_slots == 16


def test_without_a_draft_length_there_is_no_draft_model():
    assert VerifierConfig().draft_length == 0
    assert doubles.FullModel(TimedEngine(), doubles.IDENTITY, doubles.SELF_TEST).draft is None
    assert table().description.vocabulary_size == VOCABULARY


@virtually
async def test_many_sessions_of_one_tenant_do_not_take_the_steps_of_another():
    companion = Companion(EngineRunner(SometimesWrong()), 3, 12)
    final = [n % 60 + 1 for n in range(12)]
    greedy = [Wish(n, final, GREEDY, 9, frozenset(), "greedy") for n in range(5)]
    drafts = await companion.draft([*greedy, Wish("modest", final[:6], GREEDY, 9, frozenset(), "modest")])
    assert [len(draft) for draft in drafts] == [0, 0, 0, 0, 0, 3]
    # Next time the tenants share again: what the greedy one has to catch up with does not cost the other its turn.
    drafts = await companion.draft([*greedy, Wish("another", final[:6], GREEDY, 9, frozenset(), "modest")])
    assert len(drafts[-1]) == 3
