"""When what happened in an answer: by hand, to the microsecond under the virtual clock, and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import httpx
import jsonschema
import pytest

from device_agent import schema, timeline_routes
from device_agent.server import serve
from device_agent.timeline import PHONE_EVERY_S, Timeline
from speculation.links.base import LinkStatistics
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Draft, Node, Timing, Verdict, VerdictKind
from speculation.shaping import profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, PhoneCost
from speculation.shaping.phone_state import Heat, PhoneState
from speculation.tenants import bearer
from speculation.wire.codec import encoded_size
from tests.device_agent.doubles import PROMPT, DraftEngine, FullEngine, agent_of, config, plain_decoding, request, verifier
from tests.device_agent.emulated import DRAFT, FULL, emulating
from tests.support.keys import ALICE, BOB, key_file

ITEM = jsonschema.Draft202012Validator(schema.timeline_schema())
DEFAULT = {"phone": "dimensity-9300", "network": "5g-nsa-low", "cloud": "mi300x"}
BEGAN_S = 1000.0


def draft(first: int, last: int) -> Draft:
    return Draft(tuple(Node(number, number - 1 if number > 1 else 0, 5, 3) for number in range(first, last + 1)), 3)


def told(timeline: Timeline) -> list[dict]:
    """All items that are there."""
    timeline.close()
    items = [item.to_json() for item in asyncio.run(timeline.after(-1))]
    for item in items:
        ITEM.validate(item)
    return items


# By hand.


def test_times_are_milliseconds_since_the_answer_began():
    timeline = Timeline(BEGAN_S)
    timeline.drafted(BEGAN_S + 0.010, BEGAN_S + 0.019, 1)
    assert told(timeline) == [{"kind": "draft", "start_ms": 10, "end_ms": 19, "tokens": 1}]


def test_a_flight_ends_when_the_network_says_so_or_else_when_it_was_handed_over():
    timeline = Timeline(BEGAN_S)
    timeline.sent(draft(1, 2), LinkStatistics(), BEGAN_S, BEGAN_S + 0.001)
    timeline.sent(draft(3, 3), LinkStatistics(arrives_s=BEGAN_S + 0.5), BEGAN_S + 0.4, BEGAN_S + 0.4)
    first, second = told(timeline)
    size = encoded_size(draft(1, 2))
    assert first == {"kind": "up", "start_ms": 0, "end_ms": 1, "bytes": size, "nodes": 2}
    assert (second["start_ms"], second["end_ms"], second["nodes"]) == (400, 500, 1)


def test_a_verdict_that_tells_its_times_shows_its_pass_and_the_round_trip():
    timeline = Timeline(BEGAN_S)
    timeline.opened(0.2, BEGAN_S + 0.2)
    timeline.sent(draft(1, 2), LinkStatistics(), BEGAN_S + 0.3, BEGAN_S + 0.3)
    # 50 ms up, 20 ms in the queue, a pass of 40 ms, 50 ms down.
    timing = Timing(40_000, 3, held_us=60_000)
    timeline.verdict(Verdict(3, 2, 2, 7, VerdictKind.ACCEPT, timing=timing), BEGAN_S + 0.46)
    link, _, way, run, verdict = told(timeline)
    assert link == {"kind": "link", "at_ms": 200, "rtt_ms": 200}
    assert way == {"kind": "link", "at_ms": 460, "rtt_ms": 100}
    assert run == {"kind": "pass", "start_ms": 370, "end_ms": 410, "rows": 3}
    assert verdict == {"kind": "verdict", "at_ms": 460, "start": 3, "accepted": 2, "verdict": "accept"}


def test_a_verdict_without_times_or_without_a_node_that_is_known_measures_nothing():
    timeline = Timeline(BEGAN_S)
    timeline.verdict(Verdict(3, 0, 0, 7, VerdictKind.DECODED), BEGAN_S + 0.1)
    timeline.verdict(Verdict(4, 1, 9, 7, VerdictKind.REVOKE_AND_CORRECT, timing=Timing(1_000, 2, 500)), BEGAN_S + 0.2)
    assert [item["kind"] for item in told(timeline)] == ["verdict", "pass", "verdict"]


@pytest.mark.parametrize(("before", "behind"), [(3, 1), (1, 3)])
def test_nodes_of_a_new_stream_are_other_nodes(before, behind):
    timeline = Timeline(BEGAN_S)
    timeline.sent(draft(1, before), LinkStatistics(), BEGAN_S, BEGAN_S)
    timeline.sent(draft(1, behind), LinkStatistics(), BEGAN_S + 1, BEGAN_S + 1)
    timeline.verdict(Verdict(3, 1, 1, 7, VerdictKind.ACCEPT, timing=Timing(0, 2, 0)), BEGAN_S + 1.5)
    assert [item["rtt_ms"] for item in told(timeline) if item["kind"] == "link"] == [500]


def test_gauges_are_told_so_often_and_only_where_they_show_something():
    cost = PhoneCost(profiles.phone("apple-a19-pro"), DRAFT)
    hot, unshaped = cost.state(Heat.HOT), PhoneState(None)
    timeline = Timeline(BEGAN_S)
    timeline.gauges(unshaped, None, BEGAN_S)
    for after_s in (0.0, PHONE_EVERY_S / 2, PHONE_EVERY_S):
        timeline.gauges(hot, 1.25, BEGAN_S + after_s)
    first, second = told(timeline)
    assert (first["at_ms"], second["at_ms"]) == (0, 100)
    assert (first["thermal"], first["joules"]) == (hot.status, 1.25)
    assert first["temperature_c"] == pytest.approx(hot.temperatures.die_c, abs=0.01)
    assert first["skin_c"] == pytest.approx(hot.temperatures.skin_c, abs=0.01)


def test_the_oldest_items_go_and_who_comes_later_is_told_how_many():
    timeline = Timeline(BEGAN_S, max_items=8)
    for number in range(20):
        timeline.drafted(BEGAN_S, BEGAN_S + 1, number)
    timeline.close()

    async def read(seq):
        return [item.to_json() for item in await timeline.after(seq)]

    items = asyncio.run(read(-1))
    dropped, *kept = items
    ITEM.validate(dropped)
    assert 4 <= len(kept) <= 8
    assert dropped == {"kind": "dropped", "items": 20 - len(kept)}
    assert [item["tokens"] for item in kept] == list(range(20 - len(kept), 20))
    assert [item["tokens"] for item in asyncio.run(read(18))] == [19]
    assert asyncio.run(read(19)) == []


# As it happens, under the virtual clock.


async def recorded(agent, **changes):
    """The last event of an answer, and the items of its timeline, read while it ran."""
    stream = await agent.start(request(timeline=True, **changes))

    async def read():
        items, seq = [], -1
        while more := await stream.timeline.after(seq):
            items += more
            seq = more[-1].seq
        return [item.to_json() for item in items]

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        events = []
        while more := await stream.take():
            events += more
    for item in reading.result():
        ITEM.validate(item)
    return events[-1], reading.result()


def kind(items, name):
    return [item for item in items if item["kind"] == name]


def test_every_step_flight_and_pass_is_where_the_profiles_put_it():
    async def work():
        async with emulating(1.0, **DEFAULT) as agent:
            await recorded(agent, max_tokens=1)  # so that the connection is warm
            return await recorded(agent, max_tokens=30)

    done, items = virtual_time.run(work())
    network = profiles.network(DEFAULT["network"])
    assert list(done.token_ids) == plain_decoding(FullEngine(), 30)
    step_ms = 1000 * PhoneCost(profiles.phone(DEFAULT["phone"]), DRAFT).step_s([Work(len(PROMPT), 1)])
    steps = kind(items, "draft")[1:]
    took_ms = sorted(step["end_ms"] - step["start_ms"] for step in steps)
    assert took_ms[-1] == pytest.approx(step_ms, rel=0.05)  # some are given up: a verdict overtook them
    assert took_ms[len(took_ms) // 4] == pytest.approx(step_ms, rel=0.05)
    assert sum(step["tokens"] for step in kind(items, "draft")) == done.figures["draft_steps"]["value"]
    flights = kind(items, "up")
    up_ms = 1000 * network.uplink_delay_s
    assert all(up_ms < flight["end_ms"] - flight["start_ms"] < up_ms + 1 for flight in flights)
    assert sum(flight["nodes"] for flight in flights) == done.usage["proposed"]
    passes, verdicts = kind(items, "pass"), kind(items, "verdict")
    assert len(passes) == len(verdicts) == done.usage["passes"]
    pass_ms = 1000 * CloudCost(profiles.cloud("mi300x"), FULL).step_s([Work(len(PROMPT), 4)])
    assert [run["end_ms"] - run["start_ms"] for run in passes] == pytest.approx([pass_ms] * len(passes), rel=0.02)
    assert all(later["start_ms"] > earlier["end_ms"] - 1 for earlier, later in itertools.pairwise(passes))
    round_trip_ms = 1000 * network.round_trip_s
    assert all(round_trip_ms < link["rtt_ms"] < round_trip_ms + 2 for link in kind(items, "link"))
    assert sum(verdict["accepted"] + 1 for verdict in verdicts) == 30  # each makes one token more final: the choice behind them
    assert kind(items, "phone")[-1]["joules"] <= done.figures["draft_joules"]["value"]


def test_a_network_that_changes_in_the_middle_shows_in_the_round_trip_and_in_every_later_flight():
    async def work():
        async with emulating(1.0, **DEFAULT) as agent:
            asyncio.get_running_loop().call_at(0.5, lambda: agent.emulation.make(agent.emulation.planned({"rtt_ms": 400})))
            return await recorded(agent, max_tokens=90)

    done, items = virtual_time.run(work())
    assert list(done.token_ids) == plain_decoding(FullEngine(), 90)
    share = profiles.network(DEFAULT["network"]).uplink_delay_s / profiles.network(DEFAULT["network"]).round_trip_s
    later = [flight for flight in kind(items, "up") if flight["start_ms"] > 500]
    assert all(400 * share <= flight["end_ms"] - flight["start_ms"] < 400 * share + 1 for flight in later)
    assert len(later) > 2
    assert kind(items, "link")[-1]["rtt_ms"] == pytest.approx(400, abs=2)


@pytest.mark.parametrize(("mode", "kinds"), [("cloud", {"link", "pass", "verdict"}), ("device", {"draft", "phone"})])
def test_who_writes_alone_is_seen_alone(mode, kinds):
    async def work():
        async with emulating(**DEFAULT) as agent:
            return await recorded(agent, mode=mode, max_tokens=12)

    done, items = virtual_time.run(work())
    assert {item["kind"] for item in items} == kinds
    assert len(done.token_ids) == 12


def test_who_does_not_ask_pays_nothing_not_a_byte_of_a_verdict():
    async def work():
        async with emulating(**DEFAULT) as agent:
            stream = await agent.start(request(max_tokens=30, mode="cloud"))
            events = []
            while more := await stream.take():
                events += more
            told_of, _ = await recorded(agent, max_tokens=30, mode="cloud")
            return stream.timeline, events[-1].figures, told_of.figures

    timeline, silent, told_of = virtual_time.run(work())
    assert timeline is None
    assert told_of["bytes_up"]["value"] - silent["bytes_up"]["value"] == 3  # the wish itself
    plain = Verdict(100, 0, 0, 42, VerdictKind.DECODED)
    assert silent["bytes_down"]["value"] < 100 + 30 * (encoded_size(plain) + 2)
    assert told_of["bytes_down"]["value"] > silent["bytes_down"]["value"] + 30 * 8


# Over HTTP.


@contextlib.asynccontextmanager
async def served(**changes):
    async with asyncio.timeout(60), verifier() as made:
        agent = agent_of(MemoryConnector(made), DraftEngine(), **changes)
        async with (
            serve(config(**changes), agent=agent) as running,
            httpx.AsyncClient(base_url=running.url, timeout=30) as client,
        ):
            yield client


async def begun(client, headers=None, **body) -> str:
    """The id of an answer that was read to its end."""
    body = {"prompt": PROMPT, "max_tokens": 8} | body
    answer = await client.post("/v1/stream", json=body, headers={"accept": "application/x-ndjson"} | (headers or {}))
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text.splitlines()[0])["session_id"]


async def test_a_timeline_comes_as_events_and_as_lines_and_can_be_read_on():
    async with served() as client:
        path = f"/v1/stream/{await begun(client, timeline=True)}/timeline"
        events = (await client.get(path)).text
        lines = (await client.get(path, headers={"accept": "application/x-ndjson"})).text.splitlines()
        items = [json.loads(line) for line in lines]
        for item in items:
            ITEM.validate(item)
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in events.strip().split("\n\n")]
        assert [json.loads(block["data"]) for block in blocks] == items
        assert [block["id"] for block in blocks] == [str(number) for number in range(len(items))]
        assert [block["event"] for block in blocks] == [item["kind"] for item in items]
        rest = await client.get(path, headers={"accept": "application/x-ndjson", "last-event-id": "1"})
        assert rest.text.splitlines() == lines[2:]
        assert (await client.get(path, params={"starting_after": len(items) - 1})).status_code == 204
        for place in ("x", "-1", "1.5", str(len(items)), "9" * 30):
            wrong = await client.get(path, params={"starting_after": place})
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "starting_after")
            assert f"from 0 to {len(items) - 1}, not '{place}'" in wrong.json()["error"]["message"]


async def test_a_timeline_is_told_while_the_answer_runs_and_ends_with_it():
    async with served() as client:
        body = {"prompt": PROMPT, "max_tokens": 200, "timeline": True}
        async with client.stream("POST", "/v1/stream", json=body, headers={"accept": "application/x-ndjson"}) as answer:
            events = answer.aiter_lines()
            session_id = json.loads(await anext(events))["session_id"]
            path = f"/v1/stream/{session_id}/timeline"
            async with client.stream("GET", path, headers={"accept": "application/x-ndjson"}) as timeline:
                items = timeline.aiter_lines()
                first = json.loads(await anext(items))
                async for event in events:
                    last = json.loads(event)
                rest = [json.loads(line) async for line in items]
        assert last["event"] == "done"
        assert len([item for item in [first, *rest] if item["kind"] == "verdict"]) == last["usage"]["passes"]


async def test_an_answer_without_a_timeline_and_one_that_is_not_known_are_404_with_what_would_be_right():
    async with served() as client:
        silent = await client.get(f"/v1/stream/{await begun(client)}/timeline")
        unknown = await client.get("/v1/stream/nowhere/timeline")
    assert (silent.status_code, unknown.status_code) == (404, 404)
    assert '"timeline": true' in silent.json()["error"]["message"]
    assert "no session 'nowhere' is kept" in unknown.json()["error"]["message"]


async def test_a_timeline_is_its_own_tenants_alone(tmp_path):
    async with served(keys=key_file(tmp_path)) as client:
        alices, bobs = ({"authorization": bearer(key)} for key in (ALICE, BOB))
        path = f"/v1/stream/{await begun(client, alices, timeline=True)}/timeline"
        assert (await client.get(path, headers=alices)).status_code == 200
        assert (await client.get(path, headers=bobs)).status_code == 404
        assert (await client.get(path)).status_code == 401


async def test_silence_is_filled(monkeypatch):
    monkeypatch.setattr(timeline_routes, "KEEP_ALIVE_S", 0.01)
    async with asyncio.timeout(60):
        agent = agent_of(None, DraftEngine(step_s=60), verifier=None)
        async with serve(config(), agent=agent) as running, httpx.AsyncClient(base_url=running.url) as client:
            body = {"prompt": PROMPT, "mode": "device", "timeline": True}
            async with client.stream("POST", "/v1/stream", json=body, headers={"accept": "application/x-ndjson"}) as answer:
                session_id = json.loads(await anext(answer.aiter_lines()))["session_id"]
                async with client.stream("GET", f"/v1/stream/{session_id}/timeline") as timeline:
                    assert await anext(timeline.aiter_lines()) == ": keep-alive"


@pytest.mark.parametrize("value", ["yes", 1, 0.0, []])
async def test_a_wish_for_a_timeline_is_true_or_false(value):
    async with served() as client:
        answer = await client.post("/v1/stream", json={"prompt": PROMPT, "timeline": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "timeline")
