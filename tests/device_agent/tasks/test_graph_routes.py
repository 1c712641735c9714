"""``/v1/tasks`` over real HTTP: what is told, what is refused, who may look, and that nothing runs on behind its client."""

from __future__ import annotations

import asyncio
import json
from xml.etree import ElementTree

import httpx
import jsonschema
import pytest
from httpx_sse import aconnect_sse

from device_agent.prompts import SHORT_PROMPT_BYTES
from device_agent.schema import graphs
from device_agent.server import serve
from device_agent.tasks import graph_routes
from tests.device_agent.doubles import DraftEngine, agent_of, config, facts, validate, wait_until
from tests.device_agent.test_door import serving as serving_with_keys
from tests.device_agent.test_resume import serving
from tests.support.keys import ALICE, BOB

DEFAULTS = {"mode": "device", "max_tokens": 8, "seed": 3}
TASKS = {"a": {"prompt": "x"}, "b": {"prompt": "y {{ a }}"}, "c": {"prompt": "z", "after": "a"}}
LONG = {"a": {"prompt": "x", "max_tokens": 200}, "b": {"prompt": "{{ a }}"}}
VALIDATOR = jsonschema.Draft202012Validator(graphs.events_schema())
STATUS = jsonschema.Draft202012Validator({"$ref": "#/$defs/status", "$defs": graphs.events_schema()["$defs"]})


def body(tasks=None, **defaults):
    return {"tasks": tasks or TASKS, "defaults": DEFAULTS | defaults}


async def run(client, asked, num_events=10**9):
    """The events of a graph, each judged by the schema; the connection is cut behind the last that is wanted."""
    events = []
    async with aconnect_sse(client, "POST", "/v1/tasks", json=asked) as source:
        source.response.raise_for_status()
        async for message in source.aiter_sse():
            event = json.loads(message.data)
            assert (message.id, message.event) == (str(event["seq"]), event["event"])
            VALIDATOR.validate(event)
            events.append(event)
            if len(events) == num_events:
                break
    return events


async def test_a_graph_is_told_as_it_happens_by_task_and_ends_with_all_results():
    async with serving() as (client, agent):
        events = await run(client, body())
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert [event["event"] for event in (events[0], events[-1])] == ["graph", "done"]
        for name in TASKS:
            told = [event["output"] for event in events if event["event"] == "output" and event["task"] == name]
            for event in told:
                validate(event)
            assert told[-1]["text"] == events[-1]["results"][name]["text"]
        states = [(event["task"], event["state"]) for event in events if event["event"] == "task"]
        assert states[:2] == [("a", "running"), ("a", "done")]
        assert events[-1]["status"] == "done"
        assert agent.num_streams == 0


