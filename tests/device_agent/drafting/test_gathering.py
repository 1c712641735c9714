"""Drafts that are held back: never for longer than the next pass allows, and without making a pass more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.grid_production import delay_line
from device_agent.drafting.gathering import (
    IDLE_WINDOW,
    MARGIN_SHARE,
    MOST_EARLY_SHARE,
    SHORTEST_PASS_S,
    WINDOW,
    Schedule,
)
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector
from tests.device_agent.doubles import DraftEngine, SlowEngine, agent_of, answer, verifier

PASS_S, ROUND_TRIP_S = 0.06, 0.02
moments = st.floats(0, 10, allow_nan=False)


def steady(round_trip_s: float = ROUND_TRIP_S, num_verdicts: int = WINDOW + 1) -> Schedule:
    """Verdicts every ``PASS_S``, the last at ``num_verdicts`` passes."""
    schedule = Schedule()
    schedule.opened(round_trip_s)
    for count in range(1, num_verdicts + 1):
        schedule.verdict(count * PASS_S, is_bare=False, is_overtaken=False)
    return schedule


@pytest.mark.parametrize("num_verdicts", [0, 1])
def test_with_nothing_known_drafts_leave_at_once(num_verdicts):
    assert steady(num_verdicts=num_verdicts).leave_s(5.0) == 5.0
    assert Schedule().leave_s(5.0) == 5.0


@given(moments, st.floats(0, 0.5))
def test_drafts_leave_before_the_last_moment_and_wait_less_than_a_pass(after_s, round_trip_s):
    schedule = steady(round_trip_s)
    now_s = (WINDOW + 1) * PASS_S + after_s
    leave_s = schedule.leave_s(now_s)
    assert now_s <= leave_s <= now_s + PASS_S
    # There in time: the moment plus half a round trip is no later than the beginning of some pass that is still to come.
    begins_s = (WINDOW + 1) * PASS_S - round_trip_s / 2
    passes = (leave_s + round_trip_s / 2 - begins_s) / PASS_S
    assume(abs(passes - round(passes)) > 1e-6)
    early = 1 - passes % 1
    assert leave_s == now_s or early >= MARGIN_SHARE - 1e-6


def test_a_draft_that_is_only_just_in_time_is_not_held_back_for_the_next_pass():
    """Moments are sums of floats, so an exact tie may come out on either side."""
    schedule = steady(ROUND_TRIP_S)
    last_s = (WINDOW + 2) * PASS_S - ROUND_TRIP_S
    for now_s in (last_s, last_s + 1e-9, last_s - 1e-9):
        assert schedule.leave_s(now_s) == now_s


def waited_for(num_passes: int = 3, idle_s: float = 0.02) -> tuple[Schedule, float]:
    """A verifier that begins a pass when drafts arrive, so long after the one before; and the time of the last verdict."""
    schedule = Schedule()
    schedule.opened(ROUND_TRIP_S)
    sent_s = 0.0
    for number in range(1, num_passes + 1):
        schedule.sent(sent_s, number)
        now_s = sent_s + ROUND_TRIP_S + PASS_S
        schedule.verdict(now_s, is_bare=False, is_overtaken=True, last_node=number)
        # It would be in time for a pass that begins at once if it left so long before the verdict.
        sent_s = now_s - ROUND_TRIP_S + idle_s
    return schedule, now_s


def test_a_verifier_that_waits_for_drafts_gets_them_at_once():
    schedule, now_s = waited_for()
    assert schedule.is_waited_for
    assert schedule.leave_s(now_s + 0.001) == now_s + 0.001


def test_one_that_is_never_idle_is_not_taken_for_one_that_waits():
    """Drafts arrive while a pass runs, and are checked by the next."""
    schedule, now_s = waited_for(num_passes=6, idle_s=-0.01)
    assert not schedule.is_waited_for
    assert schedule.leave_s(now_s + 0.001) > now_s + 0.001


def test_what_the_network_makes_uneven_is_no_idleness():
    assert not waited_for(idle_s=0.002)[0].is_waited_for


def test_beside_passes_of_a_moment_nobody_is_taken_for_one_that_waits():
    """The handshake had to wait for a processor, and what was copied at once is answered at once."""
    schedule, pass_s = Schedule(), SHORTEST_PASS_S / 5
    schedule.opened(ROUND_TRIP_S)
    for number in range(1, 20):
        schedule.sent(number * pass_s, number)
        schedule.verdict((number + 1) * pass_s, is_bare=False, is_overtaken=True, last_node=number)
        assert not schedule.is_waited_for


def test_a_verifier_that_is_not_seen_idle_any_more_counts_as_one_that_goes_on():
    schedule, now_s = waited_for()
    for count in range(1, IDLE_WINDOW + 1):
        assert schedule.is_waited_for
        schedule.verdict(now_s + count * PASS_S, is_bare=False, is_overtaken=False)
    assert not schedule.is_waited_for
    waiting, _ = waited_for()
    waiting.opened(ROUND_TRIP_S)
    assert not waiting.is_waited_for


@pytest.mark.parametrize(
    ("round_trip_s", "step_s", "lag"),
    [(0.02, 0.009, 1), (0.06, 0.0, 1), (0.06, 0.009, 2), (0.111, 0.009, 2), (0.112, 0.009, 3), (0.3, 0.009, 6)],
)
def test_the_lag_is_the_passes_that_begin_before_a_draft_made_now_is_there(round_trip_s, step_s, lag):
    assert steady(round_trip_s).lag(step_s) == lag


def test_a_lag_is_not_known_before_two_verdicts_nor_beside_passes_of_a_moment():
    assert Schedule().lag(0.009) is None
    assert steady(num_verdicts=1).lag(0.009) is None
    schedule = Schedule()
    schedule.opened(ROUND_TRIP_S)
    for count in range(4):
        schedule.verdict(count * 0.9 * SHORTEST_PASS_S, is_bare=False, is_overtaken=False)
    assert schedule.lag(0.009) is None


def test_nobody_lags_behind_a_verifier_that_waits():
    assert waited_for()[0].lag(0.009) == 0


@pytest.mark.parametrize("round_trip_s", [0.15, 0.35])
def test_what_a_verifier_has_written_before_it_comes_is_outrun(round_trip_s):
    schedule = steady(round_trip_s)  # in which there are 2.5 and 5.8 passes
    assert [count for count in range(1, 8) if schedule.is_outrun(count)] == list(range(1, int(round_trip_s / PASS_S) + 1))


def test_nothing_outruns_what_a_verifier_waits_for_nor_before_its_passes_are_known():
    assert not waited_for()[0].is_outrun(0)
    assert not steady(0.35, num_verdicts=1).is_outrun(1)
    assert not Schedule().is_outrun(1)


def test_that_a_node_was_taken_sooner_than_the_handshake_tells_what_is_outrun():
    """Passes of a moment; of three nodes the first is answered after longer than the handshake says, the second the soonest."""
    schedule, pass_s = Schedule(), SHORTEST_PASS_S / 5
    for _ in range(2):
        schedule.opened(50 * pass_s)
        for count in range(1, 140):
            number = {70: 1, 100: 2, 130: 3}.get(count, 0)
            if number:
                schedule.sent((count - (60, 3.5, 9)[number - 1]) * pass_s, number)
            schedule.verdict(count * pass_s, is_bare=not number, is_overtaken=False, last_node=number)
            if count > 1:
                least = 50 if count < 100 else 3.5
                assert [schedule.is_outrun(num_tokens) for num_tokens in (least - 0.1, least + 0.1)] == [True, False]


@pytest.mark.parametrize(("answered_s", "lag"), [(0.4, 6), (0.36, 6), (0.29, 4), (0.08, 1)])
def test_a_way_that_became_shorter_by_a_pass_is_noticed(answered_s, lag):
    """A pass of 60 ms over 300: answers take 360 at least."""
    schedule = steady(0.3)
    assert schedule.lag(0.009) == 6
    now_s = (WINDOW + 2) * PASS_S
    schedule.sent(now_s - answered_s, 1)
    schedule.verdict(now_s, is_bare=False, is_overtaken=False, last_node=1)
    assert schedule.lag(0.009) == lag


def test_what_was_sent_before_the_stream_was_opened_is_known_when_it_is_answered():
    """The initial credit; else its nodes would be taken for later ones that were answered in no time."""
    schedule = Schedule()
    schedule.sent(0.0, 20)
    schedule.opened(0.3)
    schedule.sent(0.3, 30)
    for count, last_node in enumerate((8, 12, 20)):
        schedule.verdict(0.36 + count * PASS_S, is_bare=False, is_overtaken=False, last_node=last_node)
    assert not schedule.is_waited_for
    assert schedule.lag(0.009) == 6


def test_a_stream_that_numbers_its_nodes_anew_forgets_the_older_ones():
    """Else a verifier that waits would not be noticed after a reconnect: its nodes would seem to have been sent long ago."""
    schedule, now_s = Schedule(), 10.0
    schedule.sent(0.0, 20)
    schedule.opened(ROUND_TRIP_S)
    for number in (1, 2, 3):
        schedule.sent(now_s, number)
        schedule.verdict(now_s + ROUND_TRIP_S + PASS_S, is_bare=False, is_overtaken=True, last_node=number)
        now_s += PASS_S + 0.02
    assert schedule.is_waited_for


def test_drafts_that_wait_for_their_pass_make_no_way_longer_or_shorter():
    schedule = steady(ROUND_TRIP_S)
    for count in range(100):
        now_s = (WINDOW + 2 + count) * PASS_S
        schedule.sent(now_s - ROUND_TRIP_S - PASS_S - 0.0005 * count, count + 1)
        schedule.verdict(now_s, is_bare=False, is_overtaken=False, last_node=count + 1)
        assert schedule.lag(0.009) == 1
    assert schedule.leave_s(now_s) == pytest.approx(now_s + PASS_S - ROUND_TRIP_S - MARGIN_SHARE * PASS_S)


@pytest.mark.parametrize("gather", [1, 4])
def test_with_a_verifier_that_waits_gathering_costs_no_time(gather):
    async def work(draft_gather):
        async with verifier(SlowEngine(PASS_S), patience="never", gather=gather) as made:
            line = ShapedConnector(MemoryConnector(made), delay_line(60))
            draft = DraftEngine(0.5, step_s=0.009)
            async with agent_of(line, draft, drafting="second-branch", draft_gather=draft_gather) as running:
                last = (await answer(running, max_tokens=120)).last
                return last["token_ids"], asyncio.get_running_loop().time()

    (held, held_s), (sent, sent_s) = virtual_time.run(work(True)), virtual_time.run(work(False))
    assert held == sent
    assert held_s <= 1.01 * sent_s


def test_verdicts_that_come_unevenly_make_drafts_leave_earlier():
    even, uneven = steady(), steady()
    last_s = (WINDOW + 1) * PASS_S
    even.verdict(last_s + PASS_S, is_bare=False, is_overtaken=False)
    uneven.verdict(last_s + PASS_S + 0.01, is_bare=False, is_overtaken=False)
    now_s = last_s + PASS_S + 0.01
    assert uneven.leave_s(now_s) - now_s < even.leave_s(now_s) - (last_s + PASS_S) + 0.01


def test_however_unevenly_verdicts_come_most_of_a_pass_is_gathered():
    schedule, now_s = steady(), (WINDOW + 1) * PASS_S
    for late_s in (0.05, 0.0, 0.05, 0.0):
        now_s += PASS_S + late_s
        schedule.verdict(now_s, is_bare=False, is_overtaken=False)
    last_s = now_s + PASS_S - ROUND_TRIP_S
    assert schedule.leave_s(now_s) >= last_s - MOST_EARLY_SHARE * PASS_S - 1e-9


def test_a_draft_that_came_late_moves_the_estimate_which_forgets_it_again():
    schedule = steady()
    last_s = (WINDOW + 1) * PASS_S
    before_s = schedule.leave_s(last_s)
    schedule.sent(before_s, 1)
    # Sent in time for the pass that this verdict ends, and not in it.
    schedule.verdict(last_s + 2 * PASS_S, is_bare=True, is_overtaken=False)
    now_s = last_s + 2 * PASS_S
    assert schedule.leave_s(now_s) - now_s < before_s - last_s
    for count in range(1, 2000):
        schedule.verdict(now_s + count * PASS_S, is_bare=False, is_overtaken=False)
    now_s += 1999 * PASS_S
    assert schedule.leave_s(now_s) - now_s == pytest.approx(before_s - last_s, abs=1e-6)


@pytest.mark.parametrize("round_trip_ms", [20, 60, 150])
@pytest.mark.parametrize("drafting", ["ahead", "second-branch"])
def test_on_a_steady_network_it_costs_no_pass_and_saves_messages(round_trip_ms, drafting):
    async def work(draft_gather):
        async with verifier(SlowEngine(PASS_S)) as made:
            line = ShapedConnector(MemoryConnector(made), delay_line(round_trip_ms))
            draft = DraftEngine(0.8, step_s=0.009)
            async with agent_of(line, draft, drafting=drafting, draft_gather=draft_gather) as running:
                return (await answer(running, max_tokens=120)).last

    held, sent = virtual_time.run(work(True)), virtual_time.run(work(False))
    assert held["token_ids"] == sent["token_ids"]
    assert held["usage"]["passes"] <= 1.02 * sent["usage"]["passes"]
    assert held["figures"]["messages_up"]["value"] < 0.5 * sent["figures"]["messages_up"]["value"]
