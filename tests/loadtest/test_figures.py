"""Figures of a load test, against numbers worked out by hand."""

import pytest

from loadtest.answers import Answer, Drafts, End, Ledger, Texts, Times, judge
from loadtest.figures import WELL_BEHAVED, Spread, by_class, figures_of, meets, tpot_s
from loadtest.scenario import parse

NONE = Drafts()


def answer(*updates, began_s=0.0, ended_s=None, end=End.DONE, how="", group="readers", drafts=NONE, visible_s=None):
    times = Times(began_s, visible_s, list(updates))
    return Answer(group, times, ended_s if ended_s is not None else updates[-1][0], end, how, drafts)


def test_a_spread_interpolates_between_neighbours():
    spread = Spread.of([float(n) for n in range(1, 101)])
    assert (spread.count, spread.mean, spread.median) == (100, 50.5, 50.5)
    assert spread.std == pytest.approx(28.86607)
    assert spread.percentiles["p50"] == 50.5
    assert spread.percentiles["p90"] == pytest.approx(90.1)
    assert spread.percentiles["p99"] == pytest.approx(99.01)
    assert spread.percentiles["p99.9"] == pytest.approx(99.901)


def test_nothing_has_no_spread():
    assert Spread.of([]) is None


def test_time_per_output_token_leaves_the_first_token_out():
    assert tpot_s(answer((1.0, 2), (1.6, 3))) == pytest.approx(0.15)
    assert tpot_s(answer((1.0, 1))) is None


@pytest.mark.parametrize(
    ("first_s", "last_s", "is_met"), [(0.2, 0.25, True), (0.201, 0.25, False), (0.2, 0.251, False), (0.1, 0.16, False)]
)
def test_both_objectives_have_to_be_met(first_s, last_s, is_met):
    one = answer((first_s, 1), (last_s, 1))
    assert meets(one, one.times.first_final_s) is is_met


def test_rates_count_the_tokens_of_every_answer_and_the_requests_that_came_to_their_end():
    figures = figures_of([answer((0.1, 4), (0.2, 4)), answer((1.0, 2), end=End.LEFT, how="cut")], seconds=2.0)
    assert figures.values["output_tokens_per_s"] == 5.0
    assert figures.values["requests_per_s"] == 0.5
    assert figures.ends == {"done": 1, "left": 1, "expected": 0, "failed": 0}
    assert figures.reasons == {"left: cut": 1}
    assert figures.spreads["tokens_per_update"].mean == 4.0


def test_an_answer_that_went_on_after_a_cut_is_told():
    one = Answer("readers", Times(0.0, None, [(1.0, 1)]), 1.0, End.DONE, "", NONE, is_resumed=True)
    assert figures_of([one, answer((1.0, 1))], 1.0).reasons == {"done: resumed": 1}


def test_times_are_of_answers_that_came_to_their_end():
    figures = figures_of([answer((0.1, 1)), answer((9.0, 1), end=End.FAILED, how="500")], seconds=10.0)
    assert figures.spreads["first_final_ms"].count == 1
    assert figures.spreads["first_final_ms"].percentiles["p99.9"] == pytest.approx(100.0)


def test_drafts_are_counted_over_all_answers():
    figures = figures_of([answer((1.0, 1), drafts=Drafts(10, 2, 6, 2)), answer((1.0, 1), drafts=Drafts(10, 3, 3, 1))], 1.0)
    assert figures.values["acceptance"] == 0.75
    assert figures.values["revoked_share"] == 0.25


def test_goodput_by_the_first_visible_token_is_for_those_who_show_one():
    shown, not_shown = answer((0.5, 1), visible_s=0.1), answer((0.5, 1))
    assert figures_of([shown], 1.0).values["goodput_visible_share"] == 1.0
    assert figures_of([shown], 1.0).values["goodput_final_share"] == 0.0
    assert figures_of([not_shown], 1.0).values["goodput_visible_share"] is None


def test_abusers_are_not_among_the_well_behaved():
    groups = [
        {"name": "readers", "kind": "reader"},
        {"name": "deaf", "kind": "abuser", "tenant": "abusers", "abuse": "deaf"},
    ]
    told = parse({"title": "t", "stages": [{"seconds": 1, "users": 1}], "groups": groups}, "f")
    ledger = Ledger([answer((1.0, 1)), answer((2.0, 8), group="deaf", end=End.FAILED)], began=2)
    found = by_class(told, ledger)
    assert [figures.num_answers for figures in found.values()] == [1, 1, 1]
    assert found[WELL_BEHAVED].values["output_tokens_per_s"] == 0.5
    assert found[WELL_BEHAVED].ends["failed"] == 0


def test_an_end_that_the_scenario_expects_is_no_failure():
    assert judge("", ()) is End.DONE
    assert judge("429", ("429",)) is End.EXPECTED
    assert judge("429: all 4 sessions are taken", ("429",)) is End.EXPECTED
    assert judge("500", ("429",)) is End.FAILED


def test_an_answer_that_was_asked_for_and_never_ended_is_counted():
    assert Ledger([answer((1.0, 1))], began=3).num_open == 2


def test_one_request_has_one_text_as_far_as_both_go():
    texts = Texts()
    assert texts.agrees(("p", 0.8, 1), [1, 2, 3])
    assert texts.agrees(("p", 0.8, 1), [1, 2])
    assert texts.agrees(("p", 0.8, 1), [1, 2, 3, 4])
    assert not texts.agrees(("p", 0.8, 1), [1, 2, 3, 5])
    assert texts.agrees(("p", 0.8, 2), [9])


def test_a_process_that_stood_still_is_noticed_and_one_that_is_a_little_late_is_not():
    ledger = Ledger()
    for now_s in (10.0, 10.25, 11.0, 11.25, 14.5, 14.75):
        ledger.ticked(now_s)
    assert ledger.stalls_s == [pytest.approx(3.0)]