async def test_lines_are_given_to_who_takes_them():
    async with serving() as (client, _):
        answer = await client.post("/v1/tasks", json=body(), headers={"accept": "application/x-ndjson"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        events = [json.loads(line) for line in answer.text.splitlines()]
        assert events[-1]["status"] == "done"


async def test_the_example_of_the_document_is_served_as_it_says():
    async with serving() as (client, _):
        events = await run(client, graphs.REQUEST)
    example = [event.to_json() for event in graphs.events()]
    for event in json.loads(json.dumps(example)):
        VALIDATOR.validate(event)

    def skeleton(told):
        return [(each["event"], each.get("task"), each.get("state")) for each in told if each["event"] != "output"]

    assert skeleton(events) == skeleton(example)
    jsonschema.validate(graphs.REQUEST, graphs.request_schema())


async def test_a_graph_can_be_looked_at_and_drawn_while_it_runs_and_for_a_while_behind_its_end():
    async with serving(DraftEngine(step_s=0.02)) as (client, _), asyncio.TaskGroup() as tasks:
        begun, ended = asyncio.Event(), asyncio.Event()
        ids = []

        async def read():
            async with aconnect_sse(client, "POST", "/v1/tasks", json=body(LONG)) as source:
                async for message in source.aiter_sse():
                    ids.append(json.loads(message.data).get("graph_id"))
                    begun.set()
            ended.set()

        tasks.create_task(read())
        await begun.wait()
        path = f"/v1/tasks/{ids[0]}"
        for verb, status in (("", "running"), ("/pause", "paused"), ("/pause", "paused"), ("/resume", "running")):
            answer = await (client.post(path + verb) if verb else client.get(path))
            assert answer.json()["status"] == status, verb
        now = (await client.get(path)).json()
        STATUS.validate(now)
        assert [entry["state"] for entry in now["schedule"]] == ["running", "waiting"]
        picture = await client.get(path + "/timeline.svg")
        assert picture.headers["content-type"] == "image/svg+xml"
        assert picture.headers["content-security-policy"] == "default-src 'none'"
        ElementTree.fromstring(picture.content)
        assert (await client.delete(path)).json() == {"graph_id": ids[0], "status": "cancelled"}
        await ended.wait()
        last = (await client.get(path)).json()
        STATUS.validate(last)
        assert {name: result["state"] for name, result in last["results"].items()} == {"a": "cancelled", "b": "skipped"}
        for verb in ("pause", "resume"):
            assert (await client.post(f"{path}/{verb}")).json()["status"] == "cancelled"
        assert "cancelled" in (await client.get(path + "/timeline.svg")).text


async def test_a_client_that_goes_away_takes_its_graph_along():
    draft = DraftEngine(step_s=0.02)
    async with serving(draft) as (client, agent):
        graph_id = (await run(client, body(LONG), 3))[0]["graph_id"]
        await wait_until(lambda: agent.num_streams == 0)
        while (status := (await client.get(f"/v1/tasks/{graph_id}")).json()["status"]) == "running":
            pass
        assert status == "cancelled"
        assert not draft.open_caches
        assert (await run(client, body()))[-1]["status"] == "done"


@pytest.mark.parametrize(
    ("asked", "parameter", "told"),
    [
        (body({"a": {"prompt": "{{ b }}"}, "b": {"prompt": "{{ a }}"}}), "after", "go in a circle: "),
        (body({"a": {"prompt": "x"}, "b": {"prompt": "{{ aa }}"}}), "tasks.b.prompt", "nearest: a"),
        (
            body({"a": {"prompt": "x"}, "b": {"prompt": "{{ a }}", "max_tokens": 999}}),
            "tasks.b.max_tokens",
            "must be at most 255",
        ),
        (body({"a": {"prompt": "x", "tokens_per_s": 0}}), "tasks.a.tokens_per_s", "above 0"),
        (body({"a": {"prompt": "{% for x in y %}"}}), "tasks.a.prompt", "no template"),
        ({"tasks": TASKS, "more": 1}, "more", "unknown key 'more'; known: defaults, tasks"),
        ([], None, "the body must be a JSON object"),
    ],
)
async def test_a_graph_that_cannot_run_is_refused_with_the_field_and_what_would_be_right(asked, parameter, told):
    async with serving() as (client, agent):
        answer = await client.post("/v1/tasks", json=asked)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert told in error["message"]
        assert error["param"] == parameter or error["param"].endswith(parameter)
        assert agent.num_streams == 0


async def test_where_all_places_are_taken_a_graph_is_refused_with_when_to_come_again():
    async with serving(DraftEngine(step_s=0.02), max_streams=1, retry_after_s=1.5) as (client, _):
        other = {"prompt": "x", "mode": "device", "max_tokens": 200}
        async with aconnect_sse(client, "POST", "/v1/stream", json=other) as source:
            await anext(source.aiter_sse())
            answer = await client.post("/v1/tasks", json=body())
        assert (answer.status_code, answer.headers["retry-after-ms"]) == (429, "1500")
        assert "one of them has to end or be cancelled first" in answer.json()["error"]["message"]


async def test_no_more_graphs_run_at_once_than_may(monkeypatch):
    monkeypatch.setattr(graph_routes, "MAX_RUNNING", 1)
    async with serving(DraftEngine(step_s=0.02)) as (client, _):
        async with aconnect_sse(client, "POST", "/v1/tasks", json=body(LONG)) as source:
            events = source.aiter_sse()  # which closes the connection once it is gone
            await anext(events)
            answer = await client.post("/v1/tasks", json=body())
        assert answer.status_code == 429
        assert "1 graphs of sub-tasks run already" in answer.json()["error"]["message"]


async def test_graphs_that_are_still_judged_count_among_those_that_run(monkeypatch):
    monkeypatch.setattr(graph_routes, "MAX_RUNNING", 2)
    long = {"a": {"prompt": "x" * (SHORT_PROMPT_BYTES + 1)}}  # its tokens are counted on another thread
    agent = agent_of(None, DraftEngine(step_s=0.02), facts(encode=lambda text: [1, 2]))
    async with serve(config(), agent=agent) as running, httpx.AsyncClient(base_url=running.url) as client:
        answers = await asyncio.gather(*(client.post("/v1/tasks", json=body(long)) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
        assert (await client.post("/v1/tasks", json=body())).status_code == 200


async def test_what_is_not_kept_is_not_found_in_the_words_of_the_document():
    async with serving() as (client, _):
        path = f"/v1/tasks/{graphs.GRAPH_ID}"
        for method, verb in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("GET", "/timeline.svg")):
            answer = await client.request(method, path + verb)
            assert answer.status_code == 404
            example = graphs.look_operation()["responses"]["404"]["content"]["application/json"]["example"]
            assert answer.json() == example


async def test_a_graph_that_ended_is_forgotten_after_the_window():
    async with serving(resume_window_s=0.05) as (client, _):
        path = f"/v1/tasks/{(await run(client, body()))[0]['graph_id']}"
        while (answer := await client.get(path)).status_code == 200:
            pass
        assert answer.status_code == 404


async def test_another_tenants_graph_is_not_found_and_each_answer_counts_for_its_own(tmp_path, caplog):
    caplog.set_level("INFO")
    async with serving_with_keys(tmp_path, draft=DraftEngine(step_s=0.001)) as (client, _):
        alice, bob = await client(ALICE), await client(BOB)
        path = f"/v1/tasks/{(await run(alice, body()))[0]['graph_id']}"
        for method, verb in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("GET", "/timeline.svg")):
            assert (await bob.request(method, path + verb)).status_code == 404
            assert (await alice.request(method, path + verb)).status_code == 200
    told = [record for record in caplog.records if record.message == "a graph of sub-tasks ended"]
    assert [(record.tenant, record.status, record.sub_tasks) for record in told] == [("alice", "done", 3)]
    assert sum(record.message == "an answer ended" and record.tenant == "alice" for record in caplog.records) == 3
