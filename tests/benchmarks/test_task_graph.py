"""The runs of graphs of sub-tasks show what they say, and the bound is what no order could beat."""

import pytest

from benchmarks import task_graph
from benchmarks.task_graph import NUM_TASKS, SHAPES, Asked, Found, Written
from benchmarks.tasks_scene import DRAFT_COST
from device_agent.request import Mode
from speculation.shaping.costs import Work

PLAN, NOBODY = "a plan, ten parts, a summary", "twelve that wait for nobody"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_twelve_sub_tasks_and_is_a_graph(shape):
    assert len(task_graph.graph_of(Asked(shape, Mode.DEVICE, NUM_TASKS)).tasks) == NUM_TASKS


@pytest.mark.parametrize("mode", [Mode.DEVICE, Mode.COLLABORATE])
def test_a_graph_ends_within_its_bound_and_no_sooner_than_it_can(mode):
    found = task_graph.measure(Asked(PLAN, mode, NUM_TASKS, 0.5))
    assert found.is_met
    assert found.makespan_s >= found.bandwidth_s
    assert found.sequence_s > 2 * found.makespan_s


def test_with_few_places_those_that_wait_for_nobody_fill_them():
    found = task_graph.measure(Asked(NOBODY, Mode.DEVICE, 4, 0.5))
    assert found.bandwidth_s > found.critical_s
    assert found.is_met


def test_the_bandwidth_bound_reads_the_weights_once_a_step_and_every_cache():
    weights_s = DRAFT_COST.step_s([Work(0, 1)])
    one = task_graph.bandwidth_s([Written(1.0, 1, 10, 10)], 4)
    assert one == pytest.approx(3 * weights_s, rel=0.01)
    assert task_graph.bandwidth_s([Written(1.0, 1000, 10, 10)], 4) > one
    assert task_graph.bandwidth_s([Written(1.0, 1, 10, 5)], 4) < one


def test_the_table_tells_a_miss():
    rows = [Found(Asked(PLAN, Mode.DEVICE, 4), 100, 9.0, makespan_s, 2.0, 1.0) for makespan_s in (2.4, 2.5)]
    assert [row[-2:] for row in task_graph.grid(rows).rows] == [["1.20", ""], ["1.25", "MISS"]]
    assert task_graph.to_json(rows[1])["bound_s"] == 2.0


@pytest.mark.parametrize(("is_quick", "count"), [(True, 2), (False, 20)])
def test_a_short_form_measures_less(is_quick, count):
    assert len(task_graph.settings(is_quick)) == count
