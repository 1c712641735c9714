"""Graphs of sub-tasks on a real agent, under the virtual clock: order, places, failures, pauses, cancelling, privacy."""

from __future__ import annotations

import asyncio

import pytest

from device_agent.tasks.graph import TaskGraph
from device_agent.tasks.graph_events import OutputEvent, TaskEvent
from device_agent.tasks.graph_run import MAX_REFUSED_S, GraphRun, running
from speculation.errors import CapacityError, EngineError, InvalidRequestError
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    decode,
    plain_decoding,
    request,
    verifier,
)
from tests.device_agent.tasks.test_pausing import on_phone

STEP_S = 0.01
DIAMOND = {
    "start": {"prompt": "the prompt"},
    "long": {"prompt": "l {{ start }}", "max_tokens": 30},
    "short": {"prompt": "s {{ start | words(1) }}"},
    "end": {"prompt": "{{ long }}; {{ short }}"},
}


def graph(tasks=DIAMOND, **defaults):
    return TaskGraph.from_json({"tasks": tasks, "defaults": {"mode": "device", "max_tokens": 10, "seed": 3} | defaults})


async def events_of(run):
    events = []
    while told := await run.take():
        events += told
    return events


async def whole(made, asked, **options):
    async with running(made, asked, **options) as run:
        return await events_of(run)


def alone(asked, **changes):
    """All events of a graph on a device that is alone."""

    async def work():
        async with agent_of(None, DraftEngine(step_s=STEP_S), **changes) as made:
            events = await whole(made, asked)
            assert made.num_streams == 0
            return events

    return virtual_time.run(work())


def states(events):
    return [(event.task, event.state) for event in events if isinstance(event, TaskEvent)]


def test_each_begins_once_what_it_waits_for_is_done_and_those_that_are_ready_run_together():
    events = alone(graph())
    assert states(events) == [
        ("start", "running"),
        ("start", "done"),
        ("long", "running"),
        ("short", "running"),
        ("short", "done"),
        ("long", "done"),
        ("end", "running"),
        ("end", "done"),
    ]
    assert [event.seq for event in events] == list(range(len(events)))
    last = events[-1]
    assert (last.status, last.critical_path) == ("done", ["start", "long", "end"])
    assert last.makespan_ms == pytest.approx(1000 * STEP_S * (10 + 30 + 10), rel=0.05)


def test_each_is_the_answer_that_its_prompt_has_alone():
    events = alone(graph())
    results = events[-1].results
    first = decode(plain_decoding(DraftEngine(), 10))
    assert results["start"]["text"] == first

    async def work():
        async with agent_of(None, DraftEngine(step_s=STEP_S)) as made:
            prompt = f"{results['long']['text']}; {results['short']['text']}"
            async for event in made.stream(request(prompt=prompt, mode="device", max_tokens=10)):
                last = event
            return last.text

    assert virtual_time.run(work()) == results["end"]["text"]
    outputs = [event for event in events if isinstance(event, OutputEvent) and event.task == "end"]
    assert [event.output.seq for event in outputs] == list(range(len(outputs)))


@pytest.mark.parametrize("mode", ["device", "collaborate", "cloud"])
def test_a_sub_task_is_visible_from_its_first_text_on_whoever_writes_it(mode):
    async def work():
        async with agent(DraftEngine(step_s=STEP_S), SlowEngine(0.1)) as made:
            return await whole(made, graph({"a": {"prompt": "x"}}, mode=mode))

    (entry,) = virtual_time.run(work())[-1].schedule
    first_ms = 100 if mode == "cloud" else 1000 * STEP_S
    assert (entry["visible_ms"], entry["ended_ms"] > 5 * first_ms) == (pytest.approx(first_ms, rel=0.5), True)


def test_no_more_run_at_once_than_there_are_places_and_the_longest_chain_goes_first():
    tasks = {name: {"prompt": "x", "max_tokens": tokens} for name, tokens in {"a": 5, "b": 20, "c": 10, "d": 15}.items()}
    events = alone(graph(tasks), max_streams=2)
    assert [task for task, state in states(events) if state == "running"] == ["b", "d", "c", "a"]
    assert 25 <= events[-1].makespan_ms / (1000 * STEP_S) <= 28  # who comes to a step that runs waits for its end
    assert max(entry["lane"] for entry in events[-1].schedule) == 1


def test_no_more_run_at_once_than_the_graph_may_though_there_are_places_and_a_queue():
    async def work():
        async with agent_of(None, DraftEngine(step_s=STEP_S), max_streams=4, max_queued_streams=4) as made:
            tasks = {name: {"prompt": "x"} for name in "abc"}
            return await whole(made, graph(tasks), width=1)

    found = states(virtual_time.run(work()))
    assert [state for _, state in found] == ["running", "done"] * 3


