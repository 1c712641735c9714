"""A device whose drafts are hardly ever right stops drafting where passes are short, and learns when they are right again."""

from __future__ import annotations

import pytest

from device_agent.drafting.linear import Ahead, FixedLength
from device_agent.drafting.resting import PROBE_EVERY, Resting
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import VOCABULARY, Watched
from tests.device_agent.drafting.streams import Stream

SHORT_S, LONG_S = 0.002, 0.041


def wrong(times: int) -> Resting:
    resting = Resting()
    for _ in range(times):
        resting.compared(0, True)
    return resting


def test_it_is_the_mean_of_what_was_compared_and_weighs_the_newest_most():
    one_by_one, at_once = Resting(), Resting()
    for _ in range(3):
        one_by_one.compared(1, False)
    one_by_one.compared(0, True)
    at_once.compared(3, True)
    assert at_once.acceptance == pytest.approx(one_by_one.acceptance)
    assert at_once.acceptance < 1 - 0.5 * (31 / 32) ** 3


def test_a_draft_that_is_never_right_drafts_at_few_verdicts_where_a_pass_is_short():
    resting = wrong(20)
    due = [resting.is_due(number, SHORT_S) for number in range(3 * PROBE_EVERY)]
    assert due.count(False) == 3
    assert not due[PROBE_EVERY]


@pytest.mark.parametrize(("times", "pass_s"), [(0, SHORT_S), (20, LONG_S), (20, None), (20, 0.0)])
def test_it_drafts_always_before_anything_was_learned_and_where_a_pass_is_worth_more_or_is_not_known(times, pass_s):
    assert not any(wrong(times).is_due(number, pass_s) for number in range(PROBE_EVERY))


def test_drafts_that_are_right_again_end_it_within_a_few_probes():
    resting = wrong(500)
    probes = 0
    while resting.is_due(1, SHORT_S):
        resting.compared(1, False)
        probes += 1
    assert probes <= 16


def test_a_draft_that_is_right_every_other_time_never_rests():
    resting = Resting()
    for _ in range(500):
        resting.compared(1, True)
        assert not resting.is_due(1, SHORT_S)


@pytest.mark.parametrize(("policy", "least", "most"), [(Ahead(), 10, 40), (FixedLength(1), 100, 200)])
def test_a_stream_whose_drafts_are_always_wrong_rests_unless_its_verifier_waits_for_what_it_says(policy, least, most):
    async def work():
        stream = Stream(Watched(), policy, max_tokens=140)
        made = 0
        for number in range(120):
            stream.drafter.schedule.verdict(number * SHORT_S, is_bare=False, is_overtaken=False)
            await stream.drafter.step()
            made += not stream.drafter.is_paused
            stream.settle([(stream.main[0] + 1) % VOCABULARY if stream.main else 0])
        return made

    assert least <= virtual_time.run(work()) <= most
