"""Tenants in the pass loop, under the virtual clock: rates to the second, shares to the row."""

import asyncio
import itertools

import pytest

from cloud_verifier.companion import Companion
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.inlet import Inlet
from speculation.engines.random import RandomEngine
from speculation.errors import CapacityError
from speculation.protocol.messages import FinishReason, Verdict
from speculation.tenants import Account, Limits, Tenant
from speculation.wire import codec
from tests.cloud_verifier.doubles import CONTEXT, VOCABULARY, collect, finished_of, open_message
from tests.cloud_verifier.sessions import device, opened, refusal, truth_of
from tests.cloud_verifier.virtual import PASS_S, TimedEngine, connector_of, follow, now_s, running, virtually


@virtually
async def test_a_tenant_over_its_token_rate_sits_out_passes_and_nobody_else_notices():
    async with running(patience=0) as (_, verifier, _):
        slow = await opened(connector_of(verifier, "slow", tokens_per_s=4, burst_s=1), session_id="slow", max_tokens=20)
        fast = await opened(connector_of(verifier, "fast"), session_id="fast", max_tokens=40)
        of_slow, of_fast = await asyncio.gather(follow(slow), follow(fast))
    times = [one.at_s for one in of_fast if isinstance(one.message, Verdict)]
    assert times == [PASS_S * (n + 1) for n in range(40)]
    assert finished_of([one.message for one in of_slow]).reason is FinishReason.LENGTH
    times = [one.at_s for one in of_slow if isinstance(one.message, Verdict)]
    assert times[:4] == [PASS_S * (n + 1) for n in range(4)]  # the burst: a second of the rate
    assert all(number + 1 <= 4 * (at_s + 1) + 1 for number, at_s in enumerate(times))
    assert times[-1] == pytest.approx((20 - 1 - 4) / 4, abs=3 * PASS_S)


@virtually
async def test_a_tenant_that_is_alone_is_woken_when_its_rate_allows():
    async with running(patience=0) as (engine, verifier, _):
        link = await opened(connector_of(verifier, "slow", tokens_per_s=0.5, burst_s=1), max_tokens=5)
        received = await follow(link)
    assert len(engine.began_s) == 5
    assert now_s() < 20
    assert finished_of([one.message for one in received]).reason is FinishReason.LENGTH


@virtually
async def test_with_patience_a_tenant_over_its_rate_waits_for_its_rate_all_the_same():
    async with running(patience=1000) as (engine, verifier, _):
        link = await opened(connector_of(verifier, "slow", tokens_per_s=0.25, burst_s=1), max_tokens=4)
        await follow(link)
    pauses = [after - before for before, after in itertools.pairwise(engine.began_s)]
    assert max(pauses) >= 4.0
    assert len(engine.began_s) == 4


@virtually
async def test_sessions_of_one_tenant_share_its_rate():
    async with running(patience=0) as (_, verifier, _):
        connector = connector_of(verifier, "slow", tokens_per_s=8, burst_s=1)
        links = [await opened(connector, session_id=str(n), max_tokens=20) for n in range(4)]
        await asyncio.gather(*(collect(link) for link in links))
        assert now_s() >= (4 * 20 - 8 - 4) / 8


@virtually
async def test_over_a_rate_a_new_session_is_refused_and_the_delay_that_is_told_suffices():
    async with running(patience=0) as (_, verifier, _):
        connector = connector_of(verifier, "slow", tokens_per_s=2, burst_s=1)
        await collect(await opened(connector, session_id="first", max_tokens=8))
        with pytest.raises(CapacityError, match="over its 2 tokens a second") as refused:
            await refusal(connector, session_id="second")
        await asyncio.sleep(refused.value.retry_after_s)
        await collect(await opened(connector, session_id="second", max_tokens=1))


@virtually
async def test_a_refusal_for_a_tenants_own_limit_makes_nobody_wait():
    """Who is turned away by its own limit does not want the rows of others: ``auto`` has no patience for it."""
    async with running(max_sessions=2) as (_, verifier, _):
        connector = connector_of(verifier, "many", max_sessions=1)
        await opened(connector, session_id="first", max_tokens=30)
        await opened(connector_of(verifier, "other"), session_id="other", max_tokens=30)
        for _ in range(20):
            with pytest.raises(CapacityError):
                await refusal(connector, session_id="another")
        assert verifier.policy.patience_s(2, now_s()) == 0


