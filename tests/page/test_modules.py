"""The page's modules without a page: figures in words, the window of the timeline, what is announced, sliders, keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from device_agent.events import Reason
from device_agent.routing.policy import Reason as RoutingReason

NODE = shutil.which("node")
DRIVER = Path(__file__).with_name("driver.mjs")

pytestmark = pytest.mark.skipif(NODE is None, reason="the page's modules are run by node, which is not on the path")


def run(*jobs):
    done = subprocess.run([NODE, str(DRIVER)], input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(module, name, *args):
    return {"module": module, "name": name, "args": args}


def make(module, name, *steps, args=()):
    return {"module": module, "name": name, "args": args, "steps": steps}


def figure(value, unit):
    return {"value": value, "unit": unit, "basis": "emulated"}


def test_a_figure_is_said_with_its_unit_and_its_basis_and_one_without_meaning_is_a_dash():
    figures = [
        figure(62.4, "ms"),
        figure(0.856, "share"),
        figure(0.12345, "J/token"),
        figure(3, "furlongs"),
        figure(None, "ms"),
        None,
    ]
    assert run(*(call("words.mjs", "told", *([each] if each else [])) for each in figures)) == [
        ["62 ms", "emulated"],
        ["86 %", "emulated"],
        ["0.123 J", "emulated"],
        ["3.00 furlongs", "emulated"],
        ["–", ""],
        ["–", ""],
    ]


def test_the_end_of_a_long_line_is_shown_and_no_character_is_cut_in_two():
    told = run(*(call("words.mjs", "tail", text, 3) for text in ("a\nbcd", "bcde", "🦊🦊🦊🦊é", "a\n")))
    assert told == ["bcd", "…cde", "…🦊🦊é", ""]


def test_every_reason_of_a_state_has_a_sentence():
    reasons = [reason.value for reason in (*Reason, *RoutingReason) if reason is not Reason.LINK]
    told = run(*(call("words.mjs", "stateWords", {"mode": "device", "reason": reason}, None) for reason in reasons))
    assert all(words.endswith(".") and "way of working" not in words for words in told)


def test_a_fault_is_a_sentence_and_says_what_would_help():
    faults = [
        {"name": "AbortError", "message": "stopped"},
        {"code": "link", "message": "no answer from the verifier"},
        {"code": "authentication", "message": "this agent wants a key"},
        {"code": "capacity", "message": "4 answers are being written already", "retryAfterMs": 1500},
        {"code": "x", "message": "no agent; start one with: outrider agent"},
    ]
    stopped, link, key, full, agent = run(*(call("words.mjs", "faultWords", fault) for fault in faults))
    assert stopped == "Stopped."
    assert link == "No answer from the verifier. Is the verifier running? Start one with: outrider verifier"
    assert key.endswith("Enter the agent's key above.")
    assert full == "4 answers are being written already. Try again in 2 s."
    assert agent == "No agent; start one with: outrider agent."


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same", "num_same"),
    [
        (([1, 2, 3], 3), ([1, 2, 3], 3), True, 3),
        (([1, 2, 3], 2), ([1, 2, 3], 3), False, 3),
        (([1, 2, 4], 3), ([1, 2, 3], 3), False, 2),
        (([1, 2], 2), ([1, 2, 3], 3), False, 2),
        (([], 0), ([], 0), True, 0),
    ],
)
def test_texts_are_the_same_only_token_for_token_and_verified_to_the_end(ours, theirs, is_same, num_same):
    done = [{"token_ids": tokens, "verified_count": count} for tokens, count in (ours, theirs)]
    assert run(call("words.mjs", "compared", *done)) == [{"isSame": is_same, "numSame": num_same}]


def spans(kind, count, every_ms=1.0):
    return [
        ["add", {"kind": kind, "start_ms": i * every_ms, "end_ms": (i + 1) * every_ms}, i * every_ms + 40] for i in range(count)
    ]


def test_the_timeline_keeps_a_window_and_no_more_however_long_it_runs():
    long, dense = run(
        make("timeline.mjs", "Timeline", *spans("draft", 3000, 9.0), ["items"]),
        make("timeline.mjs", "Timeline", *spans("draft", 3000, 0.001), ["items"]),
    )
    assert {len(items) for kind, items in long[-1].items() if kind != "draft"} == {0}
    kept = long[-1]["draft"]
    assert kept[-1]["end_ms"] - kept[0]["end_ms"] <= 2500
    assert len(kept) > 250
    assert len(dense[-1]["draft"]) == 1000


def test_the_timeline_tells_what_is_usual_and_which_pass_a_verdict_came_of():
    passes = [{"kind": "pass", "start_ms": at, "end_ms": at + 41, "rows": 3} for at in (0, 50)]
    verdicts = [
        {"kind": "verdict", "at_ms": 320, "start": 5, "accepted": 2, "verdict": "accept"},
        {"kind": "verdict", "at_ms": 380, "start": 7, "accepted": 1, "verdict": "revoke"},
        {"kind": "verdict", "at_ms": 390, "start": 9, "accepted": 0, "verdict": "decoded"},
    ]
    told = (passes[0], verdicts[0], passes[1], *verdicts[1:], {"kind": "link", "at_ms": 180, "rtt_ms": 61.5})
    steps = [["add", item, 500] for item in told]
    steps += [["add", {"kind": "unheard of"}, 0], ["usualMs", "pass"], ["usualMs", "up"], ["verdicts"], ["rttMs"]]
    *_, usual, none, judged, rtt, items = run(make("timeline.mjs", "Timeline", *steps, ["items"]))[0]
    assert (usual, none, rtt) == (41, None, 61.5)
    assert judged == {"numAccepted": 3, "numRevoking": 1}
    assert [verdict["pass"] for verdict in items["verdict"]] == [*passes, None]


def test_the_timelines_now_is_that_of_the_item_that_came_with_the_least_delay():
    items = [
        ["add", {"kind": "pass", "start_ms": 0, "end_ms": end}, came] for end, came in ((10, 1060), (20, 1030), (30, 1090))
    ]
    assert run(make("timeline.mjs", "Timeline", ["nowMs", 5], *items, ["nowMs", 1100]))[0][::4] == [0, 90]


def test_only_whole_sentences_are_announced_not_too_often_and_in_the_end_everything():
    steps = [
        ["add", "Return the cube. It"],
        ["take", 0],
        ["add", " is real. And"],
        ["take", 100],
        ["take", 1600],
        ["add", " more"],
        ["take", 9000],
        ["take", 9001, True],
        ["take", 9002, True],
    ]
    (found,) = run(make("announcer.mjs", "Announcer", *steps))
    assert [told for step, told in zip(steps, found, strict=True) if step[0] == "take"] == [
        "Return the cube.",
        None,
        " It is real.",
        None,
        " And more",
        None,
    ]


def test_text_without_a_sentences_end_is_announced_once_it_is_long():
    (found,) = run(make("announcer.mjs", "Announcer", ["add", "word " * 40], ["take", 0]))
    assert found[1] == "word " * 40
    (found,) = run(make("announcer.mjs", "Announcer", ["add", "これは文です。" * 30], ["take", 0]))
    assert found[1] == "これは文です。" * 30


def test_what_is_counted_while_an_answer_runs_is_what_the_agent_counts():
    offset = {"code_points": 0}
    events = [
        ({"event": "speculative", "position": 3, "token_ids": [1], "text": "a"}, 31),
        ({"event": "speculative", "position": 4, "token_ids": [2], "text": "b"}, 40),
        ({"event": "state", "mode": "collaborate", "reason": "link", "rtt_ms": 62.5, "thermal": None}, 60),
        ({"event": "revoke", "position": 4, "count": 1, "reason": "contradicted"}, 110),
        ({"event": "commit", "position": 3, "count": 1, "commit_offset": offset | {"tokens": 1}}, 110),
        ({"event": "correct", "position": 4, "token_ids": [9], "text": "c", "commit_offset": offset | {"tokens": 2}}, 110),
    ]
    read = ["firstVisibleMs", "firstFinalMs", "rttMs", "numFinal", "numTentative", "numShown", "numRevoked", "acceptance"]
    steps = [["add", event, at + 1000] for event, at in events] + [[name] for name in read] + [["tokensPerS", 3000]]
    (found,) = run(make("tally.mjs", "Tally", *steps, args=[1000]))
    assert found[len(events) :] == [31, 110, 62.5, 2, 0, 2, 1, 0.5, 1]


def test_a_sliders_thumb_stands_where_its_figure_is_and_beyond_its_ends_at_them():
    bandwidth = {"least": 5, "most": 400, "unit": "GB/s"}
    loss = {"least": 0, "most": 20, "unit": "%", "isLinear": True}
    assert run(
        call("sliders.mjs", "valueAt", bandwidth, 0),
        call("sliders.mjs", "valueAt", bandwidth, 200),
        call("sliders.mjs", "stepAt", bandwidth, 5000),
        call("sliders.mjs", "valueAt", loss, 10),
        call("sliders.mjs", "stepAt", loss, 1),
        call("sliders.mjs", "valueText", 76.8, "GB/s"),
        call("sliders.mjs", "valueText", None, "GB/s"),
    ) == [5, 400, 200, 1, 10, "76.8 GB/s", "no limit"]
    steps = list(range(0, 201, 7))
    values = run(*(call("sliders.mjs", "valueAt", bandwidth, step) for step in steps))
    assert run(*(call("sliders.mjs", "stepAt", bandwidth, value) for value in values)) == steps


def test_a_key_is_found_in_a_fragment_and_nowhere_else():
    fragments = ["#key=correct-horse-battery", "#key=a%20b", "#key=100%", "#key=", "#results", "", "?key=x"]
    assert run(*(call("agent.mjs", "keyIn", fragment) for fragment in fragments)) == [
        "correct-horse-battery",
        "a b",
        "100%",
        None,
        None,
        None,
        None,
    ]


def test_a_seed_that_is_drawn_is_a_whole_number_that_json_keeps():
    seeds = run(*[call("race.mjs", "drawSeed")] * 50)
    assert len(set(seeds)) == 50
    assert all(isinstance(seed, int) and 0 <= seed < 2**53 for seed in seeds)
    assert max(seeds) > 2**48


def test_a_schedule_tells_how_far_it_is():
    begun = {"event": "graph", "tasks": [{"task": "a"}, {"task": "b"}]}
    runs = {"event": "task", "task": "a", "state": "running", "at_ms": 1, "error": None}
    over = {"event": "task", "task": "a", "state": "done", "at_ms": 9, "error": None}
    last = {"event": "done", "status": "cancelled", "makespan_ms": 1234, "critical_path": []}
    steps = [["heard", begun], ["heard", runs], ["words"], ["heard", over], ["heard", last], ["words"]]
    told = run(make("graph.mjs", "Schedule", *steps))[0]
    assert "0 of 2 done, 1 running." in told
    assert "cancelled in 1.23 s: 1 of 2 done." in told
