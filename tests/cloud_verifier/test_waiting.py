"""Patience in the pass loop, under the virtual clock: when passes begin, what is in them, and that nobody is forgotten."""

import asyncio

import pytest

from cloud_verifier import rounds
from cloud_verifier.patience import LONGEST_S
from cloud_verifier.patience import ready_s as judge
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, DeadlineError, EngineError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Cancel, Draft, FinishReason, Node
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import NetworkProfile
from tests.cloud_verifier.doubles import IDENTITY, SELF_TEST, collect, finished_of, open_message, settings, wait_until
from tests.cloud_verifier.sessions import check_texts, device, opened, refusal, truth_of
from tests.cloud_verifier.virtual import PASS_S, TimedEngine, follow, now_s, running, virtually

PROMPT = (1, 2, 3)
TRUTH = truth_of(PROMPT, SamplingParameters(), 40)


def line(delay_s):
    """A network that holds every message back, and nothing else."""
    rate = float("inf")
    return NetworkProfile(
        name="line",
        title="a delay",
        uplink_rate_bytes_per_s=rate,
        uplink_delay_s=delay_s,
        uplink_jitter_s=0.0,
        downlink_rate_bytes_per_s=rate,
        downlink_delay_s=delay_s,
        downlink_jitter_s=0.0,
        overhead_bytes=0.0,
    )


def right(first, count, position, known, passes=False):
    """``count`` right drafts from ``position`` on; nodes are numbered from ``first``."""
    nodes = [Node(first + n, first + n - 1 if n else 0, TRUTH[position + n], position) for n in range(count)]
    return Draft(tuple(nodes), known, passes)


async def chosen_once(connector, **changes):
    """A session that has its first verdict, so that it is waited for from now on; and a device that has drafted."""
    link = await opened(connector, **{"max_tokens": 30} | changes)
    first = await link.receive()
    assert (first.start, first.choice) == (3, TRUTH[3])
    return link


@virtually
async def test_with_patience_0_passes_follow_each_other_without_a_pause_and_hold_everybody():
    async with running(patience=0, gather=8) as (engine, _, connector):
        links = [await opened(connector, session_id=str(n), max_tokens=20) for n in range(3)]
        await asyncio.gather(*(collect(link) for link in links))
        assert engine.began_s == [n * PASS_S for n in range(20)]
        assert engine.passes == [(3, 3, 3)] + [(1, 1, 1)] * 19


@pytest.mark.parametrize("patience", [200, "never"])
@virtually
async def test_the_first_choice_waits_for_nobody(patience):
    async with running(patience=patience, max_rows=16) as (engine, _, connector):
        waits = await chosen_once(connector)
        await waits.send(right(1, 1, 4, 4))
        await wait_until(lambda: len(engine.passes) == 2)
        long = await opened(connector, session_id="long", prefix=(5,) * 40, generation_start=40, max_tokens=1)
        await collect(long)
        # The prompt's chunks run one after the other while the other session is waited for.
        assert engine.began_s == [n * PASS_S for n in range(5)]
        assert engine.passes[2:] == [(16,), (16,), (8,)]


@virtually
async def test_never_waits_for_the_flag_and_checks_all_drafts_in_one_pass():
    async with running(patience="never", gather=64) as (engine, _, connector):
        link = await chosen_once(connector)
        for n in range(5):
            await asyncio.sleep(0.25)
            await link.send(right(1 + n, 1, 4, 4) if n == 0 else Draft((Node(1 + n, n, TRUTH[4 + n]),), 4))
        assert len(engine.passes) == 1
        await asyncio.sleep(0.125)
        await link.send(Draft((), 4, passes=True))
        verdict = await link.receive()
        assert (verdict.start, verdict.count, verdict.choice) == (4, 5, TRUTH[9])
        assert engine.began_s == [0, PASS_S + 5 * 0.25 + 0.125]


@virtually
async def test_never_ends_after_two_seconds_with_the_drafts_that_are_there():
    async with running(patience="never", gather=3) as (engine, _, connector):
        link = await chosen_once(connector)
        await link.send(right(1, 2, 4, 4))
        verdict = await link.receive()
        assert verdict.count == 2
        await link.receive()
        assert engine.began_s == [0, PASS_S + LONGEST_S, 2 * PASS_S + 2 * LONGEST_S]


@virtually
async def test_a_session_runs_as_soon_as_enough_is_gathered():
    async with running(patience="never", gather=3) as (engine, _, connector):
        link = await chosen_once(connector)
        await link.send(right(1, 2, 4, 4))
        await asyncio.sleep(0.5)
        await link.send(Draft((Node(3, 2, TRUTH[6]),), 4))
        assert (await link.receive()).count == 3
        assert engine.began_s == [0, PASS_S + 0.5]


