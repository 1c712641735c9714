"""Fronts are what they say on points made by hand, and the search runs the production code as it says."""

import dataclasses

import pytest

from benchmarks import first_order, thrift, thrift_runs
from benchmarks.first_order import Figures, Times
from benchmarks.first_order_ahead import Truth
from benchmarks.grid_production import PROMPT
from benchmarks.thrift_front import Point, compare, front, reached, shortlist
from benchmarks.thrift_runs import PAIR_GREEDY, SYNTHETIC, Cell, Row, Search, measure
from cloud_verifier.patience import NEVER
from device_agent.request import Mode
from outrider.planning.synthetic import Acceptance, Paths, encode
from speculation.engines.base import Chunk

REFERENCE = thrift.REFERENCE
TINY = Search(
    policies=("two branches",),
    patiences=(),
    gathers=(1, 4),
    floors=(0.3,),
    floored_gathers=(4,),
    lengths=(1, 4),
    num_scout_tokens=40,
    num_tokens=150,
    num_draws=1,
    num_traces=1,
    slack=1.0,
)


def point(passes, rate, name=""):
    return Point(name or f"{passes} for {rate}", Figures(rate, passes))


MADE = [
    point(0.5, 20.0, "b"),
    point(0.3, 10.0, "a"),
    point(0.4, 9.0),
    point(0.5, 18.0),
    point(0.8, 20.0),
    point(0.7, 25.0, "c"),
]


@pytest.fixture(scope="module")
def row():
    return measure(REFERENCE, TINY)


def test_a_front_holds_what_nothing_beats_in_both():
    assert [found.name for found in front(MADE)] == ["a", "b", "c"]


def test_between_two_points_the_seconds_a_token_are_mixed():
    """Half of the tokens at 0.1 s, half at 0.05 s."""
    found = reached(front(MADE), 0.4)
    assert found.tokens_per_s == pytest.approx(1 / 0.075)
    assert found.names == ("a", "b")


def test_at_a_point_a_front_gives_that_point():
    found = reached(front(MADE), 0.5)
    assert (found.tokens_per_s, found.names) == (20.0, ("b",))
    found = reached(front(MADE), 0.3)
    assert (found.tokens_per_s, found.names) == (10.0, ("a",))


def test_behind_the_last_point_more_passes_buy_nothing():
    found = reached(front(MADE), 0.9)
    assert (found.tokens_per_s, found.names) == (25.0, ("c",))


def test_before_the_first_point_there_is_nothing():
    with pytest.raises(ValueError, match=r"begins at 0\.300"):
        reached(front(MADE), 0.29)


def test_fronts_are_compared_at_the_budget():
    found = compare(front(MADE), [point(0.2, 10.0)], budget=0.5)
    assert (found.passes_per_token, found.bound_by, found.ratio, found.is_missed) == (0.5, None, 2.0, False)


@pytest.mark.parametrize("is_ours", [True, False])
def test_fronts_are_compared_at_the_fewest_passes_that_both_reach_where_one_does_not_reach_the_budget(is_ours):
    late, early = front(MADE), [point(0.1, 5.0)]
    found = compare(*((late, early) if is_ours else (early, late)), budget=0.2)
    assert found.passes_per_token == 0.3
    assert found.bound_by == ("ours" if is_ours else "stop-and-wait")
    assert found.ratio == pytest.approx(2.0 if is_ours else 0.5)


def test_the_bound_itself_is_no_miss():
    assert not compare([point(0.4, 13.0)], [point(0.4, 10.0)]).is_missed
    assert compare([point(0.4, 12.99)], [point(0.4, 10.0)]).is_missed


def test_a_shortlist_keeps_what_is_near_the_front():
    near = [point(0.5, 10.0), point(0.6, 9.6), point(0.6, 9.4), point(0.4, 1.0)]
    assert [found.figures.tokens_per_s for found in shortlist(near, 0.05)] == [10.0, 9.6, 1.0]


def test_the_settings_are_all_of_patience_gathering_and_policy():
    search = Search(
        policies=tuple(thrift_runs.POLICIES), patiences=(0.5,), gathers=(1, 4), floors=(0.1, 0.2, 0.3), floored_gathers=(4, 8)
    )
    found = thrift_runs.ours(search, pass_ms=60.0)
    assert len(found) == 4 * (1 + 2 * 2) + 3 * 2
    told = {
        (s.agent.drafting, s.agent.draft_width, s.agent.draft_pass_floor, s.verifier.patience, s.verifier.gather)
        for s in found.values()
    }
    assert len(told) == len(found)
    assert {patience for *_, patience, _ in told} == {0.0, 30.0, NEVER}
    assert {("second-branch", 4, 0.0, NEVER, 4), ("second-branch", 4, 0.2, NEVER, 8)} <= told
    assert all(s.agent.draft_gather for s in found.values())
    assert {(s.agent.drafting, s.verifier.patience) for s in thrift_runs.theirs(Search()).values()} == {("fixed-length", NEVER)}


