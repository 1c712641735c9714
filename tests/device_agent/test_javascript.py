"""The JavaScript client in Node, against a real agent: the same events and texts as Python's, over a way that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from device_agent.events import KINDS, StateEvent
from device_agent.server import serve
from outrider.client import Client
from outrider.client.reading import value_of
from outrider.transcript import Transcript
from speculation.errors import LinkError, MalformedMessageError
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    agent_of,
    config,
    decode,
    plain_decoding,
    verifier,
    wait_until,
)
from tests.outrider.answers import EVENTS, agent_that_answers, refusal, stream_of
from tests.support.cutting import cutting
from tests.support.keys import ALICE, BOB, WRONG, key_file
from tests.support.transports import Sse, checked

NODE = shutil.which("node")
DRIVER = Path(__file__).with_name("driver.mjs")
BODY = {"prompt": "the prompt", "max_tokens": 12, "seed": 3}
SOON = {"reconnectMs": 1}
ON_ONE_AGENT = pytest.mark.asyncio(loop_scope="module")

pytestmark = pytest.mark.skipif(NODE is None, reason="the JavaScript client is run by node, which is not on the path")


async def run(*jobs):
    """What the driver made of these jobs, in one process."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    process = await asyncio.create_subprocess_exec(NODE, str(DRIVER), **pipes)
    async with asyncio.timeout(60):
        out, shouts = await process.communicate(json.dumps(jobs).encode())
    assert process.returncode == 0, shouts.decode()
    return json.loads(out)


@contextlib.asynccontextmanager
async def serving(draft=None, **changes):
    async with verifier(SlowEngine(0.001)) as made, asyncio.timeout(60):
        agent = agent_of(MemoryConnector(made), draft or DraftEngine(0.6, step_s=0.0005), **changes)
        async with serve(config(**changes), agent=agent) as running:
            yield running, agent


def follow(url, **job):
    return {"do": "follow", "url": url, **job}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running():
    async with serving() as (running, _):
        yield running


@ON_ONE_AGENT
async def test_an_answer_that_is_cut_all_the_time_arrives_whole_and_once(running):
    async with cutting(running.port) as (url, proxy):
        proxy.limits = [1000, *[400, 4000] * 40]
        (got,) = await run(follow(url, request=BODY | {"max_tokens": 60}, options=SOON))
        assert proxy.num_cut >= 3
        events = got["events"]
        assert events == await Sse(running.url).read_on(events[0]["session_id"])
        assert checked(events).last["event"] == "done"
        assert (got["final"], got["tentative"]) == (decode(plain_decoding(FullEngine(), 60)), "")


@ON_ONE_AGENT
async def test_a_connection_that_falls_silent_is_taken_for_broken_and_a_slow_reader_is_not(running):
    async with cutting(running.port) as (url, proxy):
        proxy.limits, proxy.holds = [1500], True
        job = {"request": BODY, "options": SOON | {"silenceMs": 300}}
        got, slow = await run(follow(url, **job), follow(url, **job, restMs=600))
        assert [each["events"][-1]["event"] for each in (got, slow)] == ["done", "done"]
        assert got["events"] == await Sse(running.url).read_on(got["events"][0]["session_id"])
        assert (proxy.num_cut, proxy.num_opened) == (1, 3)


@ON_ONE_AGENT
async def test_a_silence_that_is_longer_than_any_timer_is_waited_for(running):
    got, (state,) = await run(
        follow(running.url, request=BODY, options={"silenceMs": 2**31}),
        {"do": "control", "url": running.url, "session": "s", "verbs": ["pause"], "options": {"silenceMs": 2**31}},
    )
    assert (checked(got["events"]).last["event"], state["code"]) == ("done", "session_not_found")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 503 Busy\r\ncontent-length: 9\r\n\r\nhalf"])