@virtually
async def test_a_patience_in_milliseconds_counts_from_the_last_verdict():
    async with running(patience=125) as (engine, _, connector):
        link = await chosen_once(connector)
        await link.send(right(1, 1, 4, 4))
        await link.receive()
        for _ in range(3):
            await link.receive()
        gaps = [after - before for before, after in zip(engine.began_s[1:], engine.began_s[2:], strict=False)]
        assert gaps == [PASS_S + 0.125] * 3


@virtually
async def test_a_device_that_never_drafts_is_waited_for_only_once():
    async with running(patience="never") as (engine, _, connector):
        await collect(await opened(connector))
        assert engine.began_s == [0, *(LONGEST_S + n * PASS_S for n in range(1, 8))]


@virtually
async def test_a_device_that_drafts_late_is_waited_for_again():
    async with running(patience="never") as (engine, _, connector):
        link = await chosen_once(connector)
        await link.receive()
        await link.send(right(1, 1, 5, 5))
        await link.receive()
        before = engine.began_s[-1]
        await link.receive()
        assert engine.began_s[-1] == before + PASS_S + LONGEST_S


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"end_token_ids": (TRUTH[6],)}, 3),  # the third draft ends the text
        ({"max_tokens": 4}, 2),  # two drafts and the last choice reach the limit
        ({"max_tokens": 2}, 0),  # the one choice that is left needs no draft
    ],
)
@virtually
async def test_nobody_waits_where_no_draft_could_come(changes, count):
    async with running(patience="never", gather=20) as (engine, _, connector):
        link = await chosen_once(connector, **changes)
        if count:
            await link.send(right(1, count, 4, 4))
        await collect(link)
        assert engine.began_s == [0, PASS_S]


@virtually
async def test_no_more_is_gathered_than_the_credit_allows():
    async with running(patience="never", gather=64, credit=32) as (engine, _, connector):
        link = await chosen_once(connector, max_tokens=100)
        await link.send(Draft(tuple(Node(1 + n, n, TRUTH[4 + n], 4) for n in range(32)), 4))
        assert (await link.receive()).count == 32
        assert engine.began_s == [0, PASS_S]


@virtually
async def test_no_more_is_gathered_than_a_pass_holds():
    async with running(patience="never", gather=20, max_rows=8) as (engine, _, connector):
        link = await chosen_once(connector)
        await link.send(right(1, 10, 4, 4))
        assert (await link.receive()).count == 7
        assert engine.began_s == [0, PASS_S]


@virtually
async def test_a_cancel_ends_a_session_that_is_waited_for_at_once():
    async with running(patience="never") as (engine, _, connector):
        link = await chosen_once(connector)
        await asyncio.sleep(0.5)
        await link.send(Cancel())
        assert finished_of(await collect(link)).reason is FinishReason.CANCELLED
        await wait_until(lambda: not engine.open_caches)
        assert now_s() == PASS_S + 0.5
        assert len(engine.passes) == 1


@virtually
async def test_a_device_that_goes_away_is_not_waited_for():
    async with running(patience="never") as (engine, verifier, connector):
        link = await chosen_once(connector)
        await asyncio.sleep(0.5)
        await link.aclose()
        await wait_until(lambda: not engine.open_caches)
        assert (now_s(), verifier.num_sessions, len(engine.passes)) == (PASS_S + 0.5, 0, 1)


@virtually
async def test_a_deadline_ends_a_session_that_is_waited_for():
    async with running(patience="never") as (engine, _, connector):
        link = await chosen_once(connector, deadline_ms=500)
        with pytest.raises(DeadlineError):
            await collect(link)
        assert now_s() == 0.5
        await wait_until(lambda: not engine.open_caches)


@virtually
async def test_a_drain_waits_for_nobody():
    async with running(patience="never") as (engine, verifier, connector), asyncio.TaskGroup() as tasks:
        link = await chosen_once(connector, max_tokens=8)
        await link.send(right(1, 1, 4, 4))
        await link.receive()
        await asyncio.sleep(0.5)
        tasks.create_task(verifier.drain(10))
        assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        assert engine.began_s[2:] == [0.5 + n * PASS_S for n in range(2, 7)]


@virtually
async def test_a_drain_without_grace_ends_who_is_waited_for():
    async with running(patience="never") as (engine, verifier, connector):
        link = await chosen_once(connector)
        await verifier.drain(0)
        assert finished_of(await collect(link)).reason is FinishReason.SHUTDOWN
        assert now_s() == PASS_S
        await asyncio.sleep(2 * PASS_S)
        assert not engine.open_caches


@virtually
async def test_a_loop_that_is_cancelled_while_it_waits_leaves_nobody_without_an_answer():
    made = Verifier(EngineRunner(TimedEngine()), IDENTITY, SELF_TEST, settings(patience="never"))
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(made.run())
        link = await chosen_once(MemoryConnector(made))
        await asyncio.sleep(0.5)
        loop.cancel()
        with pytest.raises(EngineError, match="stopped"):
            await collect(link)