@virtually
async def test_an_abusive_tenant_gets_no_more_than_its_share_of_the_rows():
    """Six sessions with long drafts against one that decodes: the one is in every pass, with all the rows it wants."""
    prompt = list(range(1, 9))
    async with running(TimedEngine(8), patience=0, max_rows=8) as (_, verifier, _):
        greedy, modest = connector_of(verifier, "greedy"), connector_of(verifier, "modest")
        truth = truth_of(prompt, open_message().parameters, 60)
        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(device(number, truth, prompt, open_message().parameters, 0.9, 60).run(greedy))
            link = await opened(modest, session_id="modest", max_tokens=30)
            received = await follow(link)
    times = [one.at_s for one in received if isinstance(one.message, Verdict)]
    assert len(times) == 30
    assert [after - before for before, after in itertools.pairwise(times)] == [PASS_S] * 29


@virtually
async def test_where_there_are_fewer_rows_than_sessions_tenants_take_turns_and_each_ones_sessions():
    """Three sessions against one, and a row a pass: the one has every other, each of the three every sixth."""
    async with running(TimedEngine(8), patience=0, max_rows=1) as (_, verifier, _):
        greedy, modest = connector_of(verifier, "greedy"), connector_of(verifier, "modest")
        short = {"prefix": (1,), "generation_start": 1}
        many = [await opened(greedy, session_id=str(number), max_tokens=30, **short) for number in range(3)]
        link = await opened(modest, session_id="modest", max_tokens=20, **short)
        received = await asyncio.gather(*(follow(one) for one in (link, *many)))
    for number, messages in enumerate(received):
        times = [one.at_s for one in messages if isinstance(one.message, Verdict)]
        pauses = [after - before for before, after in itertools.pairwise(times)]
        num_passes, count = (6, 5) if number else (2, 19)
        assert pauses[:count] == pytest.approx([num_passes * PASS_S] * count)


@virtually
async def test_an_abusive_prefill_does_not_hold_up_another_tenants():
    """Both want more than there is: each gets half, however many sessions one of them has."""
    long_prompt = tuple(n % 60 + 1 for n in range(CONTEXT - 40))
    async with running(TimedEngine(8), patience=0, max_rows=16) as (_, verifier, _):
        greedy, modest = connector_of(verifier, "greedy"), connector_of(verifier, "modest")
        for number in range(7):
            await opened(greedy, session_id=str(number), prefix=long_prompt, generation_start=len(long_prompt), max_tokens=8)
        start = 64
        changes = {"prefix": long_prompt[:start], "generation_start": start, "max_tokens": 1}
        await collect(await opened(modest, session_id="modest", **changes))
        assert now_s() <= (start / 8 + 2) * PASS_S


@virtually
async def test_the_verifiers_own_drafts_are_wished_for_in_the_name_of_the_tenant(monkeypatch):
    wished, draft = set(), Companion.draft

    async def noted(self, wishes):
        wished.update(wish.tenant for wish in wishes)
        return await draft(self, wishes)

    monkeypatch.setattr(Companion, "draft", noted)
    async with running(draft=RandomEngine(VOCABULARY, CONTEXT, 1, 8), draft_length=2) as (_, verifier, _):
        links = [await opened(connector_of(verifier, name), session_id=name) for name in ("one", "other")]
        await asyncio.gather(*(collect(link) for link in links))
    assert wished == {"one", "other"}


class Context:
    """A device that has sent everything at once."""

    def __init__(self, messages):
        self._messages = list(messages)

    async def read(self):
        return self._messages.pop(0)


@virtually
async def test_a_device_over_its_byte_rate_is_read_no_faster_than_that():
    data = codec.encode_request(open_message())
    account = Account(Tenant("slow", Limits(bytes_per_s=float(len(data)), burst_s=2)))
    inlet = Inlet(Context([data] * 6), account, VerifierStatistics())
    times = []
    for _ in range(6):
        await inlet.read()
        times.append(now_s())
    assert times == [0, 0, 0, 1, 2, 3]
