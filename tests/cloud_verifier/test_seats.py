"""Seats, the queue and kept caches, with the verifier that uses them: under the virtual clock, on an engine that is watched."""

import asyncio
import threading

import pytest

from cloud_verifier.live import LiveSession
from cloud_verifier.prefixes import LEAST_SHARED
from cloud_verifier.room import Room
from cloud_verifier.seats import Seats, SharedQueue
from speculation.errors import CapacityError, LinkError
from speculation.protocol.messages import Cancel, FinishReason, Opened
from speculation.tenants import NOBODY, Account
from tests.cloud_verifier.doubles import CONTEXT, collect, finished_of, open_message, plain_decoding, wait_until
from tests.cloud_verifier.sessions import opened, refusal, table
from tests.cloud_verifier.virtual import TimedEngine, connector_of, running, virtually

PROMPT = tuple(range(1, LEAST_SHARED + 9))


def text_of(prompt, max_tokens):
    """The prompt, and what plain decoding puts behind it."""
    return plain_decoding(table(), prompt, open_message().parameters, max_tokens, ())


async def answer(connector, prompt, session_id, max_tokens=4):
    link = await opened(connector, session_id=session_id, prefix=prompt, generation_start=len(prompt), max_tokens=max_tokens)
    return await collect(link)


@virtually
async def test_whoever_finds_no_seat_waits_and_gets_the_same_text():
    async with running(max_sessions=2, max_queued=3) as (engine, verifier, connector):
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(answer(connector, (n + 1, 2, 3), f"s{n}")) for n in range(5)]
            await asyncio.sleep(0.01)
            assert (len(verifier.seats.running), verifier.seats.num_waiting) == (2, 3)
        for done in answers:
            assert finished_of(done.result()).reason is FinishReason.LENGTH
        assert max(len(rows) for rows in engine.passes) == 2
        assert not engine.open_caches


@virtually
async def test_beyond_the_queue_a_session_is_refused_with_a_delay():
    async with running(max_sessions=1, max_queued=1, retry_after_s=2.5) as (_, _, connector):
        await opened(connector, session_id="runs", max_tokens=200)
        await opened(connector, session_id="waits", max_tokens=200)
        with pytest.raises(CapacityError, match="1 sessions of this verifier are taken, and 1 wait") as refused:
            await refusal(connector, session_id="too much")
        assert refused.value.retry_after_s == 2.5


@virtually
async def test_whoever_waits_may_leave_and_the_next_comes_up():
    async with running(max_sessions=1, max_queued=2) as (_, verifier, connector):
        runs = await opened(connector, session_id="runs", max_tokens=400)
        leaves = await opened(connector, session_id="leaves")
        stays = await opened(connector, session_id="stays")
        await leaves.send(Cancel())
        assert finished_of(await collect(leaves)).reason is FinishReason.CANCELLED
        assert verifier.seats.num_waiting == 1
        await runs.aclose()
        assert finished_of(await collect(stays)).reason is FinishReason.LENGTH


@virtually
async def test_a_later_attempt_keeps_the_place_of_the_older():
    """In the queue and at a seat: nobody who waits slips in between."""
    async with running(max_sessions=1, max_queued=2) as (_, verifier, connector):
        await opened(connector, session_id="runs", max_tokens=400)
        await opened(connector, session_id="first")
        await opened(connector, session_id="second")
        await opened(connector, session_id="runs", attempt=2, max_tokens=400)
        await opened(connector, session_id="first", attempt=2)
        assert [live.session_id for live in verifier.seats.running] == ["runs"]
        assert [(live.session_id, live.attempt) for live in verifier.seats._waiting] == [("first", 2), ("second", 1)]
        assert verifier.seats.num_waiting == 2


@virtually
async def test_a_free_seat_goes_to_the_tenant_that_has_the_fewest():
    async with running(max_sessions=2, max_queued=8) as (_, verifier, _):
        many, few = connector_of(verifier, "many"), connector_of(verifier, "few")
        first, *_ = [await opened(many, session_id=f"a{number}", max_tokens=400) for number in range(5)]
        await opened(few, session_id="b0", max_tokens=400)
        await first.aclose()
        assert [live.session_id for live in verifier.seats.running] == ["a1", "b0"]


