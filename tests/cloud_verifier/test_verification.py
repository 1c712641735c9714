"""The pass loop, without a network: sessions over the memory link on an engine that can be watched and broken."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from cloud_verifier.costs import LinearCosts
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.errors import (
    CapacityError,
    DeadlineError,
    EngineError,
    HandshakeError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
    SessionSupersededError,
)
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    Cancel,
    Draft,
    Finished,
    FinishReason,
    Node,
    PairIdentity,
    Verdict,
    VerdictKind,
)
from tests.cloud_verifier import doubles, virtual
from tests.cloud_verifier.doubles import (
    IDENTITY,
    SAMPLED,
    SELF_TEST,
    VOCABULARY,
    collect,
    finished_of,
    settings,
    wait_until,
)
from tests.cloud_verifier.sessions import (
    BREAKING,
    CREDIT,
    LIMIT_S,
    check_breaking_ends_its_stream_only,
    check_texts,
    device,
    held,
    opened,
    refusal,
    truth_of,
)


@asynccontextmanager
async def running(engine=None, costs=None, **changes):
    """A verifier whose passes run on their own thread, an engine to look at, and a connector."""
    engine = engine or doubles.WatchedEngine()
    runner = EngineRunner.on_own_thread(engine, "test")
    verifier = Verifier(runner, IDENTITY, SELF_TEST, settings(**changes), costs=costs)
    try:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            group.create_task(verifier.run())
            try:
                yield engine, verifier, MemoryConnector(verifier)
            finally:
                engine.gate.set()
                await verifier.drain(0)
                verifier.stop()
    finally:
        runner.shutdown()


FREE, DEAR = LinearCosts(pass_s=1.0), LinearCosts(pass_s=1e-9, row_s=1e3)


@pytest.mark.parametrize(("costs", "num_rows"), [(None, 5), (FREE, 5), (DEAR, 1)])
async def test_a_pass_runs_the_drafts_that_pay_by_what_it_costs(costs, num_rows):
    async with running(costs=costs) as (engine, _, connector):
        link = await held(engine, connector)
        first = truth_of((1, 2, 3), SamplingParameters(), 1)[-1]
        await link.send(Draft((Node(1, 0, first, 3), *(Node(n, n - 1, 1, 3) for n in range(2, 6))), 3))
        engine.gate.set()
        await collect(link)
        # The prompt, then the pass that found the drafts.
        assert engine.passes[1] == (num_rows,)


@pytest.mark.parametrize("costs", [FREE, DEAR])
async def test_what_passes_cost_changes_no_text(costs):
    async with running(costs=costs) as (_, _, connector):
        await check_texts(connector, 0.5, longest=36)


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("max_rows", [3, 16, 256])
async def test_every_text_is_that_of_plain_decoding_whatever_is_drafted(accuracy, max_rows):
    async with running(max_rows=max_rows) as (engine, _, connector):
        await check_texts(connector, accuracy, longest=36)
        assert all(sum(rows) <= max_rows for rows in engine.passes)
        await wait_until(lambda: not engine.open_caches)


@virtual.virtually  # by the machine's clock a busy one makes drafts too late
async def test_good_drafts_save_passes():
    prompt = [1, 2, 3]
    truth = truth_of(prompt, SAMPLED, 60)
    async with virtual.running() as (_, _, connector):
        good = device(1, truth, prompt, SAMPLED, 1.0, 60)
        bad = device(2, truth, prompt, SAMPLED, 0.0, 60)
        assert await good.run(connector) == await bad.run(connector) == truth
        assert good.session.usage.passes < 40
        # A wrong first choice whose second branch is right saves passes too, now and then; but less.
        assert bad.session.usage.passes > good.session.usage.passes


async def test_an_end_token_ends_the_session():
    prompt = [1, 2, 3]
    end = truth_of(prompt, SAMPLED, 40)[20]
    truth = truth_of(prompt, SAMPLED, 40, [end])
    async with running() as (_, _, connector):
        ending = device(1, truth, prompt, SAMPLED, 0.9, 40, [end])
        assert await ending.run(connector) == truth
        assert ending.session.finish_reason is FinishReason.STOP


async def test_a_session_without_drafts_is_decoded_at_once():
    async with running() as (_, _, connector):
        link = await opened(connector, max_tokens=5)
        *verdicts, finished = await collect(link)
        assert [v.kind for v in verdicts] == [VerdictKind.DECODED] * 5
        assert finished.reason is FinishReason.LENGTH
        assert finished.usage.passes == 5


async def test_drafts_that_wait_are_verified_in_one_pass():
    truth = truth_of([1, 2, 3], SamplingParameters(), 8)
    async with running() as (engine, _, connector):
        link = await held(engine, connector)
        nodes = tuple(Node(n, n - 1, truth[2 + n], 3) for n in range(1, 8))
        await link.send(Draft(nodes, 3))
        engine.gate.set()
        messages = await collect(link)
        assert [(m.start, m.count) for m in messages if isinstance(m, Verdict)] == [(3, 0), (4, 6)]


async def test_all_sessions_share_one_pass():
    async with running() as (engine, _, connector):
        engine.gate.clear()
        links = [await opened(connector, session_id=str(n)) for n in range(4)]
        await wait_until(engine.entered.is_set)
        engine.gate.set()
        await asyncio.gather(*(collect(link) for link in links))
        assert len(engine.passes) <= 9
        assert max(len(rows) for rows in engine.passes) == 4


async def test_a_long_prompt_does_not_stall_the_others():
    async with running(max_rows=16) as (engine, _, connector):
        engine.gate.clear()
        long = await opened(connector, session_id="long", prefix=(5,) * 200, generation_start=200, max_tokens=1)
        short = await opened(connector, session_id="short", max_tokens=10)
        engine.gate.set()
        assert len(await collect(short)) == 11
        await collect(long)
    assert [len(rows) for rows in engine.passes[:11]] == [2] * 10 + [1]  # as many passes as the short one has tokens
    assert len(engine.passes) > 200 / 16


async def test_the_wrong_pair_is_refused_and_both_digests_named():
    async with running() as (_, _, connector):
        theirs = PairIdentity("a" * 64, "d" * 64, "c" * 64)
        with pytest.raises(HandshakeError, match=f"{'d' * 64}.*{'b' * 64}"):
            await refusal(connector, identity=theirs)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"choice_rule": "coin"}, HandshakeError, "'coin'.*gumbel"),
        ({"fingerprint": "e" * 16}, HandshakeError, f"{'e' * 16}.*{'f' * 16}"),
        ({"prefix": (1,) * 600, "generation_start": 600}, InvalidRequestError, "600 tokens.*context of 512"),
        ({"max_tokens": 510}, InvalidRequestError, "context length is 512.*at most 509"),
        ({"prefix": (1, VOCABULARY), "generation_start": 2}, InvalidRequestError, "token id 64: .*vocabulary has 64"),
        ({"prefix": (1,) * 20, "generation_start": 3}, InvalidRequestError, "over their own limit of 11"),
    ],
)
async def test_what_cannot_be_served_is_refused_in_words(changes, error, words):
    async with running() as (_, verifier, connector):
        with pytest.raises(error, match=words):
            await refusal(connector, **changes)
        assert verifier.num_sessions == 0


@pytest.mark.parametrize(
    ("message", "error"),
    [
        *BREAKING,
        (Draft((), 200), MalformedMessageError),
        (Draft((Node(1, 0, VOCABULARY, 3),), 3), MalformedMessageError),
    ],
)
async def test_a_message_that_breaks_the_protocol_ends_its_stream_only(message, error):
    async with running(credit=CREDIT) as (engine, _, connector):
        await check_breaking_ends_its_stream_only(engine, connector, message, error)


async def test_the_first_message_must_be_open():
    async with running() as (_, _, connector):
        link = await connector.connect()
        await link.send(Cancel())
        with pytest.raises(MalformedMessageError, match="begins with Open"):
            await link.receive()


async def test_a_cancel_ends_the_session_and_frees_its_cache_before_the_next_pass():
    async with running() as (engine, _, connector):
        link = await held(engine, connector, max_tokens=400)
        await link.send(Cancel())
        assert finished_of(await collect(link)).reason is FinishReason.CANCELLED
        engine.gate.set()
        await wait_until(lambda: not engine.open_caches)
        assert len(engine.passes) == 1


async def test_a_device_that_goes_away_frees_its_slot_for_the_next():
    async with running(doubles.WatchedEngine(num_slots=1)) as (engine, _, connector):
        first = await opened(connector, session_id="first", max_tokens=400)
        await first.receive()
        await first.aclose()
        second = await opened(connector, session_id="second")
        assert finished_of(await collect(second)).reason is FinishReason.LENGTH
        await wait_until(lambda: not engine.open_caches)


async def test_beyond_its_capacity_a_verifier_says_when_to_come_back():
    async with running(max_sessions=1, retry_after_s=2.5) as (engine, _, connector):
        engine.gate.clear()
        await opened(connector, session_id="first")
        with pytest.raises(CapacityError, match="all 1 sessions") as refused:
            await refusal(connector, session_id="second")
        assert refused.value.retry_after_s == 2.5


async def test_a_later_attempt_takes_over_even_from_a_full_verifier():
    truth = truth_of([1, 2, 3], SamplingParameters(), 8)
    async with running(max_sessions=1) as (engine, _, connector):
        engine.gate.clear()
        older = await opened(connector)
        newer = await opened(connector, attempt=2, prefix=tuple(truth[:6]), fingerprint=SELF_TEST.fingerprint)
        with pytest.raises(SessionSupersededError, match="attempt 2"):
            await collect(older)
        engine.gate.set()
        verdicts = [m for m in await collect(newer) if isinstance(m, Verdict)]
        assert [v.choice for v in verdicts] == truth[6:]


async def test_an_attempt_that_is_not_later_is_refused():
    async with running() as (engine, _, connector):
        engine.gate.clear()
        await opened(connector, attempt=2)
        for attempt in (1, 2):
            with pytest.raises(SessionSupersededError, match="attempt 2 of this session is running"):
                await refusal(connector, attempt=attempt)


async def test_a_prefix_that_is_complete_is_finished_at_once():
    async with running() as (engine, _, connector):
        link = await opened(connector, prefix=(1, 2, 3, 9), end_token_ids=(9,))
        assert finished_of(await collect(link)).reason is FinishReason.STOP
        assert engine.passes == []


async def test_a_deadline_ends_the_session():
    async with running() as (engine, _, connector):
        engine.gate.clear()
        link = await opened(connector, deadline_ms=1)
        with pytest.raises(DeadlineError, match="1 ms"):
            await collect(link)
        engine.gate.set()
        await wait_until(lambda: not engine.open_caches)


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), EngineError("no kernel"), CapacityError("full")])
async def test_a_failing_pass_ends_its_sessions_by_name_and_the_server_goes_on(failure):
    async with running() as (engine, _, connector):
        engine.failure = failure
        link = await opened(connector)
        with pytest.raises(EngineError, match=str(failure)):
            await collect(link)
        again = await opened(connector)
        assert finished_of(await collect(again)).reason is FinishReason.LENGTH
        await wait_until(lambda: not engine.open_caches)


async def test_a_device_that_does_not_read_is_not_decoded_ahead_of():
    async with running(outbox_messages=4) as (engine, _, connector):
        slow = await opened(connector, session_id="slow", max_tokens=50)
        quick = await opened(connector, session_id="quick", max_tokens=50)
        await collect(quick)
        assert sum(len(rows) == 2 for rows in engine.passes) <= 5
        assert finished_of(await collect(slow)).reason is FinishReason.LENGTH


async def test_a_device_that_goes_away_unread_frees_its_cache():
    async with running(outbox_messages=2) as (engine, _, connector):
        link = await opened(connector, max_tokens=50)
        await wait_until(lambda: len(engine.passes) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        await link.aclose()
        await wait_until(lambda: not engine.open_caches)


async def test_a_drain_refuses_new_sessions_and_lets_the_running_finish():
    async with running() as (engine, verifier, connector):
        engine.gate.clear()
        link = await opened(connector)
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(verifier.drain(LIMIT_S))
            await asyncio.sleep(0)
            with pytest.raises(LinkError, match="shutting down"):
                await refusal(connector, session_id="late")
            engine.gate.set()
            assert finished_of(await collect(link)).reason is FinishReason.LENGTH
            await draining


async def test_a_drain_ends_what_its_grace_does_not_suffice_for():
    async with running() as (engine, verifier, connector):
        engine.gate.clear()
        link = await opened(connector)
        await verifier.drain(0)
        messages = await collect(link)
        assert messages == [Finished(FinishReason.SHUTDOWN, messages[-1].usage)]


async def test_an_idle_verifier_runs_nothing():
    async with running() as (engine, verifier, connector):
        await collect(await opened(connector))
        await wait_until(lambda: not engine.open_caches)
        before = len(engine.passes)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(engine.passes) == before
        assert verifier.num_sessions == 0