def test_a_failed_sub_task_ends_those_that_wait_for_it_with_its_reason_and_the_rest_goes_on():
    tasks = {
        "a": {"prompt": "x"},
        "b": {"prompt": "{{ a }}", "max_tokens": 250},  # fits a short prompt, not this one
        "c": {"prompt": "{{ b }}"},
        "d": {"prompt": "{{ a }}"},
    }
    last = alone(graph(tasks))[-1]
    assert last.status == "failed"
    found = {name: result["state"] for name, result in last.results.items()}
    assert found == {"a": "done", "b": "failed", "c": "skipped", "d": "done"}
    assert "max_tokens must be at most 246" in last.results["b"]["error"]["message"]
    assert "'c' waits for 'b', and 'b' failed: max_tokens must be at most" in last.results["c"]["error"]["message"]


def test_an_engine_that_fails_ends_the_graph_in_order():
    async def work():
        draft = DraftEngine(step_s=STEP_S)
        async with agent_of(None, draft) as made, running(made, graph()) as run:
            await asyncio.sleep(15 * STEP_S)
            draft.failure = EngineError("out of memory")
            return await events_of(run)

    last = virtual_time.run(work())[-1]
    assert {result["state"] for result in last.results.values()} == {"done", "failed", "skipped"}
    assert "out of memory" in last.results["end"]["error"]["message"]


def refused(asked, kind, match, draft=None, **changes):
    async def work():
        async with agent_of(None, draft or DraftEngine(step_s=STEP_S), **changes) as made:
            with pytest.raises(kind, match=match) as told:
                await GraphRun(made, asked).open()
            assert made.num_streams == 0
            return told.value

    return virtual_time.run(work())


def test_what_could_never_run_here_is_refused_before_anything_does():
    late = {"a": {"prompt": "x"}, "b": {"prompt": "{{ a }}", "max_tokens": 500}}
    error = refused(graph(late), InvalidRequestError, "sub-task 'b': max_tokens must be at most 255")
    assert error.parameter == "tasks.b.max_tokens"
    refused(graph({"a": {"prompt": "x", "mode": "cloud"}}), InvalidRequestError, "'a': mode cloud needs a verifier")
    long = {"a": {"prompt": "x"}, "b": {"prompt": "{{ a }}" + "y" * 99}}
    refused(graph(long), InvalidRequestError, "'b': the prompt has 99 bytes; .* at most 50", max_prompt_bytes=50)
    fast = {"a": {"prompt": "x"}, "b": {"prompt": "{{ a }}", "tokens_per_s": 500}}
    error = refused(
        graph(fast), InvalidRequestError, r"sub-task 'b': tokens_per_s must be at most 9\d\.?\d*, not 500", on_phone()
    )
    assert error.parameter == "tasks.b.tokens_per_s"


def test_where_nothing_can_begin_the_graph_is_refused_with_when_to_come_again():
    async def work():
        async with agent_of(None, DraftEngine(step_s=STEP_S), max_streams=1, retry_after_s=1.5) as made:
            await made.start(request(mode="device", max_tokens=100))
            with pytest.raises(CapacityError, match="1 answers are being written already; one of them has to end") as full:
                await GraphRun(made, graph()).open()
            assert full.value.retry_after_s == 1.5

    virtual_time.run(work())


def test_a_sub_task_waits_for_a_place_that_somebody_else_has_and_in_the_end_fails_with_that_refusal():
    async def work(other_s):
        made = agent_of(None, DraftEngine(step_s=STEP_S), max_streams=1, retry_after_s=1.0)
        async with made, running(made, graph()) as run:
            while not run.board.entries["start"].ended_ms:
                await run.take()
            run.pause()  # until another one has the place
            await asyncio.sleep(1)
            other = await made.start(request(mode="device"))
            other.pause()
            run.resume()
            await asyncio.sleep(other_s)
            await other.aclose()
            return await events_of(run)

    assert virtual_time.run(work(10.0))[-1].status == "done"
    last = virtual_time.run(work(MAX_REFUSED_S + 10))[-1]
    assert last.results["long"]["state"] == "failed"
    assert "answers are being written already" in last.results["long"]["error"]["message"]


def test_a_pause_is_no_time_in_which_there_was_no_room_for_a_sub_task():
    async def work():
        made = agent_of(None, DraftEngine(step_s=STEP_S), max_streams=1, retry_after_s=1.0, max_pause_s=1000.0)
        async with made, running(made, graph()) as run:
            while not run.board.entries["start"].ended_ms:
                await run.take()
            run.pause()
            await asyncio.sleep(1)
            other = await made.start(request(mode="device"))
            other.pause()
            run.resume()
            await asyncio.sleep(10)  # refused
            run.pause()
            await asyncio.sleep(MAX_REFUSED_S)
            run.resume()
            await asyncio.sleep(10)  # refused again, and tried again
            await other.aclose()
            return await events_of(run)

    assert virtual_time.run(work())[-1].status == "done"