@virtually
async def test_a_tenants_sessions_that_wait_count_for_its_limit():
    async with running(max_sessions=1, max_queued=8) as (_, verifier, _):
        connector = connector_of(verifier, "a", max_sessions=2)
        await opened(connector, session_id="runs", max_tokens=400)
        await opened(connector, session_id="waits")
        with pytest.raises(CapacityError, match="all 2 sessions of this tenant"):
            await refusal(connector, session_id="too much")


@virtually
async def test_draining_lets_those_who_wait_run_too_and_ends_the_rest():
    async with running(max_sessions=1, max_queued=2) as (_, verifier, connector):
        links = [await opened(connector, session_id=f"s{n}", max_tokens=20) for n in range(3)]
        await verifier.drain(30 * 0.03125)
        reasons = [finished_of(await collect(link)).reason for link in links]
        assert reasons == [FinishReason.LENGTH, FinishReason.SHUTDOWN, FinishReason.SHUTDOWN]
        with pytest.raises(LinkError):
            await refusal(connector, session_id="late")


@virtually
async def test_a_prompt_that_goes_on_from_a_text_that_ended_runs_only_what_is_new():
    async with running(max_kept=2) as (engine, verifier, connector):
        await answer(connector, PROMPT, "first")
        text = text_of(PROMPT, 4)
        engine.passes.clear()
        again = await answer(connector, (*text, 5, 6), "second")
        # The fourth token was chosen and never run, then come two new ones.
        assert engine.passes[0] == (3,)
        assert verifier.seats.reused_tokens == len(text) - 1
        assert finished_of(again).usage.completion_tokens == 4
        await wait_until(lambda: len(engine.open_caches) == verifier.seats.num_kept == 1)


@virtually
async def test_opened_tells_how_much_of_a_prompt_was_kept():
    async with running(max_kept=2, max_sessions=1, max_queued=1) as (_, _, connector):
        await answer(connector, PROMPT, "first")
        text, told = text_of(PROMPT, 4), []
        for session_id in ("runs", "waits"):
            link = await connector.connect()
            await link.send(open_message(session_id, prefix=tuple(text), generation_start=len(text)))
            told.append((await link.receive()).cached)
        assert told == [len(text) - 1, 0]


@virtually
async def test_opened_tells_nobody_what_another_tenant_asked_before():
    async with running(max_kept=2) as (_, verifier, _):
        text, told = text_of(PROMPT, 4), []
        await answer(connector_of(verifier, "a"), PROMPT, "first")
        for tenant in ("b", "a"):
            link = await connector_of(verifier, tenant).connect()
            await link.send(open_message(tenant, prefix=tuple(text), generation_start=len(text)))
            told.append((await link.receive()).cached)
        assert told == [0, len(text) - 1]


@virtually
async def test_the_text_behind_a_kept_beginning_is_that_of_plain_decoding():
    async with running(max_kept=4) as (_, _, connector):
        for number, prompt in enumerate([PROMPT, (*PROMPT, 9), PROMPT[:-2], (*PROMPT[:-4], 1, 2, 3), PROMPT]):
            tokens = []
            for message in await answer(connector, prompt, f"s{number}", 6):
                tokens += [message.choice] if hasattr(message, "choice") else []
            assert [*prompt, *tokens] == list(text_of(prompt, 6)), number


@virtually
async def test_another_tenant_runs_all_of_the_same_prompt_and_as_long():
    """No way to tell by rows, and so none by time, what another tenant asked before."""
    rows, seconds = [], []
    for asked_before in (False, True):
        async with running(TimedEngine(), max_kept=4) as (engine, verifier, _):
            if asked_before:
                await answer(connector_of(verifier, "a"), PROMPT, "theirs")
            engine.passes.clear()
            began_s = asyncio.get_running_loop().time()
            await answer(connector_of(verifier, "b"), PROMPT, "own")
            rows.append(list(engine.passes))
            seconds.append(asyncio.get_running_loop().time() - began_s)
    assert rows[0] == rows[1]
    assert seconds[0] == pytest.approx(seconds[1])


@virtually
async def test_a_kept_cache_makes_room_for_whoever_runs():
    async with running(TimedEngine(num_slots=2), max_sessions=2, max_kept=2) as (engine, verifier, connector):
        for number in range(2):
            await answer(connector, (number, *PROMPT), f"kept{number}")
        assert verifier.seats.num_kept == 2
        links = [await opened(connector, session_id=f"s{n}", prefix=(n, 2, 3), max_tokens=8) for n in range(2)]
        for link in links:
            assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        assert len(engine.open_caches) <= 2


