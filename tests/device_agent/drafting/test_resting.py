"""A device whose drafts are hardly ever right stops drafting where passes are short, and learns when they are right again."""

from __future__ import annotations

import pytest

from device_agent.drafting.linear import Ahead, FixedLength
from device_agent.drafting.resting import PROBE_LENGTH, PROBE_PERIOD, Resting
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import VOCABULARY, Watched
from tests.device_agent.drafting.streams import Stream

SHORT_S, LONG_S = 0.002, 0.041


def after(num_messages: int, num_saved: int = 0) -> Resting:
    """So many messages, each of which saved as many passes."""
    resting = Resting()
    for _ in range(num_messages):
        resting.sent()
        resting.saved(num_saved)
    return resting


def test_it_is_the_mean_saved_by_a_message_and_weighs_the_newest_most():
    assert after(500, 3).saved_passes == pytest.approx(3)
    assert after(16).saved_passes == pytest.approx((15 / 16) ** 16)


def test_messages_that_save_nothing_are_sent_at_few_verdicts_where_a_pass_is_short():
    due = [after(100).is_due(number, SHORT_S) for number in range(2 * PROBE_PERIOD)]
    assert due.count(False) == 2 * PROBE_LENGTH
    assert not any(due[PROBE_PERIOD : PROBE_PERIOD + PROBE_LENGTH])


@pytest.mark.parametrize(("messages", "pass_s"), [(0, SHORT_S), (500, LONG_S), (100, None), (100, 0.0)])
def test_it_drafts_always_before_anything_was_learned_and_where_a_pass_is_worth_more_or_is_not_known(messages, pass_s):
    assert not any(after(messages).is_due(number, pass_s) for number in range(PROBE_PERIOD))


def test_drafts_that_save_passes_again_end_it_within_a_probe():
    resting = after(500)
    messages = 0
    while resting.is_due(PROBE_LENGTH, SHORT_S):
        resting.sent()
        resting.saved(1)
        messages += 1
    assert messages <= PROBE_LENGTH / 4


def test_messages_of_which_every_fifth_saves_a_pass_are_worth_it():
    resting = Resting()
    for number in range(500):
        resting.sent()
        resting.saved(number % 5 == 0)
        assert not resting.is_due(PROBE_LENGTH, SHORT_S)


@pytest.mark.parametrize(("policy", "least", "most"), [(Ahead(), 10, 40), (FixedLength(1), 100, 200)])
def test_a_stream_whose_drafts_are_always_wrong_rests_unless_its_verifier_waits_for_what_it_says(policy, least, most):
    async def work():
        stream = Stream(Watched(), policy, max_tokens=140)
        made = 0
        for number in range(120):
            stream.drafter.schedule.verdict(number * SHORT_S, is_bare=False, is_overtaken=False)
            await stream.drafter.step()
            if not stream.drafter.is_paused:
                made += 1
                stream.drafter.sent(number * SHORT_S, number)
            stream.settle([(stream.main[0] + 1) % VOCABULARY if stream.main else 0])
        return made

    assert least <= virtual_time.run(work()) <= most
