"""The rules of the default policy, one by one, and what holds of all of them together."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent import schema
from device_agent.request import Mode
from device_agent.routing.default import HOT_WORDS, ByRules, Thresholds
from device_agent.routing.policy import MEANINGS, Decision, LinkState, Reason, View
from speculation.shaping.phones import ANDROID_COOLEST, ANDROID_WORDS, IOS_COOLEST, IOS_WORDS

PAGES = Path(__file__).parents[3] / "docs"
EASY = View(prompt_tokens=10, max_tokens=32, draft_room=500)
BESIDE = replace(EASY, mode=Mode.COLLABORATE, drafted_tokens=3, stability=0.2)

CASES = [
    (EASY, Mode.DEVICE, Reason.SWIFT),
    (replace(EASY, mode=Mode.DEVICE, stability=0.51), Mode.DEVICE, Reason.SWIFT),
    (replace(EASY, mode=Mode.DEVICE, stability=0.49), Mode.COLLABORATE, Reason.UNSURE),
    (replace(EASY, prompt_tokens=1025), Mode.COLLABORATE, Reason.LONG_PROMPT),
    (replace(EASY, max_tokens=257), Mode.COLLABORATE, Reason.LONG_ANSWER),
    (replace(EASY, thermal="SEVERE"), Mode.CLOUD, Reason.HOT),
    (replace(EASY, thermal="serious"), Mode.CLOUD, Reason.HOT),
    (replace(EASY, thermal="MODERATE"), Mode.DEVICE, Reason.SWIFT),
    (replace(EASY, battery_percent=19.9), Mode.CLOUD, Reason.BATTERY),
    (replace(EASY, battery_percent=20.0), Mode.DEVICE, Reason.SWIFT),
    (replace(EASY, battery_percent=5.0, link=LinkState.DOWN), Mode.DEVICE, Reason.SWIFT),
    (replace(EASY, deadline_ms=119.0, rtt_ms=60.0), Mode.DEVICE, Reason.DEADLINE),
    (replace(EASY, deadline_ms=119.0, rtt_ms=60.0, thermal="SEVERE"), Mode.DEVICE, Reason.DEADLINE),
    (replace(EASY, deadline_ms=121.0, rtt_ms=60.0, max_tokens=300), Mode.COLLABORATE, Reason.LONG_ANSWER),
    (replace(EASY, deadline_ms=1.0, stability=0.1), Mode.COLLABORATE, Reason.UNSURE),  # nobody knows the round trip
    (BESIDE, Mode.COLLABORATE, Reason.RESTED),
    (replace(BESIDE, thermal="CRITICAL"), Mode.CLOUD, Reason.HOT),
    (replace(BESIDE, mode=Mode.CLOUD), Mode.COLLABORATE, Reason.RESTED),
    (replace(BESIDE, deadline_ms=1.0, rtt_ms=60.0), Mode.COLLABORATE, Reason.RESTED),
]


@pytest.mark.parametrize(("view", "mode", "reason"), CASES)
def test_the_first_rule_that_holds_decides(view, mode, reason):
    assert ByRules().decide(view) == Decision(mode, reason)


def test_thresholds_are_what_they_are_set_to():
    lax = ByRules(Thresholds(stability=0.0, prompt_tokens=5000, answer_tokens=5000, battery_percent=0.0))
    view = replace(EASY, mode=Mode.DEVICE, stability=1e-9, prompt_tokens=4000, max_tokens=4000, battery_percent=0.1)
    assert lax.decide(view) == Decision(Mode.DEVICE, Reason.SWIFT)
    strict = ByRules(Thresholds(stability=1.0))
    assert strict.decide(replace(EASY, stability=0.999)) == Decision(Mode.COLLABORATE, Reason.UNSURE)


def test_a_status_counts_as_hot_from_where_both_systems_ask_apps_to_do_less():
    assert {"serious", "critical", "SEVERE", "CRITICAL", "EMERGENCY", "SHUTDOWN"} == HOT_WORDS
    assert not HOT_WORDS & {IOS_COOLEST, ANDROID_COOLEST}


views = st.builds(
    View,
    prompt_tokens=st.integers(1, 4000),
    max_tokens=st.integers(1, 4000),
    draft_room=st.integers(-4000, 4000),
    mode=st.sampled_from([None, Mode.DEVICE, Mode.COLLABORATE, Mode.CLOUD]),
    drafted_tokens=st.integers(0, 4000),
    stability=st.floats(0, 1),
    confidence=st.floats(0, 1),
    link=st.sampled_from(list(LinkState)),
    rtt_ms=st.none() | st.floats(0, 1e4),
    thermal=st.sampled_from([None, IOS_COOLEST, ANDROID_COOLEST, *IOS_WORDS, *ANDROID_WORDS]),
    battery_percent=st.none() | st.floats(0, 100),
    deadline_ms=st.none() | st.floats(-1e4, 1e6),
)


@given(views)
def test_the_same_view_gets_the_same_decision_and_one_that_was_asked_for_a_verifier_has_no_way_back(view):
    decision = ByRules().decide(view)
    assert ByRules().decide(replace(view)) == decision
    assert not (view.is_verified and decision.mode is Mode.DEVICE)


@given(views)
def test_a_phone_without_a_link_is_never_left_to_the_cloud(view):
    assert ByRules().decide(replace(view, link=LinkState.DOWN)).mode is not Mode.CLOUD


@given(views, st.floats(0, 1))
def test_a_draft_that_is_less_sure_is_never_left_alone_where_a_surer_one_was_not(view, share):
    lower = replace(view, stability=view.stability * share)
    if ByRules().decide(view).mode is not Mode.DEVICE:
        assert ByRules().decide(lower).mode is not Mode.DEVICE


def test_auto_is_no_decision():
    with pytest.raises(ValueError, match="auto is the question"):
        Decision(Mode.AUTO, Reason.SWIFT)


def test_every_reason_has_a_sentence_that_the_page_and_the_schema_know():
    assert set(MEANINGS) == set(Reason)
    page = (PAGES / "routing.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", page, re.MULTILINE))
    assert {reason: rows.get(reason.value) for reason in Reason} == dict(MEANINGS)
    known = schema.stream_schema()["$defs"]["state"]["properties"]["reason"]["enum"]
    assert [reason.value for reason in Reason if reason.value not in known] == []


def test_the_page_has_the_thresholds_that_are_the_defaults():
    page, least = (PAGES / "routing.md").read_text("utf-8"), Thresholds()
    for name in ("stability", "prompt_tokens", "answer_tokens", "battery_percent"):
        assert f"`auto_{name}` ({getattr(least, name):g})" in page
