"""Graphs of sub-tasks as clients ask for them: the order, and what is refused with what would be right."""

import graphlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.events import error_object
from device_agent.request import Mode
from device_agent.tasks.graph import MAX_TASKS, TaskGraph
from speculation.errors import InvalidRequestError


def graph(tasks, **changes):
    return TaskGraph.from_json({"tasks": tasks, **changes})


CHAIN = {
    "end": {"prompt": "{{ left }} {{ right }}"},
    "left": {"prompt": "l {{ start }}", "max_tokens": 7},
    "right": {"prompt": "r", "after": "start", "mode": "cloud"},
    "start": {"prompt": "s"},
}


def test_a_sub_task_waits_for_what_its_prompt_takes_in_and_for_what_it_names():
    made = graph(CHAIN, defaults={"mode": "device", "max_tokens": 5})
    assert {name: task.after for name, task in made.tasks.items()} == {
        "start": (),
        "left": ("start",),
        "right": ("start",),
        "end": ("left", "right"),
    }
    assert next(iter(made.tasks)) == "start"
    assert [made.tasks[name].request.max_tokens for name in ("left", "end")] == [7, 5]
    assert [made.tasks[name].request.mode for name in ("right", "end")] == [Mode.CLOUD, Mode.DEVICE]
    assert made.tasks["end"].filled({"left": "L", "right": "R"}, 99).prompt == "L R"
    assert made.tasks["end"].least().prompt == " "


def test_the_longest_chain_before_a_sub_task_counts_its_own_tokens_and_those_of_whoever_waits():
    made = graph(CHAIN)
    assert made.remaining({"start": 1, "left": 10, "right": 20, "end": 100}) == {
        "start": 121,
        "left": 110,
        "right": 120,
        "end": 100,
    }


def named(*names, **options):
    return {name: {"prompt": "x", **options} for name in names}


@pytest.mark.parametrize(
    ("tasks", "parameter", "told"),
    [
        ({"a": {"prompt": "{{ a }}"}}, "tasks.a.after", "circle: a waits for a; take one of these"),
        (
            {"a": {"prompt": "{{ c }}"}, "b": {"prompt": "x", "after": ["a"]}, "c": {"prompt": "{{ b }}"}},
            r"tasks\.[abc]\.after",
            r"(a waits for c, c waits for b, b waits for a|b waits for a, .*|c waits for b, .*)",
        ),
        ({**named("outline"), "b": {"prompt": "{{ outlin }}"}}, "tasks.b.prompt", "takes in 'outlin', .* nearest: outline"),
        (
            {**named("outline"), "b": {"prompt": "x", "after": "zzz"}},
            "tasks.b.after",
            "waits for 'zzz', .* there are: outline, b",
        ),
        ({"a": {"prompt": "{{ a.b }}"}}, "tasks.a.prompt", "sub-task 'a': the prompt is no template"),
        ({"a": {"prompt": "x", "max_tokens": 0}}, "tasks.a.max_tokens", "sub-task 'a': max_tokens must be at least 1, not 0"),
        ({"a": {"prompt": "x", "after": 7}}, "tasks.a.after", "a name or a list of names"),
        ({"a": {"prompt": "x", "after": [7]}}, "tasks.a.after", "must be a string, not a number"),
        ({"a": {}}, "tasks.a.prompt", "prompt must be a string, not null"),
        ({"a": {"prompt": ""}}, "tasks.a.prompt", "the prompt is empty"),
        ({"a": {"prompt": "x", "max_token": 3}}, "tasks.a.max_token", "unknown key in tasks.a: 'max_token'; known: after"),
        ({"a": {"prompt": "x", "messages": []}}, "tasks.a.messages", "messages is not for sub-tasks: a sub-task has a prompt"),
        ({"a": {"prompt": "x", "timeline": True}}, "tasks.a.timeline", "the whole graph has one"),
        ({"a": {"prompt": "x", "n": 2}}, "tasks.a.n", "n is not implemented"),
        ({"a": 3}, "tasks.a", "tasks.a must be an object"),
        (named("a b"), "tasks", "letters, digits and _"),
        (named("if"), "tasks", "cannot be called 'if'"),
        (named("__a"), "tasks", "cannot be called"),
        (named("é"), "tasks", "letters, digits"),
        (named("a" * 33), "tasks", "at most 32 characters"),
        (named(*[f"t{n}" for n in range(MAX_TASKS + 1)]), "tasks", f"from 1 to {MAX_TASKS} sub-tasks, not {MAX_TASKS + 1}"),
        ({}, "tasks", "from 1 to"),
        ([], "tasks", "must be an object"),
        (None, "tasks", "tasks must be an object, not missing"),
    ],
)
def test_what_could_never_run_is_refused_with_the_place_and_what_would_be_right(tasks, parameter, told):
    with pytest.raises(InvalidRequestError, match=told) as refused:
        graph(tasks)
    assert re.fullmatch(parameter, refused.value.parameter)


@pytest.mark.parametrize(
    "body", [None, [], {"tasks": named("a"), "task": 1}, {"tasks": named("a"), "defaults": {"prompt": "x"}}]
)
def test_what_is_no_graph_is_refused(body):
    with pytest.raises(InvalidRequestError):
        TaskGraph.from_json(body)


def test_a_prompt_that_takes_in_what_stays_on_the_device_must_stay_too():
    private = {"prompt": "x", "privacy": "device_only", "mode": "device"}
    told = r"'b' takes in the result of 'a', which is to stay on the device; label it, too: privacy device_only"
    with pytest.raises(InvalidRequestError, match=told) as refused:
        graph({"a": private, "b": {"prompt": "{{ a | words(1) }}", "mode": "device"}})
    assert refused.value.parameter == "tasks.b.privacy"
    graph({"a": private, "b": {**private, "prompt": "{{ a }}"}})
    graph({"a": private, "b": {"prompt": "only waits", "after": "a"}})


@given(st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=1, max_size=8))
def test_any_wiring_is_a_graph_in_order_or_refused_as_a_circle(wires):
    tasks = {f"t{n}": {"prompt": "x", "after": [f"t{to % len(wires)}" for to in waits]} for n, waits in enumerate(wires)}
    try:
        made = graph(tasks)
    except InvalidRequestError:
        with pytest.raises(graphlib.CycleError):
            graphlib.TopologicalSorter({name: task["after"] for name, task in tasks.items()}).prepare()
        return
    order = list(made.tasks)
    assert sorted(order) == sorted(tasks)
    assert all(order.index(name) < order.index(task.name) for task in made.tasks.values() for name in task.after)


def test_a_prompt_that_says_nothing_is_refused_before_anything_runs():
    with pytest.raises(InvalidRequestError, match="the prompt is empty"):
        graph({"a": {"prompt": "{# nothing #}"}}).tasks["a"].least()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TASK = st.dictionaries(st.sampled_from(["prompt", "after", "max_tokens", "mode", "stop", "privacy", "n", "x\ud800"]), JSON)


@given(JSON | st.fixed_dictionaries({"tasks": st.dictionaries(st.sampled_from(["a", "b", "\ud800", "a b"]), JSON | TASK)}))
def test_whatever_json_is_sent_is_a_graph_or_is_refused(body):
    refusal = None
    try:
        TaskGraph.from_json(body)
    except InvalidRequestError as error:
        refusal = error
    assert refusal is None or error_object(refusal)["message"].encode()
