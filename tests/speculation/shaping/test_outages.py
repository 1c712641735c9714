import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import ConfigurationError
from speculation.shaping.outages import Outage, Outages

PLAN = (Outage(10.0, 12.0), Outage(20.0, 21.0))


def test_in_an_outage_nothing_moves_until_its_end():
    outages = Outages(PLAN)
    assert [outages.open_at(t) for t in (9.5, 10.0, 11.9, 12.0, 20.5, 30.0)] == [9.5, 12.0, 12.0, 12.0, 21.0, 30.0]


def test_work_rests_in_outages_and_goes_on_behind_them():
    outages = Outages(PLAN)
    assert outages.done_at(9.0, 0.5) == 9.5
    assert outages.done_at(9.0, 1.5) == 12.5
    assert outages.done_at(11.0, 1.0) == 13.0
    assert outages.done_at(9.0, 10.0) == 22.0
    assert outages.done_at(9.0, 1.0) == 10.0  # done when the outage begins


def test_a_plan_counts_from_when_the_network_began():
    assert Outages(PLAN, origin_s=1000.0).open_at(1011.0) == 1012.0


def test_outages_that_overlap_are_one():
    outages = Outages((Outage(3.0, 5.0), Outage(1.0, 4.0), Outage(5.0, 6.0)))
    assert outages.open_at(1.0) == 6.0
    within = Outages((Outage(1.0, 9.0), Outage(2.0, 3.0)))
    assert within.open_at(4.0) == 9.0


def test_outages_are_drawn_from_the_very_beginning_on():
    assert Outages(between_s=1.0, lasting_s=1.0, seed=1).done_at(0.0, 100.0) > 150.0


def test_without_outages_time_goes_on():
    assert Outages().done_at(1.0, 2.0) == 3.0


def test_drawn_outages_have_the_means_that_were_asked_for():
    outages = Outages(between_s=60.0, lasting_s=5.0, seed=1)
    step_s, num_steps = 1.0, 100_000
    lost = sum(outages.open_at(number * step_s) > number * step_s for number in range(num_steps))
    assert lost / num_steps == pytest.approx(5 / 65, rel=0.1)


def test_the_same_seed_draws_the_same_outages_in_whatever_order_they_are_asked_for():
    times = [float(second) for second in range(0, 3000, 7)]
    forwards, backwards = (Outages(between_s=30.0, lasting_s=5.0, seed=4) for _ in range(2))
    assert [forwards.open_at(t) for t in times] == [backwards.open_at(t) for t in reversed(times)][::-1]
    other = Outages(between_s=30.0, lasting_s=5.0, seed=5)
    assert [forwards.open_at(t) for t in times] != [other.open_at(t) for t in times]


@pytest.mark.parametrize("outage", [(-1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (1.0, float("inf"))])
def test_an_outage_that_cannot_be_is_refused(outage):
    with pytest.raises(ConfigurationError, match="an outage begins at 0 s or later and ends after that"):
        Outage(*outage)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 10)), max_size=6), st.floats(0, 60), st.floats(0, 20))
def test_work_is_never_done_early_and_takes_what_the_outages_take(spans, start_s, work_s):
    outages = Outages([Outage(begin_s, begin_s + length_s) for begin_s, length_s in spans])
    done_s = outages.done_at(start_s, work_s)
    closed_s = sum(length_s for _, length_s in spans)
    assert start_s + work_s - 1e-9 <= done_s <= start_s + work_s + closed_s + 1e-9