@pytest.mark.parametrize("max_sessions", [3, 2])
@virtually
async def test_patience_by_load_waits_for_nobody_while_there_is_room_for_all(max_sessions):
    async with running(max_sessions=max_sessions) as (engine, _, connector):
        links = [await opened(connector, session_id=str(n), max_tokens=20) for n in range(2)]
        await links[0].send(right(1, 1, 3, 3))
        await asyncio.gather(*(collect(link) for link in links))
        assert engine.passes[2:19] == [(1, 1)] * 17
        assert engine.began_s == [n * PASS_S for n in range(20)]


@virtually
async def test_patience_by_load_lets_who_has_no_drafts_sit_out_where_sessions_are_turned_away():
    async with running(max_sessions=2, retry_after_s=60) as (engine, _, connector):
        links = [await opened(connector, session_id=str(n), max_tokens=30) for n in range(2)]
        for link in links:
            await link.receive()
            await link.send(right(1, 1, 4, 4))
        for link in links:
            await link.receive()
        for _ in range(2):  # as many as fit: a whole pass of patience
            with pytest.raises(CapacityError):
                await refusal(connector, session_id="third")
        drafting, idle = links
        await drafting.send(right(2, 2, 6, 6))
        await idle.receive()
        # The one with drafts goes first; the other sits out a pass.
        assert engine.passes[2:] == [(3,), (1,)]
        assert engine.began_s[2:] == [2 * PASS_S, 3 * PASS_S]
        # With the other gone there is room again, and nobody is waited for any more.
        await drafting.aclose()
        await collect(idle)
        assert engine.began_s[4:] == [n * PASS_S for n in range(4, len(engine.began_s))]


@virtually
async def test_the_loop_sleeps_while_it_waits(monkeypatch):
    judged = []

    def counted(*arguments):
        judged.append(now_s())
        return judge(*arguments)

    monkeypatch.setattr(rounds, "ready_s", counted)
    async with running(patience="never", gather=4) as (_, _, connector):
        link = await chosen_once(connector)
        judged.clear()
        await link.send(right(1, 1, 4, 4))
        await link.receive()
        assert len(judged) <= 4


@pytest.mark.parametrize(("patience", "gather"), [(0, 1), (20, 4), ("never", 1), ("never", 6), ("auto", 2)])
@pytest.mark.parametrize("accuracy", [0.0, 0.8])
@virtually
async def test_no_patience_changes_a_text(patience, gather, accuracy):
    async with running(patience=patience, gather=gather, max_sessions=6, max_rows=24) as (engine, _, connector):
        async with ShapedConnector(connector, line(0.05)) as distant:
            await check_texts(distant, accuracy, longest=12)
        await wait_until(lambda: not engine.open_caches)


@virtually
async def test_a_session_that_reads_late_is_served_by_its_patience_too():
    async with running(patience=125, outbox_messages=1) as (engine, _, connector):
        link = await connector.connect()
        await link.send(open_message())
        await asyncio.sleep(1.0)
        messages = await follow(link)
        assert finished_of([received.message for received in messages]).reason is FinishReason.LENGTH
        assert len(engine.passes) == 8


@virtually
async def test_passes_begin_no_closer_than_they_are_paced_and_share_who_came_meanwhile():
    async with running(patience=0, pass_interval_ms=250) as (engine, _, connector):
        first = await opened(connector, session_id="first", max_tokens=4)
        await asyncio.sleep(0.1)
        second = await opened(connector, session_id="second", max_tokens=3)
        texts = await asyncio.gather(collect(first), collect(second))
        assert engine.began_s == [0.0, 0.25, 0.5, 0.75]
        assert [len(rows) for rows in engine.passes] == [1, 2, 2, 2]
        assert all(finished_of(text).reason is FinishReason.LENGTH for text in texts)


@virtually
async def test_a_verifier_that_shuts_down_is_not_paced():
    async with running(patience=0, pass_interval_ms=1000) as (engine, verifier, connector):
        link = await opened(connector, max_tokens=4)
        await asyncio.sleep(0.5)
        await verifier.drain(0.25)
        assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        assert len(engine.began_s) == 4


@virtually
async def test_each_session_learns_how_its_own_drafts_fare():
    async with running(patience=0) as (_, verifier, connector), asyncio.TaskGroup() as tasks:
        for number, accuracy in enumerate((1.0, 0.0)):
            one = device(number, TRUTH, PROMPT, SamplingParameters(), accuracy)
            tasks.create_task(one.run(connector))
            await wait_until(lambda count=number + 1: len(verifier.seats.running) == count)
        right, wrong = verifier.seats.running
        before = right.survival.chance
    assert wrong.survival.chance < before / 2 < before < right.survival.chance
