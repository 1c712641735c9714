"""``outrider tasks``, and graphs of sub-tasks by the three ways from Python, on the bundled pair and on a real agent."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from device_agent.formats import SSE
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, OutputEvent, TaskEvent
from outrider import DeviceAgent, cli, task_graph
from outrider.client import Client, SyncClient
from outrider.client.graphs import graph_event_of
from speculation.errors import InvalidRequestError, LinkError, MalformedMessageError
from tests.device_agent.doubles import DraftEngine, wait_until
from tests.outrider.answers import agent_that_answers, stream_of
from tests.outrider.test_sync_client import serving
from tests.support.code_blocks import ROOT

GRAPH = {
    "defaults": {"mode": "device", "max_tokens": 6, "seed": 3},
    "tasks": {"a": {"prompt": "x"}, "b": {"prompt": "y {{ a }}"}, "bad": {"prompt": "{{ a }}", "max_tokens": 253}},
}
EXAMPLE = ROOT / "examples" / "graph.toml"


@pytest.fixture
def graph_file(tmp_path):
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(GRAPH))
    return file


async def test_the_clients_and_the_agent_inside_a_program_give_the_same_events():
    def work(url):
        with SyncClient(url) as client:
            return list(client.tasks(GRAPH))

    async with serving() as (running, _):
        async with Client(running.url) as client:
            events = [event async for event in client.tasks(GRAPH)]
        others = await asyncio.to_thread(work, running.url)
    assert {name: result["state"] for name, result in events[-1].results.items()} == {"a": "done", "b": "done", "bad": "failed"}
    assert events[-1].results == others[-1].results
    assert isinstance(events[-1], GraphDoneEvent)
    assert {type(event).name for event in events} == {"graph", "task", "output", "done"}
    assert any(isinstance(event, OutputEvent) and event.output.name == "done" for event in events)


async def test_silence_behind_an_event_is_not_read_as_one():
    events = [GraphBegunEvent(0, "g", 1, []), GraphDoneEvent(1, "g", "done", 1.0, [], {}, [])]
    told = b"".join(SSE.encode(event).encode() + SSE.keep_alive for event in events)
    async with agent_that_answers(stream_of() + told) as (url, _), Client(url) as client:
        assert [event async for event in client.tasks(GRAPH)] == events


async def test_leaving_early_cancels_the_graph():
    long = {"tasks": {"a": {"prompt": "x", "max_tokens": 200, "mode": "device"}}}
    async with serving(DraftEngine(step_s=0.02)) as (running, agent), Client(running.url) as client:
        events = client.tasks(long)
        await anext(events)
        await events.aclose()
        await wait_until(lambda: agent.num_streams == 0)


async def test_a_refusal_and_an_agent_that_is_not_there_are_errors_of_the_tree(unused_tcp_port):
    async with serving() as (running, _), Client(running.url) as client:
        with pytest.raises(InvalidRequestError, match="go in a circle") as refused:
            await anext(client.tasks({"tasks": {"a": {"prompt": "{{ a }}"}}}))
        assert refused.value.parameter == "tasks.a.after"
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(LinkError, match="no answer from an agent"):
            await anext(client.tasks(GRAPH))


def test_what_a_newer_agent_sends_is_left_out_and_what_lacks_a_field_is_refused():
    assert graph_event_of("weather", {}) is None
    assert graph_event_of("output", {"seq": 1, "task": "a", "output": {"event": "weather", "seq": 0}}) is None
    told = graph_event_of("task", {"seq": 1, "task": "a", "state": "done", "at_ms": 1.0, "error": None, "more": 1})
    assert told == TaskEvent(1, "a", "done", 1.0, None)
    for name, fields in (("task", {"seq": 1}), ("output", {"seq": 1, "task": "a", "output": {"seq": 0}})):
        with pytest.raises(MalformedMessageError, match="lacks a field"):
            graph_event_of(name, fields)


async def test_the_agent_inside_a_program_runs_a_graph():
    async with DeviceAgent(verifier=None) as agent:
        asked = {
            "tasks": {"a": {"prompt": "The module"}, "b": {"prompt": "{{ a }}"}},
            "defaults": {"max_tokens": 3, "mode": "device"},
        }
        events = [event async for event in agent.tasks(asked)]
        assert events[-1].status == "done"
        with pytest.raises(InvalidRequestError, match="nearest: a"):
            await anext(agent.tasks({"tasks": {"a": {"prompt": "x"}, "b": {"prompt": "{{ aa }}"}}}))
        events = agent.tasks({"tasks": {"a": {"prompt": "The module", "max_tokens": 500, "mode": "device"}}})
        await anext(events)
        await events.aclose()
        assert agent.num_streams == 0


async def command(outrider, *arguments):
    return await asyncio.to_thread(outrider, "tasks", *arguments)


async def test_the_command_prints_results_tells_what_failed_and_draws(outrider, graph_file, tmp_path):
    picture = tmp_path / "schedule.svg"
    async with serving() as (running, _):
        code, out, err = await command(outrider, graph_file, "--agent", running.url, "--svg", picture)
    assert code == 1
    assert out.startswith("== a ==\n")
    assert "== bad ==" not in out
    assert "outrider: error: sub-task bad failed: max_tokens must be at most" in err
    assert "outrider: failed in " in err
    assert "✗ failed" in picture.read_text("utf-8")
    ElementTree.parse(picture)


async def test_for_programs_it_prints_events_and_a_refusal_is_the_last_of_them(outrider, graph_file, tmp_path):
    async with serving(max_prompt_bytes=50) as (running, _):
        code, out, _ = await command(outrider, graph_file, "--agent", running.url, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert (code, events[0]["event"], events[-1]["status"]) == (1, "graph", "failed")
        graph_file.write_text(json.dumps({"tasks": {"a": {"prompt": "x" * 51}}}))
        code, out, err = await command(outrider, graph_file, "--agent", running.url, "--json")
        assert (code, json.loads(out)["error"]["param"]) == (2, "tasks.a.prompt")
        assert "outrider: error: sub-task 'a': the prompt has 51 bytes" in err


def test_the_example_runs_on_the_bundled_pair(outrider):
    code, out, err = outrider("tasks", EXAMPLE)
    assert code == 0, err
    assert [name for name in ("opening", "function", "exception", "summary") if f"== {name} ==" not in out] == []
    assert "outrider: done in " in err


def test_an_agent_of_its_own_has_a_place_for_each_sub_task(outrider, tmp_path):
    file = tmp_path / "wide.json"
    tasks = {f"part{number}": {"prompt": "The module provides", "max_tokens": 2} for number in range(6)}
    file.write_text(json.dumps({"tasks": tasks}))
    code, out, err = outrider("tasks", file, "--json")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["max_at_once"] == len(tasks)
    states = [event["state"] for event in events if event["event"] == "task"]
    assert states[: len(tasks)] == ["running"] * len(tasks)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("g.json", "{", "is no JSON in UTF-8"),
        ("g.toml", "= 3", "is no TOML in UTF-8"),
        ("g.json", "[]", "must hold an object with tasks"),
        ("g.json", b"\xff", "is no JSON in UTF-8"),
        ("g.json", " " * 1_000_001, "a graph has at most 1000000"),
        ("g.toml", '[tasks.a]\nprompt = "{{ b }}"', "takes in 'b', which is none of this graph"),
        ("g.json", None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_graph_is_bad_input_before_anything_is_loaded(
    outrider, tmp_path, name, content, told, monkeypatch
):
    monkeypatch.setattr(task_graph, "client_at", lambda *_, **__: pytest.fail("models are loaded"))
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = outrider("tasks", file)
    assert (code, out) == (2, "")
    assert told in err


def test_a_picture_that_cannot_be_written_is_refused_first(outrider, graph_file, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere" / "x.svg"):
        code, _, err = outrider("tasks", graph_file, "--svg", place)
        assert code == 2
        assert "name a file in a folder that is there" in err


def test_a_picture_that_the_system_refuses_is_told_before_the_graph_runs_and_nothing_is_left(
    outrider, graph_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(task_graph, "client_at", lambda *_, **__: pytest.fail("models are loaded"))
    for place in (Path("/proc/schedule.svg"), tmp_path / f"{'x' * 300}.svg"):
        code, out, err = outrider("tasks", graph_file, "--svg", place)
        assert (code, out) == (2, "")
        assert f"--svg {place} cannot be written: " in err
    kept = tmp_path / "kept.svg"
    kept.write_text("as it was")
    for place in (kept, tmp_path / "new.svg"):
        assert task_graph.Asked.of(graph_file, place).svg == place
    assert kept.read_text() == "as it was"
    assert sorted(tmp_path.iterdir()) == [graph_file, kept]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that takes nothing")
def test_a_disk_that_is_full_once_the_graph_has_run_is_a_failure_and_no_bad_input(capsys):
    last = GraphDoneEvent(0, "a graph", "done", 1.0, (), {}, ())
    assert cli.run(lambda: task_graph._draw(last, Path("/dev/full"))) == 1
    assert capsys.readouterr().err == "outrider: error: /dev/full: No space left on device\n"


def test_a_log_gets_lines_alone_whatever_asks_for_colours(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert task_graph.Progress()._live is None


class Screen(io.StringIO):
    """A terminal's."""

    def isatty(self):
        return True


async def test_on_a_terminal_a_row_for_each_sub_task_shows_the_end_of_its_text_and_runs_no_markup(monkeypatch):
    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(task_graph, "Console", lambda **_: console)
    async with serving() as (running, _), Client(running.url) as client:
        with task_graph.Progress() as progress:
            async for event in client.tasks(GRAPH):
                progress.show(event)
    shown = screen.getvalue()
    assert "✓ a" in shown
    assert "✗ bad" in shown
