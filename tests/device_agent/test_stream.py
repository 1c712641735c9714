"""The events of one answer and their one reader, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from device_agent.events import DoneEvent, SessionEvent, StateEvent
from device_agent.stream import Stream
from speculation.errors import InvalidRequestError
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from tests.device_agent.doubles import DraftEngine, SlowEngine, agent, agent_of, feed, request, verifier
from tests.device_agent.replay import Replay

BEGIN = SessionEvent(0, "id", "collaborate", "all", "draft", "full", "digest", None, None, 7)


def begun(max_events=16):
    stream = Stream(max_events)
    stream.begin(BEGIN)
    return stream


def states(first, stop):
    return [StateEvent(seq, "device", "offline") for seq in range(first, stop)]


def done(seq):
    return DoneEvent(seq, "stop", (1,), (), "", 0, {}, {})


async def everything(reader):
    seqs = []
    while events := await reader.take():
        seqs += [event.seq for event in events]
    return seqs


def run(work):
    return virtual_time.run(work)


def test_a_reader_takes_what_is_behind_its_place_also_after_the_end():
    stream = begun()
    stream.put([*states(1, 5), done(5)])
    for seq in range(-1, 6):
        assert run(everything(stream.read_after(seq))) == list(range(seq + 1, 6))


def test_what_follows_a_last_event_is_dropped():
    stream = begun()
    stream.put([done(1), *states(2, 4)])
    stream.ended()
    assert run(everything(stream.read_after(-1))) == [0, 1]


@pytest.mark.parametrize("seq", [-2, 3, 10**17])
def test_a_place_that_is_none_is_refused_with_those_that_are(seq):
    stream = begun()
    stream.put(states(1, 3))
    with pytest.raises(InvalidRequestError, match="from 0 to 2") as caught:
        stream.read_after(seq)
    assert caught.value.parameter == "starting_after"


def test_the_newer_reader_takes_over_and_the_older_ends_even_while_it_waits():
    async def work():
        stream = begun()
        older = stream.reader
        await older.take()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(older.take())
            await asyncio.sleep(1)
            newer = stream.read_after(-1)
            assert await waiting == []
        stream.put([*states(1, 3), done(3)])
        assert await older.take() == []
        assert await everything(newer) == [0, 1, 2, 3]

    run(work())


def test_a_reader_that_was_taken_over_leaves_without_a_trace():
    async def work():
        async with agent_of(None, DraftEngine(step_s=1.0)) as running:
            stream = await running.start(request(mode="device"))
            older = stream.reader
            newer = stream.read_after(-1)
            await stream.leave(older, 0.0)
            await stream.leave(older, 5.0)
            await asyncio.sleep(60)
            assert (await everything(newer))[-1] == stream.next_seq - 1
            assert stream.after(stream.next_seq - 1)[0].name == "done"

    run(work())


def test_an_answer_whose_reader_is_gone_goes_on_for_the_grace_and_is_cancelled_then():
    async def work():
        draft = DraftEngine(step_s=0.25)
        async with verifier(SlowEngine(0.5)) as made, agent_of(MemoryConnector(made), draft) as running:
            stream = await running.start(request(max_tokens=200))
            await stream.take()
            await stream.leave(stream.reader, 5.0)
            await asyncio.sleep(4.9)
            assert (running.num_streams, made.num_sessions) == (1, 1)
            seq_then = stream.next_seq
            await asyncio.sleep(1.0)
            assert (running.num_streams, made.num_sessions, draft.open_caches) == (0, 0, set())
            assert seq_then > 5
            assert stream.after(stream.next_seq - 1)[0].error["code"] == "link"

    run(work())


def test_a_reader_that_comes_back_within_the_grace_keeps_the_answer():
    async def work():
        async with agent_of(None, DraftEngine(step_s=1.0)) as running:
            stream = await running.start(request(mode="device"))
            events = await stream.take()
            await stream.leave(stream.reader, 5.0)
            await asyncio.sleep(4.9)
            reader = stream.read_after(events[-1].seq)
            while more := await reader.take():
                events += more
            return events

    replay = Replay()
    for event in run(work()):
        feed(replay, event.to_json())
    assert replay.last["event"] == "done"


def test_a_grace_that_began_anew_does_not_end_with_the_first():
    async def work():
        async with agent_of(None, DraftEngine(step_s=1.0)) as running:
            stream = await running.start(request(mode="device", max_tokens=20))
            for _ in range(2):
                await stream.leave(stream.reader, 5.0)
                await asyncio.sleep(3.0)
            await everything(stream.read_after(-1))
            return stream.after(stream.next_seq - 1)[0].name

    assert run(work()) == "done"


def writing(tasks, stream, rest_s, given_back):
    """A task that writes until it is cancelled, and takes ``rest_s`` to give back what it held."""

    async def write():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(rest_s)
            given_back.append(True)

    task = tasks.create_task(write())
    stream.run_by(task, SimpleNamespace(is_queued=False), SimpleNamespace(is_paused=False))
    return task


def test_an_answer_that_is_broken_off_is_cancelled():
    async def work():
        async with asyncio.TaskGroup() as tasks:
            stream = begun(max_events=2)
            task = writing(tasks, stream, 0.0, [])
            await asyncio.sleep(0)
            stream.put(states(1, 3))
            return stream.has_last, task.cancelling()

    assert run(work()) == (True, 1)


def test_an_answer_that_is_closed_twice_gives_back_what_it_held():
    async def work():
        async with asyncio.TaskGroup() as tasks:
            stream, given_back = begun(), []
            task = writing(tasks, stream, 1.0, given_back)
            await asyncio.sleep(0)
            await asyncio.gather(stream.aclose(), stream.aclose())
            assert (task.cancelling(), given_back) == (1, [True])

    run(work())


def test_an_answer_is_cancelled_at_the_moment_at_which_a_wait_of_its_own_ends():
    async def work():
        limits = []

        async def write():
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None) as limit:
                        limits.append(limit)
                        await asyncio.sleep(1000)

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            stream, task = begun(), tasks.create_task(write())
            stream.run_by(task, SimpleNamespace(is_queued=False), SimpleNamespace(is_paused=False))
            await asyncio.sleep(0)
            limits[0].reschedule(asyncio.get_running_loop().time())
            await asyncio.sleep(0)
            assert task.cancelling(), "by the wait"
            await stream.aclose()
            return len(limits)

    assert run(work()) == 1


def test_an_answer_that_has_said_all_is_not_cut_off_while_it_ends():
    async def work():
        async with asyncio.TaskGroup() as tasks:
            stream = begun()
            task = writing(tasks, stream, 0.0, [])
            stream.put([done(1)])
            closing = tasks.create_task(stream.aclose())
            await asyncio.sleep(1)
            assert (closing.done(), task.cancelling()) == (False, 0)
            task.cancel()

    run(work())


@pytest.mark.parametrize("max_streams", [1, 2])
@pytest.mark.parametrize("rest_s", [0.0, 0.1])
def test_an_answer_that_is_cancelled_while_it_is_paused_is_not_ended_again_when_that_would_be_too_long(
    max_streams, rest_s, caplog
):
    """Wherever it was: waiting for its place, or before its task ran."""

    async def work():
        settings = {"max_streams": max_streams, "max_queued_streams": 1, "max_pause_s": 5.0}
        async with agent_of(None, DraftEngine(step_s=1.0), **settings) as running:
            first, second = [await running.start(request(mode="device")) for _ in range(2)]
            await asyncio.sleep(rest_s)
            second.pause()
            await second.aclose()
            await asyncio.sleep(10)
            await first.aclose()
            return second.ending

    assert (run(work()), caplog.records) == ({"status": "error", "error": "link"}, [])


def test_only_an_answer_that_is_not_over_pauses_and_goes_on():
    stream, heard = begun(), []
    pausing = SimpleNamespace(pause=lambda: heard.append("pause"), resume=lambda: heard.append("resume"))
    stream.run_by(None, None, pausing)
    stream.pause()
    stream.resume()
    stream.put([done(1)])
    stream.pause()
    stream.resume()
    assert heard == ["pause", "resume"]


def test_without_a_grace_the_answer_has_ended_when_its_reader_has_left():
    async def work():
        draft = DraftEngine(step_s=1.0)
        async with agent_of(None, draft) as running:
            stream = await running.start(request(mode="device"))
            await asyncio.sleep(2.5)
            await stream.leave(stream.reader, 0.0)
            assert stream.has_last
            assert (running.num_streams, draft.open_caches) == (0, set())

    run(work())


def test_an_answer_that_nobody_reads_ends_with_an_error_at_the_bound():
    async def work():
        draft = DraftEngine(step_s=0.01)
        async with agent(draft, SlowEngine(0.05), max_stream_events=50) as running:
            stream = await running.start(request(max_tokens=200))
            await asyncio.sleep(60)
            assert running.num_streams == 0
            assert draft.open_caches == set()
            return await stream.take()

    events = run(work())
    assert [event.seq for event in events] == list(range(51))
    assert events[-1].error["code"] == "capacity"
    assert "50 events" in events[-1].error["message"]


def test_an_answer_that_is_read_may_have_any_number_of_events():
    async def work():
        async with agent(DraftEngine(step_s=0.01), SlowEngine(0.05), max_stream_events=50) as running:
            stream = await running.start(request(max_tokens=200))
            seqs = await everything(stream.reader)
            assert len(stream.after(seqs[-1] - 20)) == 21
            return seqs, stream

    seqs, stream = run(work())
    assert seqs == list(range(len(seqs)))
    assert len(seqs) > 200
    with pytest.raises(InvalidRequestError, match=f"from [0-9]+ to {seqs[-1]}, not left out"):
        stream.read_after(-1)


def test_only_what_was_read_is_dropped_for_room():
    """Ten that were read make room for six, beside ten that are free already; the next one breaks the answer off."""
    stream = begun(max_events=16)
    stream.put(states(1, 10))
    run(stream.take())
    stream.put(states(10, 26))
    assert not stream.has_last
    stream.put(states(26, 27))
    events = run(stream.take())
    assert [event.seq for event in events] == list(range(10, 27))
    assert events[-1].error["code"] == "capacity"


def test_a_reader_that_keeps_up_needs_room_for_few_events():
    stream = begun(max_events=2)
    stream.put(states(1, 2))
    run(stream.take())
    stream.put(states(2, 4))
    assert not stream.has_last
    assert [event.seq for event in run(stream.take())] == [2, 3]
