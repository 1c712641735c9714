"""A device whose drafts make its tokens come slower stops drafting where passes are short, and finds out when that changes."""

from __future__ import annotations

import itertools
import random

import pytest

from device_agent.drafting.gathering import Schedule
from device_agent.drafting.linear import Ahead, FixedLength
from device_agent.drafting.resting import LONGEST_SPELL, SETTLING, SHORTEST_SPELL, TRIAL, Rest, Resting
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import VOCABULARY, Watched
from tests.device_agent.drafting.streams import Stream

SHORT_S, LONG_S = 0.002, 0.041


def watched(
    resting: Resting, gain: float, num_verdicts: int, pass_s: float = SHORT_S, noise: float = 0.2, per_verdict: int = 2
) -> list[bool]:
    """Verdicts, whose drafting spells bring so many times the tokens a second of its rests; at which of them it rested.

    A rest brings a token a verdict, drafts bring ``per_verdict``.
    """
    rng = random.Random(1)
    was_resting = []
    for _ in range(num_verdicts):
        was_resting.append(resting.is_resting)
        num_tokens, per_token_s = (1, SHORT_S) if resting.is_resting else (per_verdict, SHORT_S / gain)
        resting.verdict(num_tokens, num_tokens * per_token_s * rng.uniform(1 - noise, 1 + noise), pass_s)
    return was_resting


@pytest.mark.parametrize(("gain", "share"), [(0.5, 1), (0.9, 1), (1.1, 0), (2.0, 0)])
def test_it_rests_nearly_always_where_drafts_slow_the_answer_down_and_nearly_never_where_they_speed_it_up(gain, share):
    rested = watched(Resting(), gain, 5000)
    assert sum(rested) / len(rested) == pytest.approx(share, abs=0.08)


def spells(resting: Resting, gain: float, num_verdicts: int) -> list[int]:
    """How long each lasted that is over, drafting and resting in turns."""
    rested = watched(resting, gain, num_verdicts, noise=0)
    ends = [number for number in range(1, len(rested)) if rested[number] != rested[number - 1]]
    return [end - begin for begin, end in itertools.pairwise([0, *ends])]


@pytest.mark.parametrize(("gain", "first"), [(0.5, [TRIAL, TRIAL + SHORTEST_SPELL]), (2.0, [TRIAL, TRIAL, SHORTEST_SPELL])])
def test_a_first_decision_takes_two_trials_and_the_other_kind_is_tried_ever_more_rarely(gain, first):
    later = [long for times in (2, 4, 8) for long in (TRIAL, times * SHORTEST_SPELL)]
    assert spells(Resting(), gain, 8_000)[: len(first) + 8] == [*first, *later, TRIAL, LONGEST_SPELL]


def test_drafts_that_hardly_ever_save_a_pass_are_tried_as_rarely_as_can_be_at_once():
    rested = watched(Resting(), 0.9, 3 * LONGEST_SPELL, noise=0, per_verdict=1)
    assert not any(rested[:TRIAL])
    starts = [number for number in range(1, len(rested)) if rested[number - 1] and not rested[number]]
    assert starts == [2 * TRIAL + LONGEST_SPELL, 3 * TRIAL + 2 * LONGEST_SPELL]


@pytest.mark.parametrize(("before", "after"), [(0.5, 2.0), (2.0, 0.5)])
def test_another_kind_of_text_turns_it_round_within_two_long_spells(before, after):
    resting = Resting()
    watched(resting, before, 20_000)
    rested = watched(resting, after, 4 * LONGEST_SPELL)[2 * LONGEST_SPELL + 2 * TRIAL :]
    assert sum(rested) / len(rested) == pytest.approx(1 if after < 1 else 0, abs=0.15)


def test_one_verdict_that_something_else_held_up_decides_nothing():
    resting = Resting()
    watched(resting, 1.5, TRIAL - 1, noise=0)
    resting.verdict(1, 100 * SHORT_S, SHORT_S)
    assert not any(watched(resting, 1.5, TRIAL + SHORTEST_SPELL)[TRIAL:])


def test_the_first_verdicts_of_a_spell_tell_of_what_was_under_way_and_decide_nothing():
    resting = Resting()
    for _ in range(SETTLING):
        resting.verdict(50, SHORT_S, SHORT_S)
    watched(resting, 0.5, 2 * TRIAL - SETTLING, noise=0)
    assert resting.is_resting


@pytest.mark.parametrize(("interval_s", "rests"), [(1.5 * SHORT_S, False), (3 * SHORT_S, True)])
def test_what_counts_is_how_long_a_streams_verdict_came_after_its_last_one(interval_s, rests):
    """Drafts bring two tokens a verdict, a rest one: they are worth up to twice the time."""
    resting, now_s = Resting(), 0.0
    rest = Rest(resting, is_allowed=True)
    for _ in range(2 * TRIAL + 1):
        rest.came(1 if resting.is_resting else 2, now_s, SHORT_S)
        now_s += SHORT_S if resting.is_resting else interval_s
    assert resting.is_resting is rests