def test_a_paused_graph_begins_nothing_and_goes_on_with_the_same_texts():
    async def work(pause_s):
        async with agent_of(None, DraftEngine(step_s=STEP_S)) as made, running(made, graph()) as run:
            await asyncio.sleep(15 * STEP_S)
            if pause_s:
                run.pause()
                run.pause()
                await asyncio.sleep(pause_s)
                assert run.status == "paused"
                run.resume()
            return (await events_of(run))[-1]

    plain, paused = virtual_time.run(work(0)), virtual_time.run(work(100.0))
    assert [paused.results[name]["text"] for name in DIAMOND] == [plain.results[name]["text"] for name in DIAMOND]
    assert paused.makespan_ms == pytest.approx(plain.makespan_ms + 100_000, rel=0.01)


def test_a_pause_that_is_too_long_cancels_the_whole():
    async def work():
        async with agent_of(None, DraftEngine(step_s=STEP_S), max_pause_s=5.0) as made, running(made, graph()) as run:
            run.pause()
            last = (await events_of(run))[-1]
            assert made.num_streams == 0
            return last

    last = virtual_time.run(work())
    assert last.status == "cancelled"
    assert {result["state"] for result in last.results.values()} == {"cancelled", "skipped"}
    assert "paused for 5 s, which is as long as it may be" in last.results["end"]["error"]["message"]


def test_a_graph_that_is_cancelled_ends_all_its_answers_and_says_so():
    async def work():
        draft = DraftEngine(step_s=STEP_S)
        async with agent_of(None, draft) as made, running(made, graph()) as run:
            await asyncio.sleep(15 * STEP_S)
            await run.aclose()
            await run.aclose()
            assert (made.num_streams, draft.open_caches) == (0, set())
            return await events_of(run)

    events = virtual_time.run(work())
    assert events[-1].status == "cancelled"
    assert {name: result["state"] for name, result in events[-1].results.items()} == {
        "start": "done",
        "long": "cancelled",
        "short": "cancelled",
        "end": "skipped",
    }


def test_leaving_the_block_and_an_agent_that_stops_end_everything():
    async def work():
        draft = DraftEngine(step_s=STEP_S)
        async with agent_of(None, draft) as made:
            async with running(made, graph()):
                await asyncio.sleep(15 * STEP_S)
            assert not draft.open_caches
            with pytest.raises(KeyError, match="of the block"):
                async with running(made, graph()):
                    raise KeyError("of the block")
            assert not draft.open_caches
            async with running(made, graph()) as run:
                await asyncio.sleep(15 * STEP_S)
                await made.drain(0.0)
                return (await events_of(run))[-1]

    last = virtual_time.run(work())
    assert last.status == "failed"
    assert last.results["long"]["error"]["code"] == "link"


def test_where_nobody_takes_events_answers_are_not_read_on_and_nothing_grows():
    async def work():
        made = agent_of(None, DraftEngine(step_s=STEP_S), max_stream_events=20)
        async with made, running(made, graph()) as run:
            await asyncio.sleep(100)
            assert len(run._events) < 20 * 3
            return await events_of(run)

    last = virtual_time.run(work())[-1]
    assert "nobody read 20 events" in str(last.results)


def test_nothing_of_what_stays_on_the_device_is_sent_not_even_inside_another_sub_task():
    async def work():
        async with verifier(SlowEngine(0.01)) as made:
            connector = WatchedConnector(MemoryConnector(made))
            private = {"privacy": "device_only", "mode": "device"}
            tasks = {
                "secret": {"prompt": "x", **private},
                "about_it": {"prompt": "{{ secret }}", **private},
                "open": {"prompt": "the prompt", "mode": "collaborate", "after": "about_it"},
            }
            async with agent_of(connector, DraftEngine(step_s=STEP_S)) as running_agent:
                last = (await whole(running_agent, graph(tasks)))[-1]
            return last, connector.links

    last, links = virtual_time.run(work())
    assert last.status == "done"
    assert len(links) == 1
    assert last.results["open"]["text"] == decode(plain_decoding(FullEngine(), 10))


def test_beside_a_verifier_every_result_is_the_full_models_own():
    async def work():
        async with agent(DraftEngine(0.6, step_s=STEP_S), SlowEngine(0.03)) as made:
            return await whole(made, graph(mode="collaborate"))

    results = virtual_time.run(work())[-1].results
    assert results["start"]["text"] == decode(plain_decoding(FullEngine(), 10))
