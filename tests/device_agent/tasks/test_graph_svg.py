"""The picture of a schedule: well-formed, told in words, and readable without colours."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.tasks.board import Entry, State
from device_agent.tasks.graph_svg import LOOKS, NAMESPACE, WIDTH, drawn


def entry(name, state=State.DONE, times=(0.0, 5.0, 40.0), after=(), **changes):
    ready_ms, began_ms, ended_ms = times
    made = Entry(name, tuple(after), 9, 9, state, 0, ready_ms, began_ms, began_ms, ended_ms, 9)
    return made.to_json() | changes


def parsed(picture):
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{{{NAMESPACE}}}svg"
    return root


def parts(root, tag):
    return list(root.iter(f"{{{NAMESPACE}}}{tag}"))


def bars(root):
    return [box for box in parts(root, "rect") if "rx" in box.attrib]


def test_who_cannot_see_it_is_told_the_same():
    root = parsed(drawn([entry("a"), entry("b", after=["a"], times=(40.0, 41.0, 1500.0))], 1500.0, ["a", "b"], "done"))
    assert (root.get("role"), root.get("aria-labelledby"), root.get("aria-describedby")) == ("img", "title", "desc")
    title, desc = parts(root, "title")[0], parts(root, "desc")[0]
    assert (title.get("id"), title.text) == ("title", "Schedule of 2 sub-tasks: done, 1.50 s")
    assert desc.text == "a done, from 5 ms to 40 ms; b done, from 41 ms to 1.50 s, behind a"


def test_no_two_states_look_alike_without_colours_and_the_critical_path_has_a_mark():
    assert len({sign for sign, _ in LOOKS.values()}) == len(LOOKS) == len(State)
    schedule = [entry(state.value, state, times=(0.0, 1.0, 9.0)) for state in State]
    root = parsed(drawn(schedule, 10.0, ["done"]))
    texts = [text.text for text in parts(root, "text")]
    assert "◆ done" in texts
    assert "failed" in texts
    assert {"✗ failed", "– skipped", "■ cancelled", "✓ 9 tokens"} <= set(texts)
    assert [box.get("stroke-width") for box in bars(root)].count("3") == 1


def test_what_never_began_has_no_bar_and_what_runs_ends_now():
    waits = entry("w", State.WAITING, times=(None, None, None))
    runs = entry("r", State.RUNNING, times=(0.0, 10.0, None))
    (bar,) = bars(parsed(drawn([waits, runs], 20.0)))
    other = bars(parsed(drawn([waits, runs], 40.0)))[0]
    assert float(bar.get("width")) * 1.5 == pytest.approx(float(other.get("width")), rel=0.01)


def test_names_stay_text():
    picture = drawn([entry("<script>&'\"")], 9.0)
    assert b"<script" not in picture
    assert parts(parsed(picture), "script") == []


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), min_size=1, max_size=64), st.floats(0, 1e9))
def test_any_schedule_is_drawn_within_the_picture(times, now_ms):
    schedule = [entry(f"t{n}", times=(0.0, *sorted(pair))) for n, pair in enumerate(times)]
    root = parsed(drawn(schedule, now_ms))
    assert all(0 <= float(box.get("x")) <= float(box.get("x")) + float(box.get("width")) <= WIDTH for box in bars(root))
    assert len(parts(root, "path")) < 200
