"""The runs of many answers on one phone show what they say, and the tables tell which aim is missed."""

import pytest

from benchmarks import tasks
from benchmarks.tasks import FirstWord, Kept, Together
from benchmarks.tasks_scene import Setting, Task, Written, run
from device_agent.drafting.turns import Order
from device_agent.request import Mode

DEVICE = Setting(Mode.DEVICE, "none")


def test_four_answers_at_once_write_at_least_two_and_a_half_times_the_four_in_turn():
    assert tasks.together(DEVICE, 30).speed_up >= tasks.LEAST_SPEED_UP


def test_a_first_word_of_high_priority_is_there_in_little_more_than_its_time_alone_and_without_the_policy_it_is_not():
    alone, workers = Task(1, at_s=0.1033, priority=1), [Task(25)] * 3
    expected, mine, theirs = (
        run(setting, tasks)[-1].first_visible_s
        for setting, tasks in ((DEVICE, [alone]), (DEVICE, [*workers, alone]), (DEVICE.first_come(), [*workers, alone]))
    )
    assert mine <= 1.2 * expected < theirs


def test_a_promised_rate_is_kept_beside_a_text_that_is_read_and_without_the_policy_it_is_not():
    kept = {row.name: row for row in tasks.kept(DEVICE)}
    assert kept["an agent"].is_kept
    assert not tasks.is_kept(kept["an agent"].first_come)


@pytest.mark.parametrize("setting", [DEVICE, Setting(Mode.COLLABORATE, "none")], ids=["device", "collaborate"])
def test_all_rates_are_kept_the_highest_that_is_promised_too(setting):
    rows = tasks.kept(setting)
    assert [row.is_kept for row in rows] == [True] * 3
    assert 30 < rows[-1].fair.target_tokens_per_s < tasks.HIGHEST


def test_what_else_the_phone_does_makes_it_slower():
    quiet, busy = (run(Setting(Mode.DEVICE, load), [Task(30)])[0] for load in ("none", "busy"))
    assert busy.ended_s - busy.began_s > 1.05 * (quiet.ended_s - quiet.began_s)


def written(**changes):
    return Written(**{"began_s": 0, "ended_s": 1, "num_tokens": 9, "first_visible_s": 0.1} | changes)


def test_the_tables_tell_a_miss():
    late = written(target_tokens_per_s=5.0, achieved_tokens_per_s=4.0, target_late_s=0.3)
    good = written(target_tokens_per_s=5.0, achieved_tokens_per_s=9.0, target_late_s=0.0)
    first = FirstWord(DEVICE, "32 tokens", [0.01, 0.01], [0.02, 0.02], [0.01, 0.0121])
    found = tasks.Found(Together(DEVICE, 100.0, 260.0, 240.0), [Kept(DEVICE, "a reader", late, good)], [first])
    together, kept, words = tasks.grids([found])
    assert together.rows[0][-2:] == ["2.40", "MISS"]
    assert kept.rows[0][2:] == ["a reader", "5", "9.00", "0", "4.00", "300", ""]
    assert words.rows[0][2:] == ["32 tokens", "10.0", "11.1", "1.21", "20.0", "2.00", "MISS"]
    assert tasks.to_json(found)["together"]["setting"]["order"] is Order.FAIR


@pytest.mark.parametrize(("achieved", "late_s"), [(4.9, 0.1), (9.0, 0.3), (4.9, 0.3)])
def test_a_rate_that_was_not_reached_or_was_far_behind_is_a_miss(achieved, late_s):
    missed = written(target_tokens_per_s=5.0, achieved_tokens_per_s=achieved, target_late_s=late_s)
    first = FirstWord(DEVICE, "32 tokens", [0.01], [0.02], [0.01])
    found = tasks.Found(Together(DEVICE, 100.0, 260.0, 260.0), [Kept(DEVICE, "a reader", missed, missed)], [first])
    assert tasks.grids([found])[1].rows[0][-1] == "MISS"


@pytest.mark.parametrize(("is_quick", "count"), [(True, 1), (False, 6)])
def test_a_short_form_measures_less(is_quick, count):
    assert len(tasks.settings(is_quick)) == count
