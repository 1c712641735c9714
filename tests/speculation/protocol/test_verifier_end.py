"""How a verifier's session ends, and what it refuses then."""

from __future__ import annotations

import pytest

from speculation.errors import MalformedMessageError
from speculation.protocol.messages import (
    Cancel,
    FinishReason,
    Verdict,
)
from speculation.protocol.verifier import Plan
from tests.speculation.protocol.verifier_scene import ACCEPT, DECODED, END, branch, send, session


def test_a_chosen_end_token_finishes_the_session():
    verifier = session()
    verdict, finished = verifier.commit(verifier.plan(8), [END])
    assert verdict == Verdict(2, 0, 0, END, DECODED)
    assert finished.reason is FinishReason.STOP
    assert verifier.plan(8).nodes == ()


def test_the_plan_stops_before_an_end_token():
    verifier = session()
    send(verifier, branch(1, 5, END, 6))
    assert verifier.plan(8).token_ids == (5,)
    verdict, finished = verifier.commit(verifier.plan(8), [5, END])
    assert verdict == Verdict(2, 1, 1, END, ACCEPT)
    assert finished.usage.accepted == 2
    assert finished.usage.discarded == 1


def test_an_end_token_cuts_a_run():
    verifier = session()
    send(verifier, branch(1, 5, END, 6))
    verdict, finished = verifier.commit(Plan((1, 2, 3), (5, END, 6), 2), [5, END, 6, 7])
    assert verdict == Verdict(2, 2, 2, None, ACCEPT)
    assert finished.reason is FinishReason.STOP
    assert list(verifier.final) == [1, 2, 5, END]


def test_the_plan_leaves_the_last_position_to_the_choice():
    verifier = session(max_tokens=2)
    send(verifier, branch(1, 5, 6, 7))
    assert verifier.plan(8).token_ids == (5,)
    verdict, finished = verifier.commit(verifier.plan(8), [5, 6])
    assert verdict == Verdict(2, 1, 1, 6, ACCEPT)
    assert finished.reason is FinishReason.LENGTH


def test_the_limit_cuts_a_run():
    verifier = session(max_tokens=2)
    send(verifier, branch(1, 5, 6, 7))
    verdict, finished = verifier.commit(Plan((1, 2, 3), (5, 6, 7), 2), [5, 6, 7, 8])
    assert verdict == Verdict(2, 2, 2, None, ACCEPT)
    assert finished.usage.completion_tokens == 2


def test_an_end_token_at_the_limit_is_a_stop():
    verifier = session(max_tokens=1)
    assert verifier.commit(verifier.plan(8), [END])[1].reason is FinishReason.STOP


@pytest.mark.parametrize(("prefix", "reason"), [((1, 2, 5, END), FinishReason.STOP), ((1, 2, 5, 6, 7), FinishReason.LENGTH)])
def test_a_complete_prefix_is_finished_at_once(prefix, reason):
    verifier = session(prefix, max_tokens=3)
    assert verifier.finished.reason is reason
    assert verifier.finished.usage.completion_tokens == len(prefix) - 2


def test_an_end_token_in_the_prompt_ends_nothing():
    assert session((1, END)).finished is None


def test_a_prefix_beyond_the_limit_is_malformed():
    with pytest.raises(MalformedMessageError, match="the limit is 3"):
        session((1, 2, 5, 6), max_tokens=1)


def test_cancel_ends_the_session_and_frees_its_nodes():
    verifier = session()
    send(verifier, branch(1, 5))
    verifier.receive(Cancel())
    assert verifier.finished.reason is FinishReason.CANCELLED
    assert verifier.finished.usage.discarded == 1
    assert verifier.live_nodes == 0


def test_messages_behind_the_end_are_ignored():
    verifier = session()
    verifier.finish(FinishReason.SHUTDOWN)
    send(verifier, branch(7, 5), known=50)
    verifier.receive(Cancel())
    assert verifier.finished.reason is FinishReason.SHUTDOWN


def test_the_first_reason_stands():
    verifier = session()
    finished = verifier.finish(FinishReason.DEADLINE)
    assert verifier.finish(FinishReason.SHUTDOWN) is finished


def test_a_finished_session_commits_nothing():
    verifier = session()
    plan = verifier.plan(8)
    verifier.receive(Cancel())
    with pytest.raises(ValueError, match="finished"):
        verifier.commit(plan, [5])


def test_a_plan_is_committed_once():
    verifier = session()
    plan = verifier.plan(8)
    verifier.commit(plan, [5])
    with pytest.raises(ValueError, match="made for 2"):
        verifier.commit(plan, [5])


@pytest.mark.parametrize("choices", [[5], [5, 6, 7]])
def test_every_row_wants_its_choice(choices):
    verifier = session()
    send(verifier, branch(1, 5))
    with pytest.raises(ValueError, match="one choice more"):
        verifier.commit(verifier.plan(8), choices)


def test_drafts_end_where_the_likeliest_chain_holds_an_end_token_anywhere():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    send(verifier, branch(3, END, rank=1))
    assert not verifier.drafts_end
    send(verifier, branch(4, END, parent=2))
    assert verifier.drafts_end


def test_completion_tokens_count_from_where_generation_began():
    assert session((1, 2, 5, 6)).usage.completion_tokens == 2
    assert session((1, 2, 5, 6)).generation_start == 2