def test_waiting_for_more_drafts_saves_passes(row):
    passes = {found.name: found.figures.passes_per_token for found in row.ours}
    at_once, soon, late = (passes[f"two branches, patience {rest}"] for rest in ("0", "never, gather 1", "never, gather 4"))
    assert at_once > soon > late


def test_stop_and_wait_is_run_for_real(row):
    """The first-order model of it, on the same draw."""
    paths = Paths(Acceptance(thrift_runs.ACCEPTANCE), 1, encode(PROMPT))
    hits = Truth(paths).hits(TINY.num_tokens + 8)
    for found in row.theirs:
        model = first_order.sync(hits, REFERENCE.times, TINY.num_tokens, int(found.name.split()[0]))
        assert found.figures.tokens_per_s == pytest.approx(model.tokens_per_s, rel=0.04)
        assert found.figures.passes_per_token == pytest.approx(model.passes_per_token, rel=0.04)


def test_a_cell_depends_on_nothing_but_its_arguments(row):
    assert thrift.measured([REFERENCE], TINY, 1) == [row]


def first_rows(jobs):
    """What the draft says first behind each prompt: another seed or another trace says something else."""
    return {
        job.draft.extend([Chunk(job.draft.open(), job.facts.encode(request.prompt), 1)]).tobytes()
        for job in jobs
        for request in job.requests
    }


@pytest.mark.parametrize("text", thrift_runs.TEXTS)
def test_what_is_measured_is_not_what_was_scouted(text):
    cell = Cell(REFERENCE.times, text)
    scouted, measured = first_rows(thrift_runs.scouting(cell, Search())), first_rows(thrift_runs.measuring(cell, Search()))
    num_draws = Search().num_draws if text == thrift_runs.SYNTHETIC else Search().num_traces
    assert (len(scouted), len(measured)) == (1, num_draws)
    assert not scouted & measured


def test_the_pair_is_replayed(row):
    found = measure(Cell(Times(9.0, 60.0, 20.0), PAIR_GREEDY), dataclasses.replace(TINY, lengths=(2,), num_tokens=60))
    assert 0 < found.made_up_share < 1
    assert row.made_up_share == 0
    assert all(request.mode is Mode.COLLABORATE for job in thrift_runs.measuring(found.cell, TINY) for request in job.requests)
    # Two drafts and a choice a pass at most: no text can make stop-and-wait need fewer.
    assert all(p.figures.passes_per_token > 0.3 for p in found.theirs)
    assert all(0 < p.figures.passes_per_token <= 1 for p in (*found.ours, *found.theirs))


def test_tables_say_where_the_bound_is_missed():
    met = Row(Cell(Times(9.0, 60.0, 60.0), SYNTHETIC), [point(0.4, 13.0, "x")], [point(0.4, 10.0, "3 drafts")], 7)
    missed = dataclasses.replace(met, cell=Cell(Times(9.0, 60.0, 20.0), SYNTHETIC), ours=[point(0.45, 12.0, "y")])
    cells, ours, theirs = thrift.grids([met, missed], TINY)
    assert "1 of 2 cells reach 1.3 times" in cells.title
    assert cells.rows[0][4:] == ["0.420", "13.0", "x", "10.0", "3 drafts", "1.30", ""]
    assert cells.rows[1][4:] == ["0.450 (fewest of ours)", "12.0", "y", "10.0", "3 drafts", "1.20", "MISS"]
    assert ours.rows == [["0.400", "13.0", "x", "10.0", "1.30"]]
    assert theirs.rows == [["0.400", "10.0", "3 drafts"]]
    assert all(len(grid.columns) == len(line) for grid in (cells, ours, theirs) for line in grid.rows)


def test_a_front_that_goes_lower_than_stop_and_waits_says_so():
    low = Row(REFERENCE, [point(0.2, 9.0, "x"), point(0.4, 15.0, "y")], [point(0.4, 10.0, "3 drafts")], 7)
    _, ours, _ = thrift.grids([low], TINY)
    assert ours.rows[0][3:] == ["does not reach so few", ""]


def test_all_cells_are_run_in_full_and_two_quickly():
    assert len(set(thrift.all_cells())) == 2 * 2 * 4 * 3
    assert set(thrift.few_cells()) < set(thrift.all_cells())
    assert REFERENCE in thrift.few_cells()
