"""Answers that are paused, queued and cancelled: the text stays the full model's, and nobody is charged meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.events import StateEvent
from device_agent.stream import StreamState
from device_agent.tasks.group import Group
from speculation.errors import CapacityError, InvalidRequestError, LinkError
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Cancel, Draft, Open
from speculation.shaping import virtual_time
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import phone
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    feed,
    plain_decoding,
    request,
    verifier,
)
from tests.device_agent.replay import Replay

STEP_S, PASS_S = 0.01, 0.04


async def follow(stream, replay, seen):
    loop = asyncio.get_running_loop()
    while events := await stream.take():
        for event in events:
            seen.append((loop.time(), event))
            feed(replay, event.to_json())


async def paused_answer(running, pauses, **changes):
    """An answer that is paused and resumed at these moments, what its reader saw, and the times of its events."""
    stream, replay, seen = await running.start(request(**changes)), Replay(), []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(stream, replay, seen))
        for begin_s, end_s in pauses:
            await asyncio.sleep(begin_s - asyncio.get_running_loop().time())
            stream.pause()
            stream.pause()
            await asyncio.sleep(end_s - asyncio.get_running_loop().time())
            stream.resume()
            stream.resume()
    return replay, seen


def reasons(seen):
    return [event.reason for _, event in seen if isinstance(event, StateEvent)]


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from(["collaborate", "cloud", "device"]),
    st.lists(st.floats(0.0, 0.9), min_size=2, max_size=6).map(sorted),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_wherever_it_is_paused_the_text_is_the_one_without_a_pause(mode, moments, accuracy):
    pauses = list(zip(moments[::2], moments[1::2], strict=False))

    async def work():
        async with agent(DraftEngine(accuracy, step_s=STEP_S), SlowEngine(PASS_S)) as running:
            return await paused_answer(running, pauses, mode=mode)

    replay, _ = virtual_time.run(work())
    model = DraftEngine(accuracy) if mode == "device" else FullEngine()
    assert list(replay.last["token_ids"]) == plain_decoding(model)
    assert replay.last["verified_count"] == (0 if mode == "device" else 40)


def test_a_paused_answer_costs_neither_draft_steps_nor_passes_and_its_verifier_is_told():
    async def work():
        async with verifier(SlowEngine(PASS_S)) as made:
            connector, draft = WatchedConnector(MemoryConnector(made)), DraftEngine(step_s=STEP_S)
            async with agent_of(connector, draft) as running:
                stream = await running.start(request())
                await asyncio.sleep(0.3)
                stream.pause()
                await asyncio.sleep(0.1)
                before = draft.num_fed, made.statistics.passes, len(draft.open_caches)
                assert made.num_sessions == 0
                assert stream.state is StreamState.PAUSED
                await asyncio.sleep(10)
                assert (draft.num_fed, made.statistics.passes, len(draft.open_caches)) == before
                assert draft.open_caches
                stream.resume()
                replay, seen = Replay(), []
                await follow(stream, replay, seen)
            return connector.links, replay, seen

    links, replay, seen = virtual_time.run(work())
    first, second = links
    assert isinstance(first.sent[-1][1], Cancel)
    opening = second.sent[0][1]
    assert isinstance(opening, Open)
    assert opening.attempt == 2
    assert len(opening.prefix) > opening.generation_start
    assert not [message for at_s, message in second.sent if isinstance(message, Draft) and at_s < 10]
    assert reasons(seen) == ["link", "paused", "resumed", "link"]
    figures = replay.last["figures"]
    assert figures["paused_ms"]["value"] == pytest.approx(10_100)
    assert figures["steps_waited_ms"]["value"] < 1000 * STEP_S
    assert figures["tokens_per_s"]["value"] > 20  # the pause is no part of it
    assert list(replay.last["token_ids"]) == plain_decoding(FullEngine())


@pytest.mark.parametrize("mode", ["collaborate", "cloud", "device"])
def test_an_answer_that_is_resumed_and_paused_at_once_stays_paused(mode):
    async def work():
        async with verifier(SlowEngine(PASS_S)) as made, agent_of(MemoryConnector(made), DraftEngine(step_s=STEP_S)) as running:
            stream = await running.start(request(mode=mode))
            await asyncio.sleep(0.3)
            stream.pause()
            await asyncio.sleep(0.3)
            stream.resume()
            stream.pause()
            before = made.statistics.passes
            await asyncio.sleep(10)
            assert (made.statistics.passes, made.num_sessions) == (before, 0)
            assert stream.state is StreamState.PAUSED

    virtual_time.run(work())


def test_a_pause_that_is_too_long_ends_the_answer_with_what_there_is_and_frees_everything():
    async def work(mode):
        draft = DraftEngine(step_s=STEP_S)
        async with verifier(SlowEngine(PASS_S)) as made, contextlib.AsyncExitStack() as stack:
            connector = WatchedConnector(MemoryConnector(made))
            running = await stack.enter_async_context(agent_of(connector, draft, max_pause_s=5.0))
            stream, replay, seen = await running.start(request(mode=mode)), Replay(), []
            await asyncio.sleep(0.2)
            stream.pause()
            await follow(stream, replay, seen)
            assert not draft.open_caches
            assert running.num_streams == 0
            assert len(connector.links) == (mode != "device")
        return replay.last, seen[-1][0]

    for mode in ("collaborate", "cloud", "device"):
        last, ended_s = virtual_time.run(work(mode))
        assert last["finish_reason"] == "paused"
        assert 0 < len(last["token_ids"]) < 40
        assert ended_s == pytest.approx(5.2, abs=2 * STEP_S)


class SlowGoodbyes(WatchedConnector):
    """Hanging up takes a while; ``begun`` is set when it begins."""

    begun: asyncio.Event

    async def connect(self):
        link = await super().connect()
        aclose, self.begun = link.aclose, asyncio.Event()

        async def slowly():
            self.begun.set()
            await asyncio.sleep(0.1)
            await aclose()

        link.aclose = slowly
        return link


@pytest.mark.parametrize("mode", ["collaborate", "cloud"])
def test_an_answer_that_is_over_is_not_paused_while_it_hangs_up(mode):
    async def work():
        async with verifier(SlowEngine(PASS_S)) as made:
            connector = SlowGoodbyes(MemoryConnector(made))
            async with agent_of(connector, DraftEngine(step_s=STEP_S)) as running, asyncio.timeout(5):
                stream, replay, seen = await running.start(request(mode=mode)), Replay(), []
                await asyncio.sleep(0.1)
                await connector.begun.wait()
                stream.pause()
                await follow(stream, replay, seen)
            return connector.links, replay, seen

    links, replay, seen = virtual_time.run(work())
    assert len(links) == 1
    assert reasons(seen) == ["link"]
    assert list(replay.last["token_ids"]) == plain_decoding(FullEngine())


@pytest.mark.parametrize("mode", ["collaborate", "cloud", "device"])
def test_an_answer_that_is_cancelled_while_a_pause_hangs_up_has_ended_at_once(mode):
    async def work():
        async with verifier(SlowEngine(PASS_S)) as made:
            connector, draft = SlowGoodbyes(MemoryConnector(made)), DraftEngine(step_s=STEP_S)
            async with agent_of(connector, draft) as running:
                stream = await running.start(request(mode=mode))
                await asyncio.sleep(0.3)
                stream.pause()
                await asyncio.sleep(0.05)
                await stream.aclose()
                return asyncio.get_running_loop().time(), stream.ending, draft.open_caches, running.num_streams

    ended_s, ending, *left = virtual_time.run(work())
    assert (ending, left) == ({"status": "error", "error": "link"}, [set(), 0])
    assert ended_s < 0.5


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_pause_that_is_too_long_ends_an_answer_that_waits_for_its_place_too(is_resumed):
    async def work():
        queue = {"max_streams": 1, "max_queued_streams": 1, "max_pause_s": 0.3}
        async with agent_of(None, DraftEngine(step_s=0.1), **queue) as running:
            first = await running.start(request(mode="device", max_tokens=20))
            second, replay, seen = await running.start(request(mode="device", max_tokens=5)), Replay(), []
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow(second, replay, seen))
                await asyncio.sleep(0)
                second.pause()
                await asyncio.sleep(0.2)
                if is_resumed:
                    second.resume()
            ended_s, was_first = asyncio.get_running_loop().time(), first.state
            await follow(first, Replay(), [])
            assert (running.num_streams, running.health()["queued"]) == (0, 0)
            return replay.last["finish_reason"], ended_s, was_first

    expected = ("length", pytest.approx(2.5), StreamState.ENDED) if is_resumed else ("paused", 0.3, StreamState.RUNNING)
    assert virtual_time.run(work()) == expected


def test_a_deadline_goes_on_while_an_answer_is_paused_and_while_it_is_queued():
    async def work():
        async with agent_of(None, DraftEngine(step_s=0.1), max_streams=1, max_queued_streams=1) as running:
            first = await running.start(request(mode="device", deadline_ms=1000))
            queued = await running.start(request(mode="device", deadline_ms=500))
            await asyncio.sleep(0.2)
            first.pause()
            ends = []
            for stream in (queued, first):
                seen = []
                await follow(stream, Replay(), seen)
                ends.append((seen[-1][1].finish_reason, seen[-1][0]))
            return ends, reasons(seen)

    ends, _ = virtual_time.run(work())
    assert ends == [("deadline", 0.5), ("deadline", pytest.approx(1.0))]


def test_an_answer_whose_verifier_is_lost_can_be_paused_and_is_audited_when_it_goes_on():
    async def work():
        connector = WatchedConnector(failure=LinkError("gone"))
        async with verifier(SlowEngine(PASS_S)) as made, agent_of(connector, DraftEngine(0.5, step_s=0.1)) as running:
            stream = await running.start(request())
            await asyncio.sleep(0.55)
            stream.pause()
            connector._connector, connector._failure = MemoryConnector(made), None
            await asyncio.sleep(20)
            assert not connector.links
            stream.resume()
            replay, seen = Replay(), []
            await follow(stream, replay, seen)
            return replay, seen

    replay, seen = virtual_time.run(work())
    assert reasons(seen)[:4] == ["offline", "paused", "resumed", "link"]
    assert list(replay.last["token_ids"]) == plain_decoding(FullEngine())


def test_beyond_the_places_an_answer_waits_says_so_and_is_whole():
    async def work():
        async with agent_of(None, DraftEngine(step_s=0.1), max_streams=1, max_queued_streams=1) as running:
            first = await running.start(request(mode="device", max_tokens=5))
            second = await running.start(request(mode="device", max_tokens=5, seed=4))
            assert (first.state, second.state) == (StreamState.RUNNING, StreamState.QUEUED)
            assert running.health()["queued"] == 1
            with pytest.raises(CapacityError, match="1 wait"):
                await running.start(request(mode="device"))
            replay, seen = Replay(), []
            await follow(second, replay, seen)
        return replay.last["figures"]["queued_ms"]["value"], reasons(seen), replay.last["finish_reason"]

    assert virtual_time.run(work()) == (pytest.approx(500), ["queued", "started"], "length")


def test_a_queued_answer_can_be_cancelled_and_gives_its_turn_back():
    async def work():
        async with agent_of(None, DraftEngine(step_s=0.1), max_streams=1, max_queued_streams=1) as running:
            first = await running.start(request(mode="device", tokens_per_s=1))
            queued = await running.start(request(mode="device", tokens_per_s=1))
            await queued.aclose()
            assert (queued.state, queued.ending["error"]) == (StreamState.ENDED, "link")
            again = await running.start(request(mode="device"))
            await first.aclose()
            await asyncio.sleep(0)
            assert again.state is StreamState.RUNNING
            assert running._places.promises._made == []

    virtual_time.run(work())


def test_an_answer_that_is_cancelled_before_its_task_ran_frees_its_place():
    async def work():
        async with agent_of(None, DraftEngine(step_s=0.1), max_streams=1) as running:
            for _ in range(3):
                stream = await running.start(request(mode="device"))
                await stream.aclose()
            assert running.num_streams == 0

    virtual_time.run(work())


def on_phone():
    return ShapedEngine(DraftEngine(), PhoneCost(phone("dimensity-9300"), parse_model("0.9B:int4")))


def test_a_rate_that_the_phone_cannot_keep_is_refused_before_the_first_event_and_one_of_the_cloud_is_not_asked():
    async def work():
        async with verifier() as made, agent_of(MemoryConnector(made), on_phone()) as running:
            with pytest.raises(InvalidRequestError, match=r"at most 9\d\.\d, not 500"):
                await running.start(request(tokens_per_s=500, mode="device"))
            assert running.num_streams == 0
            await (await running.start(request(tokens_per_s=500, mode="cloud"))).aclose()
            first = await running.start(request(tokens_per_s=75, mode="device", max_tokens=200))
            await (await running.start(request(tokens_per_s=75, mode="device", max_tokens=200))).aclose()
            await first.aclose()
            assert running._places.promises._made == []

    virtual_time.run(work())


def test_beside_a_verifier_a_rate_is_refused_at_which_the_last_answers_did_not_come():
    """Each pass takes half a second; an answer that was paused, or that the device wrote alone, tells nothing of that."""

    async def work():
        async with verifier(SlowEngine(0.5)) as made, agent_of(MemoryConnector(made), on_phone()) as running:
            pace = running._places.promises.pace
            stream = await running.start(request(max_tokens=80))
            stream.pause()
            stream.resume()
            await asyncio.sleep(0.1)
            stream.pause()
            await asyncio.sleep(0.1)
            stream.resume()
            await follow(stream, Replay(), [])
            await follow(await running.start(request(max_tokens=80, mode="device")), Replay(), [])
            assert pace.tokens_per_s is None
            replay = Replay()
            await follow(await running.start(request(max_tokens=80)), replay, [])
            rate = replay.last["figures"]["tokens_per_s"]["value"]
            assert pace.tokens_per_s == pytest.approx(rate, rel=0.02)  # counted from the first token on
            asked = request(tokens_per_s=pace.tokens_per_s)
            with pytest.raises(CapacityError, match=r"beside this verifier texts came at .* ask for"):
                await running.start(asked)
            assert running.num_streams == 0
            await (await running.start(replace(asked, tokens_per_s=0.8 * pace.tokens_per_s))).aclose()
            await (await running.start(replace(asked, mode="device"))).aclose()

    virtual_time.run(work())


def test_a_target_and_what_came_of_it_stand_in_the_figures():
    async def work():
        async with agent_of(None, on_phone()) as running:
            replay, seen = Replay(), []
            await follow(await running.start(request(tokens_per_s=5, mode="device")), replay, seen)
            return replay.last["figures"], running

    figures, running = virtual_time.run(work())
    assert figures["target_tokens_per_s"]["value"] == 5
    assert figures["achieved_tokens_per_s"]["value"] == pytest.approx(110, rel=0.05)
    assert figures["target_late_ms"]["value"] == 0
    assert running.metrics._targets == {"met": 1, "missed": 0}


def test_a_group_is_paused_resumed_and_cancelled_as_one_and_begins_paused_where_it_is():
    async def work():
        async with agent_of(None, DraftEngine(step_s=0.1)) as running:
            group = Group(running)
            await group.start(request(mode="device"))
            group.pause()
            await group.start(request(mode="device"))
            assert [stream.state for stream in group.running] == [StreamState.PAUSED] * 2
            group.resume()
            assert [stream.state for stream in group.running] == [StreamState.RUNNING] * 2
            await group.aclose()
            await group.aclose()
            assert group.running == ()

    virtual_time.run(work())
