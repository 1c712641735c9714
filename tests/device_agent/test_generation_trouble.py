"""Answers whose verifier, link, draft or client fails: what is final is kept, and the end has a reason."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from device_agent.request import Mode
from speculation.errors import (
    CapacityError,
    EngineError,
    HandshakeError,
    LinkError,
    MalformedMessageError,
)
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Cancel, PairIdentity
from tests.device_agent.doubles import (
    PROMPT,
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    answer,
    decode,
    facts,
    plain_decoding,
    request,
    verifier,
    wait_until,
)
from tests.device_agent.generation_scene import done_of, error_of, run, states_of


def test_without_a_verifier_collaboration_goes_on_alone_and_says_so():
    async def work():
        connector = WatchedConnector(delay_s=5.0, failure=LinkError("nobody answers"))
        async with agent_of(connector, DraftEngine(0.5, step_s=0.01)) as running:
            return await answer(running)

    replay = run(work())
    done = done_of(replay)
    assert list(done["token_ids"]) == plain_decoding(DraftEngine(0.5))
    assert done["verified_count"] == 0
    assert "state" in replay.names


def test_without_a_verifier_mode_cloud_ends_with_an_error():
    async def work(**changes):
        async with agent_of(WatchedConnector(failure=LinkError("nobody answers"))) as running:
            return await answer(running, **changes)

    for changes in ({"mode": "cloud"}, {"reveal": "final"}):
        assert error_of(run(work(**changes))) == {
            "message": "nobody answers",
            "type": "api_error",
            "param": None,
            "code": "link",
        }


def test_a_verifier_without_room_is_told_apart():
    async def work():
        events = []
        async with agent_of(WatchedConnector(failure=CapacityError("full", 1.0))) as running:
            async for event in running.stream(request()):
                events.append(event)
        return events

    assert states_of(run(work())) == [("device", "busy")]


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_a_lost_link_keeps_what_is_final_and_adds_a_marked_tail(limit):
    async def work():
        async with verifier(SlowEngine(0.03)) as made:
            connector = WatchedConnector(MemoryConnector(made), limit)
            async with agent_of(connector, DraftEngine(0.6, step_s=0.009)) as running:
                return await answer(running)

    truth = plain_decoding(FullEngine())
    done = done_of(run(work()))
    count = done["verified_count"]
    assert list(done["token_ids"][:count]) == truth[:count]
    assert len(done["token_ids"]) > count
    assert count >= limit - 1


@pytest.mark.parametrize("bound", [0, 3])
def test_offline_tokens_bounds_the_tail(bound):
    async def work():
        async with verifier(SlowEngine(0.05)) as made:
            connector = WatchedConnector(MemoryConnector(made), 4)
            async with agent_of(connector, DraftEngine(1.0, step_s=0.009)) as running:
                return await answer(running, offline_tokens=bound)

    done = done_of(run(work()))
    assert len(done["token_ids"]) == done["verified_count"] + bound
    assert done["finish_reason"] == "offline"


@pytest.mark.parametrize("reaches", ["max_tokens", "a stop string", "an end token"])
@pytest.mark.parametrize(("bound", "reason"), [(0, "offline"), (3, "offline"), (None, None)])
def test_what_was_drafted_before_the_loss_and_may_not_stay_is_no_end_of_the_text(bound, reason, reaches):
    drafted = plain_decoding(DraftEngine(0.5), 8)
    stop = (decode(drafted[5:7]),) if reaches == "a stop string" else ()
    pair = facts(end_token_ids=(drafted[7],) if reaches == "an end token" else ())
    own_reason = "length" if reaches == "max_tokens" else "stop"

    async def work():
        connector = WatchedConnector(delay_s=0.5, failure=LinkError("nobody answers"))
        async with agent_of(connector, DraftEngine(0.5, step_s=0.001), pair, draft_width=1) as running:
            return await answer(running, max_tokens=8, offline_tokens=bound, stop=stop)

    done = done_of(run(work()))
    kept = drafted[: 5 if stop else 8] if bound is None else drafted[:bound]
    assert (done["finish_reason"], list(done["token_ids"])) == (reason or own_reason, kept)


def test_a_stop_string_behind_drafts_that_may_not_be_shown_is_no_end_of_the_text():
    drafted = plain_decoding(DraftEngine(0.5), 8)

    async def work():
        connector = WatchedConnector(delay_s=0.5, failure=LinkError("nobody answers"))
        async with agent_of(connector, DraftEngine(0.5, step_s=0.001), draft_width=1) as running:
            return await answer(running, max_tokens=8, reveal="stable", min_stability=1.0, stop=(decode(drafted[5:7]),))

    done = done_of(run(work()))
    assert (done["finish_reason"], done["text"]) == ("offline", "")


@pytest.mark.parametrize("room", [0, 6])
def test_an_answer_that_is_cut_where_the_drafts_context_ends_is_not_told_as_whole(room):
    short = facts(draft_context_length=len(PROMPT) + room)

    async def work():
        connector = WatchedConnector(failure=LinkError("nobody answers"))
        async with agent_of(connector, DraftEngine(0.5), short) as running:
            return await answer(running)

    done = done_of(run(work()))
    assert (done["finish_reason"], len(done["token_ids"])) == ("offline", room + 1)


def test_a_verifier_that_shuts_down_is_a_lost_one():
    async def work(mode):
        async with verifier(SlowEngine(0.05)) as made, agent_of(MemoryConnector(made), DraftEngine(step_s=0.01)) as running:
            stream = await running.start(request(mode=mode))
            await asyncio.sleep(0.3)
            await made.drain(0.0)
            events = []
            while batch := await stream.take():
                events += batch
        return events

    assert states_of(run(work("collaborate"))) == [("collaborate", "link"), ("device", "offline")]
    assert run(work("cloud"))[-1].error["code"] == "link"


@pytest.mark.parametrize("error", [HandshakeError("another pair"), MalformedMessageError("nonsense")])
def test_a_refusal_ends_the_stream_with_an_error(error):
    async def work():
        async with agent_of(WatchedConnector(failure=error)) as running:
            return await answer(running)

    assert error_of(run(work()))["message"] == str(error)


def test_pairs_that_differ_are_refused_with_both_digests():
    theirs = PairIdentity("d" * 64, "b" * 64, "c" * 64)

    async def work():
        async with agent(pair=facts(identity=theirs)) as running:
            return await answer(running)

    error = error_of(run(work()))
    assert error["code"] == "handshake"
    assert "a" * 12 in error["message"]
    assert "d" * 12 in error["message"]


def test_a_draft_engine_that_fails_ends_the_stream_and_gives_its_cache_back():
    async def work():
        draft = DraftEngine()
        draft.failure = EngineError("the draft broke")
        async with verifier() as made, agent_of(MemoryConnector(made), draft) as running:
            replay = await answer(running)
            await wait_until(lambda: running.num_streams == 0)
            assert made.num_sessions == 0
        assert not draft.open_caches
        return replay

    assert error_of(run(work()))["message"] == "the draft broke"


def test_a_bug_is_told_as_internal_and_not_in_detail(caplog):
    async def work():
        draft = DraftEngine()
        draft.failure = RuntimeError("secret")
        async with agent(draft) as running:
            return await answer(running)

    error = error_of(run(work()))
    assert (error["code"], error["message"]) == ("internal", "internal error")
    assert "secret" in caplog.text


def test_a_client_that_leaves_cancels_the_session_and_frees_everything():
    async def work():
        draft = DraftEngine(step_s=0.01)
        async with verifier(SlowEngine(0.05)) as made:
            connector = WatchedConnector(MemoryConnector(made))
            async with agent_of(connector, draft) as running:
                async with contextlib.aclosing(running.stream(request())) as events:
                    async for event in events:
                        if event.name == "correct":
                            break
                assert running.num_streams == 0
                assert not draft.open_caches
                assert made.num_sessions == 0
            assert connector.is_closed
        return connector.links[0]

    link = run(work())
    assert isinstance(link.sent[-1][1], Cancel)
    assert link.is_closed


def test_a_deadline_ends_the_answer_with_what_is_final():
    async def work(**changes):
        async with agent(DraftEngine(1.0, step_s=0.01), SlowEngine(0.1)) as running:
            return await answer(running, deadline_ms=250, **changes)

    for mode in (Mode.COLLABORATE, Mode.CLOUD):
        done = done_of(run(work(mode=mode)))
        assert done["finish_reason"] == "deadline"
        assert done["verified_count"] == len(done["token_ids"]) > 0
    done = done_of(run(work(mode=Mode.DEVICE)))
    assert (done["finish_reason"], len(done["token_ids"])) == ("deadline", 24)


def test_a_later_attempt_tells_what_is_left_until_the_deadline():
    async def work(**changes):
        async with verifier(SlowEngine(0.05)) as made:
            connector = WatchedConnector(MemoryConnector(made), limit=3)
            async with agent_of(connector, DraftEngine(0.5, step_s=0.1)) as running:
                await answer(running, **changes)
        return [(at_s, message.deadline_ms) for link in connector.links for at_s, message in link.sent[:1]]

    opened = run(work(deadline_ms=2000))
    (first_s, _), (later_s, _), *_ = opened
    assert later_s > first_s + 0.1
    for at_s, left_ms in opened:
        assert left_ms == pytest.approx(2000 - 1000 * (at_s - first_s), abs=1)
    assert {left_ms for _, left_ms in run(work())} == {None}


def test_an_inexact_verifier_is_told():
    async def work():
        events = []
        async with verifier(is_exact=False) as made, agent_of(MemoryConnector(made)) as running:
            async for event in running.stream(request()):
                events.append(event)
        return events

    assert states_of(run(work())) == [("collaborate", "link"), ("collaborate", "exactness")]