async def test_who_takes_a_request_and_never_answers_it_is_given_up_as_one_who_is_not_there(head):
    asked, cut = [], stream_of(EVENTS[0]).replace(b"connection: close", b"content-length: 9999")

    async def answer(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        is_first = len(asked) == 1
        writer.write(cut if is_first else head)
        while not is_first and await reader.read(1000):  # until the client leaves
            pass
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        options = SOON | {"silenceMs": 300}
        got, (paused,) = await run(
            follow(url, request=BODY, options=options),
            {"do": "control", "url": url, "session": "s", "verbs": ["pause"], "options": options},
        )
    assert (got["events"], got["error"]["code"], asked.count(b"GET")) == ([EVENTS[0].to_json()], "link", 5)
    assert paused["code"] == "link"


@ON_ONE_AGENT
async def test_an_answer_is_read_on_and_behind_its_last_event_is_nothing(running):
    events = await Sse(running.url).begin(BODY)
    named = {"session": events[0]["session_id"]}
    places = [None, 3, events[-1]["seq"]]
    jobs = [follow(running.url + "/", after=after, **named) for after in places]
    *got, unknown = await run(*jobs, follow(running.url, session="nobody", after=None))
    assert [each["events"] for each in got] == [events, events[4:], []]
    assert unknown["error"]["code"] == "session_not_found"


@ON_ONE_AGENT
async def test_a_client_gives_up_when_no_connection_brings_anything(running):
    async with cutting(running.port) as (url, proxy):
        proxy.limits = [1000, *[1] * 100]
        (got,) = await run(follow(url, request=BODY, options=SOON))
        assert (got["error"]["code"], proxy.num_cut) == ("link", 6)
        assert "start one with: outrider agent" in got["error"]["message"]


@ON_ONE_AGENT
async def test_before_the_session_is_known_nothing_is_tried_again(running):
    async with cutting(running.port) as (url, proxy):
        proxy.limits = [1] * 100
        (got,) = await run(follow(url, request=BODY, options=SOON))
        assert (got["error"]["code"], proxy.num_cut) == ("link", 1)


async def test_who_leaves_or_aborts_closes_the_connection_and_the_agent_cancels():
    async with serving(DraftEngine(step_s=0.02), resume_grace_s=0) as (running, agent):
        body = BODY | {"mode": "device", "max_tokens": 200}
        left, aborted = await run(*(follow(running.url, request=body, **{how: 3}) for how in ("leaveBehind", "abortBehind")))
        await wait_until(lambda: agent.num_streams == 0)
        named = ({"session": got["events"][0]["session_id"], "after": None} for got in (left, aborted))
        for rest in await run(*(follow(running.url, **each) for each in named)):
            assert "stopped the stream" in rest["error"]["message"]
            assert "error" not in {event["event"] for event in rest["events"]}
        assert "error" not in left
        assert aborted["error"]["name"] == "AbortError"


async def gathered(events, reasons):
    """Until the events end, why the answer stopped and went on."""
    async for event in events:
        if isinstance(event, StateEvent) and event.reason in ("paused", "resumed"):
            reasons.append(event.reason)


VERBS = ["pause", "pause", "unpause", "cancel", "cancel"]


async def test_an_answer_is_paused_goes_on_and_is_cancelled(tmp_path):
    """By its owner, to whom the last event tells it; to others there is no such answer."""
    async with serving(DraftEngine(step_s=1.0), keys=key_file(tmp_path)) as (running, agent):
        reader = Client(running.url, key=ALICE)
        async with reader, aclosing(reader.stream("the prompt", mode="device", max_tokens=200)) as events:
            job = {"do": "control", "url": running.url, "session": (await anext(events)).session_id, "verbs": VERBS}
            theirs, mine = await run(*(job | {"options": {"key": key}} for key in (BOB, ALICE)))
            assert [each["code"] for each in theirs] == ["session_not_found"] * len(VERBS)
            assert mine == ["paused", "paused", "running", "ended", "ended"]
            assert agent.num_streams == 0
            reasons = []
            with pytest.raises(LinkError, match="stopped the stream"):
                await gathered(events, reasons)
            assert reasons == ["paused", "resumed"]
    (gone,) = await run(job | {"options": {}})
    assert [each["code"] for each in gone] == ["link"] * len(VERBS)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
async def test_a_key_that_is_none_is_refused_and_not_shown(key):
    options = {"key": key}
    control = {"do": "control", "url": "http://127.0.0.1:1", "session": "s", "verbs": ["pause"], "options": options}
    got, (paused,) = await run(follow("http://127.0.0.1:1", request=BODY, options=options), control)
    for error in (got["error"], paused):
        assert (error["message"], error["code"], error["param"]) == (
            "a key is one word of plain characters",
            "invalid_request",
            "key",
        )


async def test_refusals_and_error_events_are_thrown_as_what_they_are(tmp_path):
    async with serving(keys=key_file(tmp_path, tokens_per_s=0.1, burst_s=1)) as (running, _):
        asked = [(None, {}), (WRONG, {}), (ALICE, {"colour": "red"}), (ALICE, {}), (ALICE, {})]
        jobs = [follow(running.url, request=BODY | more, options={} if key is None else {"key": key}) for key, more in asked]
        none, wrong, odd, fine, late = await run(*jobs)
        assert [got["error"]["status"] for got in (none, wrong, odd, late)] == [401, 401, 400, 429]
        assert odd["error"]["param"] == "colour"
        assert late["error"]["retryAfterMs"] > 1000
        assert fine["final"] == decode(plain_decoding(FullEngine(), 12))


@pytest.mark.parametrize("data", ["null", "[]", "5", '{"event": "error"}', '{"event": "state", "seq": null}'])
async def test_what_is_no_event_is_refused_and_not_asked_for_again(data):
    async with agent_that_answers(stream_of(EVENTS[0]) + f"data: {data}\n\n".encode()) as (url, asked), asyncio.timeout(20):
        (got,) = await run(follow(url, request=BODY, options=SOON))
        assert (got["error"]["code"], len(asked)) == ("malformed_message", 1)


@pytest.mark.parametrize("error", ["not found", None, []])
async def test_an_error_that_is_no_object_is_told_by_its_status(error):
    event = json.dumps({"event": "error", "seq": 1, "error": error})
    async with agent_that_answers(refusal(404, error)) as (url, _):
        (refused,) = await run(follow(url, request=BODY, options=SOON))
    async with agent_that_answers(stream_of(EVENTS[0]) + f"data: {event}\n\n".encode()) as (url, asked), asyncio.timeout(20):
        (failed,) = await run(follow(url, request=BODY, options=SOON))
        assert len(asked) == 1
    messages = [got["error"]["message"] for got in (refused, failed)]
    assert messages == ["the agent answered with status 404", "the agent failed"]


async def test_what_tells_no_state_of_an_answer_is_malformed():
    for body in ("null", "{}", "oops"):
        told = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        async with agent_that_answers(told) as (url, _):
            (got,) = await run({"do": "control", "url": url, "session": "s", "verbs": ["pause"], "options": {}})
        assert got[0]["code"] == "malformed_message"


async def test_events_are_read_whatever_pieces_their_bytes_come_in():
    text = (
        ": keep-alive\r\n\r\nid: 0\r\nevent: a\r\ndata: été 🦊\r\n\r\nid:1\revent:b\rdata\rdata: two\rdata:  three\r\r"
        "event: none\n\nretry: 3\nid: 2\ndata: x:y\n\nid: 3\nevent: cut\ndata: never ended"
    )
    expected = [
        {"id": "0", "event": "a", "data": "été 🦊"},
        {"id": "1", "event": "b", "data": "\ntwo\n three"},
        {"id": "2", "event": "", "data": "x:y"},
    ]
    (found,) = await run({"do": "split", "bytes": list(text.encode())})
    assert all(each == expected for each in found)
    assert len(found) == len(text.encode()) + 2


async def test_a_long_line_costs_what_its_length_does():
    (found,) = await run({"do": "long", "pieces": 1024})
    assert found["lengths"] == [1024 * 16384]
    assert found["ms"] < 5000  # some 50 ms; where each piece has all before it looked through again, 20 s


def any_events(draw: random.Random):
    """Events near those that an agent would send; many do not fit what is shown."""
    position = 10
    for _ in range(draw.randrange(1, 12)):
        kind = draw.choice(["speculative", "speculative", "commit", "revoke", "correct", "state"])
        at, count = position + draw.choice([0, 0, 0, -1, -2, 1]), draw.choice([1, 1, 1, 2, 0])
        event = {
            "event": kind,
            "position": at,
            "count": count,
            "token_ids": [5, 6][:count],
            "text": draw.choice(["a", "é", ""]),
        }
        position += {"speculative": count, "correct": count, "revoke": -count}.get(kind, 0)
        yield event


def applied(events):
    """What Python's transcript makes of them, in the driver's words."""
    text, found = Transcript(), []
    for event in events:
        offset = {"commit_offset": {"tokens": 0, "code_points": 0}, "stability": 0.5, "reason": "", "mode": ""}
        kind = KINDS[event["event"]]
        names = {"seq", *kind.__slots__} - {"rtt_ms", "thermal"}
        made = kind(**{name: value_of(name, (event | offset | {"seq": 0, "logprobs": None})[name]) for name in names})
        try:
            text.apply(made)
        except MalformedMessageError:
            found.append("malformed_message")
        else:
            counts = [text.num_revoked, text.num_speculative, list(text.token_ids)]
            found.append([text.final_text, text.tentative_text, text.revoked, *counts])
    return found


async def test_both_clients_keep_the_same_text_and_refuse_the_same_events():
    draw = random.Random(7)
    told = [list(any_events(draw)) for _ in range(400)]
    found = await run(*({"do": "apply", "events": events} for events in told))
    expected = [applied(events) for events in told]
    assert found == expected
    refused = [one == "malformed_message" for each in expected for one in each]
    assert 0.1 < sum(refused) / len(refused) < 0.9
    two = [{"event": "speculative", "position": at, "token_ids": [5], "text": "a"} for at in (10, 11)]
    odd = [[*two, {"event": kind, "position": at, "count": count}] for kind, at, count in (("commit", 10, 3), ("revoke", 9, 2))]
    assert [each[-1] for each in await run(*({"do": "apply", "events": events} for events in odd))] == ["malformed_message"] * 2
    (real,) = await run({"do": "apply", "events": [json.loads(json.dumps(event.to_json())) for event in EVENTS]})
    assert real[-1][:3] == ["The ox", "", " été"]
