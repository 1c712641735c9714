"""Where each sub-task of a graph is: who is next, and what a failure takes along."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.events import SessionEvent
from device_agent.tasks.board import OPEN, Board, State, has_private_text
from device_agent.tasks.graph import TaskGraph
from speculation.errors import InvalidRequestError

ERROR = {"message": "no", "type": "api_error", "param": None, "code": "link"}


def board(waits, **max_tokens):
    tasks = {name: {"prompt": "x", "after": after, "mode": "device"} for name, after in waits.items()}
    return Board(TaskGraph.from_json({"tasks": tasks}), dict.fromkeys(waits, 10) | max_tokens)


def finish(made, name, text="", now_ms=0.0):
    made.begin(name, now_ms)
    made.done(name, text, "length", 1, now_ms)


def test_of_those_that_are_ready_the_one_with_the_longest_chain_before_it_is_next():
    made = board({"a": [], "b": [], "c": [], "d": ["b"], "e": ["d"]}, c=25)
    assert made.ready == ["b", "c", "a"]
    finish(made, "b")
    assert made.ready == ["c", "d", "a"]


def test_of_equal_chains_the_one_that_most_wait_for_is_next_then_the_first_in_order():
    made = board({"a": [], "b": [], "c": [], "d": ["b"], "e": ["c"], "f": ["c"]})
    assert made.ready == ["c", "b", "a"]


def test_a_sub_task_that_failed_takes_along_those_that_wait_for_it_and_no_others():
    made = board({"a": [], "b": ["a"], "c": ["b"], "other": [], "end": ["other", "c"]})
    made.begin("a", 1.0)
    assert made.fail("a", ERROR, 2.0) == ["b", "c", "end"]
    states = {name: entry.state for name, entry in made.entries.items()}
    assert states == {"a": "failed", "b": "skipped", "c": "skipped", "end": "skipped", "other": "waiting"}
    assert made.entries["end"].error == ERROR | {"message": "sub-task 'end' waits for 'c', and 'a' failed: no"}
    assert made.ready == ["other"]


def test_a_cancelled_graph_is_over_and_what_was_done_stays():
    made = board({"a": [], "b": [], "c": ["b"]})
    finish(made, "a", "text")
    made.begin("b", 1.0)
    assert made.cancel(ERROR, 2.0) == ["b", "c"]
    assert [entry.state for entry in made.entries.values()] == [State.DONE, State.CANCELLED, State.SKIPPED]
    assert made.is_over
    assert made.entries["a"].result()["text"] == "text"


def test_results_are_put_into_the_prompt_and_private_text_found_on_the_way_is_not_let_out():
    tasks = {"a": {"prompt": "x"}, "b": {"prompt": "<{{ a }}>"}}
    made = Board(TaskGraph.from_json({"tasks": tasks}), {"a": 1, "b": 1})
    finish(made, "a", "A")
    assert made.request("b", 99).prompt == "<A>"
    made.entries["a"].is_private = True
    with pytest.raises(InvalidRequestError, match="'b' takes in the result of 'a', which is to stay on the device"):
        made.request("b", 99)


def test_the_critical_path_is_the_chain_that_ended_last():
    made = board({"a": [], "b": [], "c": ["a", "b"]})
    for name, at_ms in (("a", 1.0), ("b", 3.0), ("c", 5.0)):
        finish(made, name, now_ms=at_ms)
    assert made.critical() == ["b", "c"]


def test_lanes_are_used_again():
    made = board({"a": [], "b": [], "c": []})
    made.begin("a", 0.0)
    made.begin("b", 0.0)
    made.done("a", "", "stop", 1, 1.0)
    made.begin("c", 1.0)
    assert [made.entries[name].lane for name in "abc"] == [0, 1, 0]


@given(st.data())
def test_whatever_fails_and_in_whatever_order_they_end_every_graph_comes_to_an_end(data):
    count = data.draw(st.integers(1, 8))
    before = [data.draw(st.lists(st.integers(0, number - 1), max_size=3)) if number else [] for number in range(count)]
    made = board({f"t{number}": [f"t{each}" for each in waits] for number, waits in enumerate(before)})
    running = []
    while not made.is_over:
        assert made.ready or running
        if made.ready and (not running or data.draw(st.booleans())):
            name = made.ready[0]
            assert all(made.entries[each].state is State.DONE for each in made.entries[name].after)
            made.begin(name, 0.0)
            running.append(name)
            continue
        name = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if data.draw(st.booleans()):
            made.done(name, "", "stop", 1, 0.0)
        else:
            made.fail(name, ERROR, 0.0)
    assert not running
    assert not [entry for entry in made.entries.values() if entry.state in OPEN]
    for entry in made.entries.values():
        all_done = all(made.entries[name].state is State.DONE for name in entry.after)
        assert (entry.state is State.SKIPPED) != all_done


def test_an_answer_with_passages_of_private_documents_in_it_is_private():
    begun = SessionEvent(0, "id", "device", "all", "draft", "full", "digest", None, None, 7)
    assert not has_private_text(begun)
    for label in ("public", "private"):
        told = SimpleNamespace(to_json=lambda label=label: {"retrieval": {"chunks": [{"label": label}]}})
        assert has_private_text(told) == (label == "private")
