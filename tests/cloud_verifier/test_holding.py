"""Drafts are withheld where that makes more tokens a second, which is found by trying."""

import itertools

import pytest

from cloud_verifier.holding import (
    FEWEST_BETWEEN,
    FEWEST_COMPARED,
    FEWEST_SESSIONS,
    KEPT,
    LONGEST,
    LOSS,
    MANY_TOKENS,
    SETTLING,
    SHORTEST,
    TRIAL,
    Holding,
)
from speculation.protocol.messages import Verdict
from tests.cloud_verifier.sessions import opened
from tests.cloud_verifier.virtual import follow, running, virtually

SESSIONS = 16
WAIT, COMPARED = SHORTEST // SESSIONS, TRIAL // SESSIONS
WHOLE = 2 * (SETTLING + COMPARED)
"""Passes of a trial that is won: of the new way, and of the old one again."""


def made(sessions, tokens):
    """The tokens of each session, which together make so many."""
    return [tokens // sessions + (number < tokens % sessions) for number in range(sessions)]


def passes(holding, count, with_drafts, without, sessions=SESSIONS):
    """So many passes; each way makes its tokens a session in its seconds. Tells how many were without drafts."""
    num_held = 0
    for _ in range(count):
        tokens, seconds = without if holding.is_on else with_drafts
        num_held += holding.is_on
        holding.passed(made(sessions, round(tokens * sessions)), seconds)
    return num_held


def test_drafts_that_cost_more_than_they_bring_are_withheld():
    holding = Holding()
    passes(holding, WAIT + WHOLE, with_drafts=(1.25, 0.018), without=(1, 0.012))
    assert holding.is_on
    # And tried again now and then, ever less often.
    assert passes(holding, 2000, (1.25, 0.018), (1, 0.012)) > 1880


def test_a_way_that_was_seen_to_be_worse_is_not_tried_again_soon():
    holding = Holding()
    passes(holding, WAIT + WHOLE, with_drafts=(1.25, 0.018), without=(1, 0.012))
    assert passes(holding, KEPT * WAIT, (1.25, 0.018), (1, 0.012)) == KEPT * WAIT
    assert not holding.is_on


def test_drafts_that_bring_more_than_they_cost_are_not():
    holding = Holding()
    assert passes(holding, 2000, with_drafts=(1.5, 0.015), without=(1, 0.012)) < 120
    assert not holding.is_on


def test_a_gain_that_may_be_chance_changes_nothing():
    holding = Holding()
    assert passes(holding, 1000, with_drafts=(1.25, 0.0150), without=(1, 0.0118)) < 100
    assert not holding.is_on


def test_each_trial_in_vain_doubles_the_time_to_the_next():
    holding, seen = Holding(), []
    for _ in range(20_000):
        passes(holding, 1, (1.5, 0.015), (1, 0.0105))
        seen.append(holding.is_on)
    lengths = [(is_on, len(list(group))) for is_on, group in itertools.groupby(seen)]
    waits = [length for is_on, length in lengths if not is_on]
    assert {length for is_on, length in lengths if is_on} == {SETTLING + COMPARED}
    assert [round(wait / WAIT) for wait in waits[:7]] == [1, 2, 4, 8, 16, 32, 32]
    assert max(waits) <= LONGEST * WAIT


def test_where_drafts_bring_many_tokens_nothing_is_tried():
    assert not passes(Holding(), 2000, with_drafts=(MANY_TOKENS, 1.0), without=(1, 0.001))


def test_beside_few_sessions_nothing_is_tried_and_drafts_come_back():
    holding = Holding()
    assert not passes(holding, 2000, (1.25, 1.0), (1, 0.001), sessions=FEWEST_SESSIONS - 1)
    passes(holding, 2 * WAIT + WHOLE, (1.25, 0.018), (1, 0.012))
    assert holding.is_on
    passes(holding, 1, (1.25, 0.018), (1, 0.012), sessions=FEWEST_SESSIONS - 1)
    assert not holding.is_on


def test_drafts_come_back_to_few_sessions_of_which_each_pass_follows_a_rest():
    """As where verdicts leave on a tick, or a tenant is held to a rate: no two passes follow each other at once."""
    holding = Holding()
    passes(holding, WAIT + WHOLE, with_drafts=(1.25, 0.018), without=(1, 0.012))
    assert holding.is_on
    holding.passed(made(SESSIONS, SESSIONS), None)
    assert holding.is_on
    holding.passed([1], None)
    assert not holding.is_on


def test_another_load_is_tried_anew_and_little_more_is_not():
    holding = Holding()
    passes(holding, 5000, (1.5, 0.015), (1, 0.012))
    assert not passes(holding, 200, (1.25, 0.018), (1, 0.012), sessions=SESSIONS + 4)
    passes(
        holding,
        WAIT // 2 + 2 * (SETTLING + max(COMPARED // 2, FEWEST_COMPARED)),
        (1.25, 0.018),
        (1, 0.012),
        sessions=2 * SESSIONS,
    )
    assert holding.is_on


@pytest.mark.parametrize("sessions", [FEWEST_SESSIONS, 32, 64, 1000])
def test_many_sessions_find_it_out_in_fewer_passes(sessions):
    """Their passes are long, and what is waited for is a time."""
    holding, between = Holding(), max(SHORTEST // sessions, FEWEST_BETWEEN)
    assert not passes(holding, between, (1.25, 0.018), (1, 0.012), sessions)
    assert holding.is_on
    compared = max(TRIAL // sessions, FEWEST_COMPARED)
    passes(holding, SETTLING + compared - 1, (1.25, 0.018), (1.25, 0.018), sessions)
    assert holding.is_on
    passes(holding, 1, (1.25, 0.018), (1.25, 0.018), sessions)
    assert not holding.is_on


def test_what_is_on_its_way_after_a_change_is_not_compared():
    holding = Holding()
    for _ in range(WAIT):
        holding.passed(made(SESSIONS, 20), 0.018)
    assert holding.is_on
    for tokens, seconds in ((15, 0.012), (20, 0.018)):
        for _ in range(SETTLING):
            holding.passed([1] * SESSIONS, 9.0)
        for _ in range(COMPARED):
            holding.passed(made(SESSIONS, tokens), seconds)
    assert holding.is_on


def test_a_machine_that_is_quicker_from_a_trial_on_is_no_gain():
    """Both ways make as much, and twice as much from the trial on."""
    holding = Holding()
    passes(holding, WAIT, with_drafts=(1.25, 0.03), without=(1, 0.024))
    assert holding.is_on
    passes(holding, SETTLING + COMPARED, with_drafts=(1.25, 0.03), without=(1, 0.012))
    assert not holding.is_on
    passes(holding, SETTLING + COMPARED, with_drafts=(1.25, 0.015), without=(1, 0.012))
    assert not holding.is_on
    assert passes(holding, WAIT, with_drafts=(1.25, 0.015), without=(1, 0.012)) == 0


@pytest.mark.parametrize("is_allowed", [True, False])
def test_passes_behind_a_rest_tell_nothing_and_who_may_not_tries_nothing(is_allowed):
    holding = Holding(is_allowed)
    for _ in range(500):
        holding.passed(made(SESSIONS, 20), None if is_allowed else 0.018)
        assert not holding.is_on


def test_only_the_latest_passes_are_compared():
    holding = Holding()
    passes(holding, WAIT - COMPARED, with_drafts=(1.25, 0.1), without=(1, 0.1))
    passes(holding, COMPARED + SETTLING + COMPARED, with_drafts=(1.25, 0.012), without=(1, 0.012))
    assert not holding.is_on


def test_passes_in_which_prompts_are_read_tell_nothing():
    """They make few tokens, and which way is quicker is not in them."""
    holding, reading = Holding(), [0] * 2 + [1] * (SESSIONS - 2)
    for _ in range(2 * WAIT):
        holding.passed(reading, 0.018)
    assert not holding.is_on
    passes(holding, WAIT, with_drafts=(1.5, 0.015), without=(1, 0.012))
    for tokens, seconds in ((16, 0.012), (24, 0.015)):
        for _ in range(SETTLING + COMPARED):
            holding.passed(reading, 0.001 if holding.is_on else 9.0)
            holding.passed(made(SESSIONS, tokens), seconds)
    assert not holding.is_on


@pytest.mark.parametrize(("share", "num_passes"), [(LOSS - 0.01, COMPARED // 2), (LOSS + 0.01, COMPARED)])
def test_a_trial_that_loses_clearly_ends_early(share, num_passes):
    holding = Holding()
    passes(holding, WAIT, with_drafts=(1.25, 0.01), without=(1, 0.01))
    held = passes(holding, SETTLING + COMPARED, with_drafts=(1.25, 0.01), without=(1.25, 0.01 / share))
    assert held == SETTLING + num_passes
    assert not holding.is_on


def test_a_few_long_passes_decide_nothing():
    holding = Holding()
    for number in itertools.count():
        way = 0.012 if holding.is_on else 0.018
        holding.passed(made(SESSIONS, 16 if holding.is_on else 20), 2.0 if holding.is_on and number % 8 == 0 else way)
        if number == WAIT + WHOLE:
            break
    assert holding.is_on


@pytest.mark.parametrize(("is_on", "patience", "withholds"), [(True, 0, True), (False, 0, False), (True, 10, False)])
@virtually
async def test_devices_withhold_drafts_while_these_are_not_worth_their_messages_and_nobody_waits_for_them(
    is_on, patience, withholds
):
    async with running(patience=patience) as (_, verifier, connector):
        verifier.rounds._holding.is_on = is_on
        link = await opened(connector, max_tokens=4)
        verdicts = [received.message for received in await follow(link) if isinstance(received.message, Verdict)]
    assert len(verdicts) == 4
    assert {verdict.withholds for verdict in verdicts} == {withholds}


@virtually
async def test_who_waits_for_its_prompt_to_be_read_makes_no_token_either():
    """Three prompts of 40 tokens and 24 rows a pass: some have no row of it, and all count."""
    async with running(max_rows=24) as (_, verifier, connector):
        ready, told, plain, passed = [], [], verifier.rounds._ready, verifier.rounds._holding.passed
        verifier.rounds._ready = lambda now_s: ready.append(found := plain(now_s)) or found
        verifier.rounds._holding.passed = lambda made, since_s: told.append(made) or passed(made, since_s)
        links = [await opened(connector, session_id=f"s{n}", prefix=(n,) * 40, generation_start=40) for n in (1, 2, 3)]
        for link in links:
            await follow(link)
    assert [len(made) for made in told] == [len(live) for live, _ in ready if live]
    assert max(len(made) for made in told) == 3
