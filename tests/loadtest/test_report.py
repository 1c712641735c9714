"""The report's files, its table and its exit code, from answers made by hand."""

import json

import pytest

from loadtest import plot, report
from loadtest.answers import Answer, End, Ledger, Times
from loadtest.figures import by_class
from loadtest.scenario import parse

GROUPS = [
    {"name": "readers", "kind": "reader"},
    {"name": "large", "kind": "abuser", "tenant": "abusers", "abuse": "oversized"},
]
HOW = {End.DONE: "", End.LEFT: "cut", End.EXPECTED: "429", End.FAILED: "500"}
FILES = {report.SUMMARY, report.TABLE, report.REQUESTS, *report.PLOTS}
TOLD = parse({"title": "A test", "stages": [{"seconds": 9, "users": 2}], "groups": GROUPS}, "f")


def ledger(*ends, group="readers", num_open=0):
    answers = [
        Answer(group, Times(at_s, at_s + 0.1, [(at_s + 0.2, 2), (at_s + 0.3, 4)]), at_s + 0.4, end, HOW[end])
        for at_s, end in enumerate(ends, 100)
    ]
    crowd = [(100.0, group, 1), (101.0, group, 1), (109.0, group, -1)]
    return Ledger(answers, crowd, len(answers) + num_open)


@pytest.fixture
def no_plots(monkeypatch):
    """One test draws; that takes a second."""
    monkeypatch.setattr(report, "PLOTS", ())


def test_all_files_are_written(tmp_path, capsys):
    assert report.publish(TOLD, ledger(End.DONE, End.DONE), tmp_path / "new") == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES
    shown = capsys.readouterr().out
    assert "readers" in shown
    assert f"the report is in {tmp_path / 'new'}" in shown


def test_the_table_of_percentiles_has_a_line_for_each_quantity_of_each_class():
    happened = ledger(End.DONE, End.DONE)
    columns, *lines = report.rows(by_class(TOLD, happened))
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    first = next(row for row in rows if (row["class"], row["figure"]) == ("readers", "first_final_ms"))
    assert (first["count"], float(first["p99.9"]), first["value"]) == ("2", pytest.approx(200), "")
    rate = next(row for row in rows if (row["class"], row["figure"]) == ("readers", "output_tokens_per_s"))
    assert float(rate["value"]) == pytest.approx(12 / 1.4, rel=1e-5)
    assert rate["p50"] == ""


def test_the_summary_and_the_requests_are_json(tmp_path, capsys, no_plots):
    assert report.publish(TOLD, ledger(End.DONE, End.EXPECTED), tmp_path) == 0
    assert "expected: 429" in capsys.readouterr().out
    summary = json.loads((tmp_path / report.SUMMARY).read_text("utf-8"))
    assert summary["scenario"]["title"] == "A test"
    assert summary["objectives"] == {"first_token_ms": 200.0, "between_tokens_ms": 50.0}
    assert summary["classes"]["readers"]["spreads"]["inter_token_ms"]["mean"] == pytest.approx(25.0)
    line, _ = (tmp_path / report.REQUESTS).read_text("utf-8").splitlines()
    assert json.loads(line)["updates"] == [[0.2, 2], [0.3, 4]]


@pytest.mark.parametrize(
    ("happened", "faults"),
    [
        (ledger(End.DONE, End.EXPECTED, End.LEFT), 0),
        (ledger(End.DONE, End.FAILED), 1),
        (ledger(End.DONE, num_open=1), 1),
        (ledger(End.FAILED, group="large"), 0),
    ],
    ids=["expected ends", "a failure", "no end", "an abuser's failure"],
)
def test_only_a_well_behaved_failure_and_a_missing_end_are_faults(happened, faults):
    assert report.num_faults(TOLD, happened, by_class(TOLD, happened)) == faults


def test_a_fault_is_told_and_fails_the_run(tmp_path, capsys, no_plots):
    assert report.publish(TOLD, ledger(End.FAILED, num_open=2), tmp_path) == 1
    shown = capsys.readouterr().out
    assert "failed: 500" in shown
    assert "3 well-behaved requests failed or never ended" in shown


def test_a_run_in_which_nothing_happened_has_a_picture_too():
    plot.draw(TOLD, ledger(), [])


def test_it_is_told_that_the_users_themselves_stood_still(tmp_path, capsys, no_plots):
    happened = ledger(End.DONE)
    happened.stalls_s += [2.0, 1.5]
    report.publish(TOLD, happened, tmp_path)
    assert "stood still 2 times, 3.5 s in all" in capsys.readouterr().out
    assert json.loads((tmp_path / report.SUMMARY).read_text("utf-8"))["users_stood_still_s"] == [2.0, 1.5]


def test_other_ends_are_told_once_for_each_class():
    happened = ledger(End.DONE, End.EXPECTED, End.EXPECTED, End.LEFT)
    assert report.endings(by_class(TOLD, happened)) == [("readers", 2, "expected: 429"), ("readers", 1, "left: cut")]


def test_users_are_counted_as_they_come_and_go():
    assert plot.crowd_over_time(ledger(), {"readers"}, 100.0) == [(0.0, 0.0), (0.0, 1.0), (1.0, 2.0), (9.0, 1.0)]
    assert plot.crowd_over_time(ledger(), {"large"}, 100.0) == [(0.0, 0.0)]


def test_each_gap_stands_where_its_token_became_final():
    points = plot.gaps(ledger(End.DONE).answers, 100.0)
    assert points == [(pytest.approx(0.3), pytest.approx(25.0))] * 4


def test_points_fall_into_windows_of_a_second():
    assert plot.windows([(0.2, 1.0), (0.9, 2.0), (2.5, 3.0)], 1.0) == {0.5: [1.0, 2.0], 2.5: [3.0]}


def test_a_window_in_which_nothing_came_has_a_rate_of_nothing():
    assert plot.rates([(0.5, 6.0), (1.5, 2.0), (5.0, 4.0)], 2.0) == [(1.0, 4.0), (3.0, 0.0), (5.0, 2.0)]
    assert plot.rates([], 2.0) == []