@pytest.mark.parametrize("pass_s", [LONG_S, None, 0.0])
def test_it_never_rests_where_a_pass_is_long_or_not_known(pass_s):
    resting = Resting()
    assert not any(watched(resting, 0.5, 1000, pass_s))
    assert not resting.is_due(5, has_drafted=True, pass_s=pass_s)


def test_a_stream_beside_long_passes_does_not_rest_whatever_others_do():
    resting = Resting()
    watched(resting, 0.5, 1000)
    assert resting.is_due(5, has_drafted=False, pass_s=SHORT_S)
    assert not resting.is_due(5, has_drafted=False, pass_s=LONG_S)


@pytest.mark.parametrize("pass_s", [None, 0.0])
def test_while_a_stream_does_not_know_its_passes_it_rests_as_the_last_one_did(pass_s):
    """Its first verdicts: with one there is nothing between two, and of the next some come together."""
    resting = Resting()
    watched(resting, 0.5, 1000)
    assert resting.is_due(1, has_drafted=False, pass_s=pass_s)
    resting.verdict(1, 0.0, pass_s)
    assert resting.is_due(2, has_drafted=False, pass_s=pass_s)
    resting.verdict(1, LONG_S, LONG_S)
    assert not resting.is_due(2, has_drafted=False, pass_s=pass_s)


def test_before_the_first_verdict_one_word_is_drafted_in_any_case():
    resting = Resting()
    watched(resting, 0.5, 1000)
    assert not resting.is_due(0, has_drafted=False, pass_s=None)
    assert resting.is_due(0, has_drafted=True, pass_s=None)


def test_before_the_first_verdict_nothing_is_known_of_passes_but_the_last_one():
    assert not Resting().is_due(0, has_drafted=True, pass_s=None)
    resting = Resting()
    watched(resting, 0.5, 1000)
    resting.verdict(1, LONG_S, LONG_S)
    assert not resting.is_due(0, has_drafted=True, pass_s=None)


def test_a_stream_that_begins_at_rest_shows_its_first_word_and_waits():
    async def work():
        resting = Resting()
        watched(resting, 0.5, 1000)
        stream = Stream(Watched(), Ahead(), resting=resting)
        for _ in range(3):
            await stream.drafter.step()
        assert len(stream.main) == 1
        assert stream.drafter.is_paused

    virtual_time.run(work())


@pytest.mark.parametrize(("policy", "least", "most"), [(Ahead(), 40, 130), (FixedLength(1), 300, 400)])
def test_a_stream_whose_drafts_slow_it_down_rests_unless_its_verifier_waits_for_what_it_says(policy, least, most):
    async def work():
        stream = Stream(Watched(context_length=400), policy, max_tokens=380, context_length=400)
        made, now_s = 0, 0.0
        for number in range(380):
            stream.drafter.schedule.verdict(now_s, is_bare=False, is_overtaken=False)
            stream.drafter.came(now_s, 1)
            await stream.drafter.step()
            now_s += SHORT_S
            if not stream.drafter.is_paused:
                made += 1
                now_s += SHORT_S
                stream.drafter.sent(now_s, number)
            stream.settle([(stream.main[0] + 1) % VOCABULARY if stream.main else 0])
        return made

    assert least <= virtual_time.run(work()) <= most


def test_only_a_stream_with_a_verifier_that_does_not_wait_for_drafts_rests_with_others():
    async def work():
        resting = Resting()
        watched(resting, 0.5, 1000)
        streams = [Stream(Watched(), policy, resting=resting) for policy in (FixedLength(1), Ahead())]
        for stream in streams:
            stream.drafter.schedule.verdict(0, is_bare=False, is_overtaken=False)
            stream.drafter.schedule.verdict(SHORT_S, is_bare=False, is_overtaken=False)
            stream.settle([0])
            await stream.drafter.step()
        assert await streams[1].drafter.step() == []
        assert len(await streams[1].drafter.step(tail_room=3)) == 1  # its verifier is lost: it writes alone
        return [stream.drafter.is_resting for stream in streams]

    assert virtual_time.run(work()) == [False, True]


def test_a_verifier_that_seems_idle_is_drafted_for_and_its_verdicts_count_all_the_same(monkeypatch):
    monkeypatch.setattr(Schedule, "is_waited_for", True)

    async def work():
        resting = Resting()
        watched(resting, 0.5, 1000)
        stream = Stream(Watched(), Ahead(), resting=resting)
        counted = []
        monkeypatch.setattr(resting, "verdict", lambda num_tokens, *_: counted.append(num_tokens))
        for number in range(4):
            stream.drafter.schedule.verdict(number * SHORT_S, is_bare=False, is_overtaken=False)
            stream.drafter.came(number * SHORT_S, 1)
            stream.settle([0])
            await stream.drafter.step()
            assert not stream.drafter.is_paused
        assert counted == [1, 1, 1]

    virtual_time.run(work())