@virtually
async def test_a_text_that_was_cancelled_is_not_kept():
    async with running(max_kept=2) as (engine, verifier, connector):
        link = await opened(connector, prefix=PROMPT, generation_start=len(PROMPT), max_tokens=400)
        await asyncio.sleep(1)
        await link.send(Cancel())
        await collect(link)
        await wait_until(lambda: not engine.open_caches)
        assert verifier.seats.num_kept == 0


@virtually
async def test_opened_is_said_to_those_who_wait_so_that_they_may_draft():
    async with running(max_sessions=1, max_queued=1) as (_, _, connector):
        await opened(connector, session_id="runs", max_tokens=400)
        link = await connector.connect()
        await link.send(open_message(session_id="waits"))
        assert isinstance(await link.receive(), Opened)


def in_contexts(verifier, contexts):
    """Let the caches of a verifier take so many whole contexts, a byte a token."""
    room = Room(contexts * CONTEXT, CONTEXT, lambda num_tokens: num_tokens)
    verifier.seats.limit(room)
    return room


@virtually
async def test_sessions_run_as_long_as_there_is_room_for_all_they_may_become_and_the_others_wait():
    async with running(max_sessions=8, max_queued=8) as (engine, verifier, connector):
        room = in_contexts(verifier, 1)
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(answer(connector, (n + 1, 2, 3), f"s{n}", CONTEXT // 4 - 3)) for n in range(6)]
            await asyncio.sleep(0.01)
            assert (len(verifier.seats.running), verifier.seats.num_waiting) == (4, 2)
            assert room.taken_bytes == {"1/4": CONTEXT, "1/2": 0, "1/1": 0}
        for number, done in enumerate(answers):
            text = [message.choice for message in done.result() if hasattr(message, "choice")]
            assert text == list(text_of((number + 1, 2, 3), CONTEXT // 4 - 3))[3:]
        assert max(len(rows) for rows in engine.passes) == 4
        assert room.free_bytes == CONTEXT


@virtually
async def test_whoever_is_next_is_not_passed_by_those_that_need_less_room():
    async with running(max_sessions=8, max_queued=8) as (_, verifier, connector):
        in_contexts(verifier, 1)
        runs = await opened(connector, session_id="runs", max_tokens=CONTEXT // 4 - 3)
        large = await opened(connector, session_id="large", max_tokens=CONTEXT - 3)
        await opened(connector, session_id="small", max_tokens=1)
        assert ([live.session_id for live in verifier.seats.running], verifier.seats.num_waiting) == (["runs"], 2)
        await collect(runs)
        assert finished_of(await collect(large)).reason is FinishReason.LENGTH


@virtually
async def test_a_kept_cache_counts_and_gives_way_to_whoever_needs_its_room():
    async with running(max_sessions=8, max_kept=8) as (engine, verifier, connector):
        room = in_contexts(verifier, 1)
        for number in range(4):
            await answer(connector, (number, *PROMPT), f"kept{number}")
        assert (verifier.seats.num_kept, room.free_bytes) == (4, 0)
        await answer(connector, (9, 9, 9), "half", CONTEXT // 2 - 3)
        # Two gave way, and then the half is kept itself.
        assert verifier.seats.num_kept == 3
        await wait_until(lambda: len(engine.open_caches) == 3)
        assert room.taken_bytes == {"1/4": CONTEXT // 2, "1/2": CONTEXT // 2, "1/1": 0}


@virtually
async def test_a_short_session_in_a_cache_that_was_long_counts_what_it_was():
    async with running(max_sessions=8, max_kept=8) as (_, verifier, connector):
        room = in_contexts(verifier, 2)
        await answer(connector, PROMPT, "long", CONTEXT - len(PROMPT))
        await opened(connector, session_id="short", prefix=PROMPT, generation_start=len(PROMPT), max_tokens=2)
        assert verifier.seats.reused_tokens
        assert room.taken_bytes == {"1/4": 0, "1/2": 0, "1/1": CONTEXT}


@virtually
async def test_a_session_that_is_taken_over_leaves_its_room():
    async with running(max_sessions=8) as (_, verifier, connector):
        room = in_contexts(verifier, 2)
        await opened(connector, session_id="s", max_tokens=CONTEXT - 3)
        await opened(connector, session_id="s", attempt=2, max_tokens=CONTEXT - 3)
        assert room.free_bytes == CONTEXT


@virtually
async def test_an_attempt_that_may_become_longer_takes_no_room_that_is_not_there():
    """The limit is one of memory: no device gets around it by a short first attempt and a long second one."""
    async with running(max_sessions=8, max_queued=8) as (_, verifier, connector):
        room = in_contexts(verifier, 1)
        others = [await opened(connector, session_id=f"s{number}", max_tokens=40) for number in range(3)]
        await opened(connector, session_id="grows", max_tokens=40)
        grown = await opened(connector, session_id="grows", attempt=2, max_tokens=CONTEXT - 3)
        assert room.taken_bytes == {"1/4": 3 * CONTEXT // 4, "1/2": 0, "1/1": 0}
        assert (len(verifier.seats.running), verifier.seats.num_waiting) == (3, 1)
        for link in (*others, grown):
            assert finished_of(await collect(link)).reason is FinishReason.LENGTH
        assert (room.free_bytes, len(verifier.seats)) == (CONTEXT, 0)


@virtually
async def test_kept_caches_give_way_to_an_attempt_that_may_become_longer():
    async with running(max_sessions=8, max_kept=8) as (_, verifier, connector):
        room = in_contexts(verifier, 1)
        for number in range(3):
            await answer(connector, (number, *PROMPT), f"kept{number}")
        await opened(connector, session_id="grows", max_tokens=40)
        await opened(connector, session_id="grows", attempt=2, max_tokens=CONTEXT // 2 - 3)
        assert (verifier.seats.num_kept, len(verifier.seats.running), room.free_bytes) == (2, 1, 0)


@virtually
async def test_a_text_that_ended_untold_when_it_was_taken_over_is_not_kept_in_room_that_is_not_there():
    """A pass on the engine's thread ended it, and the later attempt came before the loop heard of that: both want its room."""
    async with running(max_sessions=8, max_kept=8) as (_, verifier, connector):
        room = in_contexts(verifier, 1)
        opening = {"prefix": PROMPT, "generation_start": len(PROMPT), "max_tokens": CONTEXT // 4 - len(PROMPT)}
        for number in range(3):
            await opened(connector, session_id=f"s{number}", max_tokens=CONTEXT // 4 - 3)
        link = await opened(connector, session_id="ends", **opening)
        await link.receive()
        verifier.seats.find("ends").state.finish(FinishReason.LENGTH)
        await opened(connector, session_id="ends", attempt=2, **opening)
        assert (room.free_bytes, verifier.seats.num_kept, len(verifier.seats.running)) == (0, 0, 4)


def sharing(queue, *capacities):
    """Seats of engines that share a queue, and a way to let sessions come to each."""
    account, members = Account(NOBODY), [Seats(capacity, capacity, 9, 0) for capacity in capacities]
    for seats in members:
        seats.share(queue)

    def come(seats, session_id, older=None, on_change=lambda: None):
        message = open_message(session_id)
        live = LiveSession(message, 40, 64, 8, seats.release, on_change, account, threading.RLock())
        seats.admit(live, older)
        return live

    return members, come


def running_at(members):
    return [[live.session_id for live in seats.running] for seats in members]


def test_engines_that_share_a_queue_share_its_limit():
    members, come = sharing(SharedQueue(1), 1, 1)
    first = come(members[0], "first")
    come(members[1], "second")
    assert running_at(members) == [["first"], []]
    first.close()
    assert running_at(members) == [[], ["second"]]


def test_a_place_in_a_shared_queue_is_no_slot_at_an_engine_that_is_full():
    members, come = sharing(SharedQueue(2), 1, 1)
    for session_id in ("first", "second"):
        come(members[0], session_id)
    assert running_at(members) == [["first"], []]
    come(members[1], "third")
    assert running_at(members) == [["first"], ["third"]]


def test_who_takes_over_keeps_the_place_is_woken_with_the_seat_and_counts_once():
    members, come = sharing(SharedQueue(1), 1)
    (seats,) = members
    woken = []
    first, older = come(seats, "first"), come(seats, "second")
    newer = come(seats, "second", older, lambda: woken.append(running_at(members)))
    assert (newer.place, newer.account.num_sessions) == (older.place, 2)
    first.close()
    assert woken == [[["second"]]]
    newer.close()
    assert newer.account.num_sessions == 0
