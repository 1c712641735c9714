"""A verifier's session: what it plans, what a pass makes final, and which drafts it takes."""

from __future__ import annotations

import pytest

from speculation.errors import CreditExceededError, MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Open,
    PairIdentity,
    Verdict,
)
from speculation.protocol.verifier import Plan, VerifierSession
from tests.speculation.protocol.verifier_scene import ACCEPT, CORRECT, DECODED, END, branch, commit, send, session


def test_what_was_asked_for_is_told_of_the_tokens_that_were_cut_to_and_no_others():
    message = Open("s", 1, PairIdentity("t", "p", "f"), (1, 2), 2, SamplingParameters(), 9, end_token_ids=(END,), logprobs=0)
    verifier, rows = VerifierSession(message, 40), [TokenLogprobs(-float(n)) for n in range(4)]
    send(verifier, branch(1, 5, 6, 7))
    verdict, _ = verifier.commit(verifier.plan(8), [5, 9, 7, 8], logprobs=rows)
    assert (verdict.count, verdict.choice, verdict.logprobs) == (1, 9, tuple(rows[:2]))
    with pytest.raises(ValueError, match="want a log probability each"):
        verifier.commit(verifier.plan(8), [5])
    verdict, finished = verifier.commit(verifier.plan(8), [END], logprobs=rows)
    assert (verdict.logprobs, finished is None) == ((rows[0],), False)


def test_without_drafts_a_pass_decodes_one_token():
    verifier = session()
    assert verifier.plan(8) == Plan((), (), 2)
    assert commit(verifier, 5) == Verdict(2, 0, 0, 5, DECODED)
    assert list(verifier.final) == [1, 2, 5]


def test_the_longest_agreeing_run_is_committed_with_the_choice_behind_it():
    verifier = session()
    send(verifier, branch(1, 5, 6, 7))
    assert verifier.plan(8) == Plan((1, 2, 3), (5, 6, 7), 2)
    assert commit(verifier, 5, 6, 8) == Verdict(2, 2, 2, 8, CORRECT)
    assert list(verifier.final) == [1, 2, 5, 6, 8]


def test_a_wholly_accepted_chain_earns_a_bonus():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    assert commit(verifier, 5, 6, 8) == Verdict(2, 2, 2, 8, ACCEPT)
    assert (verifier.usage.accepted, verifier.usage.bonus, verifier.usage.corrections) == (2, 1, 0)


def test_a_choice_that_equals_a_draft_behind_the_plan_makes_it_final():
    verifier = session()
    send(verifier, branch(1, 5, 6, 7))
    assert commit(verifier, 5, 6, max_nodes=1) == Verdict(2, 1, 1, 6, ACCEPT)
    assert verifier.plan(8) == Plan((3,), (7,), 4)
    assert verifier.usage.accepted == 2


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_next_pass_goes_on_along_the_branch_that_holds_the_choice(rank):
    verifier = session()
    others = [node for place in (1, 2, 3) for node in branch(1 + 2 * place, 10 + place, 20 + place, parent=1, rank=place)]
    send(verifier, [*branch(1, 5, 6), *others])
    assert verifier.plan(8).token_ids == (5, 6)
    assert commit(verifier, 5, 10 + rank) == Verdict(2, 1, 1, 10 + rank, CORRECT)
    assert verifier.plan(8) == Plan((2 + 2 * rank,), (20 + rank,), 4)


def test_the_plan_follows_the_lowest_rank():
    verifier = session()
    send(verifier, [*branch(1, 5, rank=1), *branch(2, 6, rank=0)])
    assert verifier.plan(8).nodes == (2,)


def test_a_child_of_the_dead_is_dead():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    commit(verifier, 9)
    send(verifier, branch(3, 7, 8, parent=2))
    assert (verifier.plan(8).nodes, verifier.live_nodes) == ((), 0)


def test_a_child_of_a_final_node_is_pending_at_the_end_of_the_log():
    verifier = session()
    send(verifier, branch(1, 5))
    commit(verifier, 5, 6)
    send(verifier, branch(2, 6, 7, parent=1))
    assert verifier.plan(8) == Plan((3,), (7,), 4)
    assert verifier.usage.late == 1


def test_a_child_of_a_final_node_that_no_longer_matches_is_dead():
    verifier = session()
    send(verifier, branch(1, 5))
    commit(verifier, 5, 6)
    send(verifier, branch(2, 8, 7, parent=1))
    assert verifier.plan(8).nodes == ()
    assert verifier.usage.discarded == 2


def test_a_child_of_the_last_final_node_hangs_off_the_log():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    commit(verifier, 5, 6, max_nodes=1)
    send(verifier, branch(3, 7, parent=2))
    assert verifier.plan(8) == Plan((3,), (7,), 4)


def test_a_root_at_a_final_position_is_compared_and_not_run():
    verifier = session()
    commit(verifier, 5)
    send(verifier, branch(1, 5, 6))
    send(verifier, branch(3, 4, 6))
    assert verifier.plan(8) == Plan((2,), (6,), 3)
    assert (verifier.usage.late, verifier.usage.discarded) == (1, 2)


def test_the_same_token_behind_the_same_parent_is_one_node_under_two_numbers():
    verifier = session()
    send(verifier, [*branch(1, 5, 6), *branch(3, 5, rank=1), *branch(4, 7, parent=3, rank=1)])
    assert verifier.plan(8).nodes == (1, 2)
    commit(verifier, 5, 7)
    send(verifier, branch(5, 8, parent=4))
    assert verifier.plan(8).nodes == (5,)


def test_an_alias_dies_and_is_forgotten_with_its_node():
    verifier = session()
    send(verifier, [*branch(1, 5), *branch(2, 5), *branch(3, 6), *branch(4, 6)])
    commit(verifier, 5, 7)
    assert verifier.live_nodes == 2
    send(verifier, [], known=4)
    assert verifier.live_nodes == 0


def test_below_known_nodes_are_forgotten_and_their_children_dead():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    commit(verifier, 5, 6, 7)
    send(verifier, branch(3, 7, 8, parent=2), known=5)
    assert (verifier.live_nodes, verifier.plan(8).nodes) == (0, ())
    send(verifier, branch(5, 6, root=3), known=5)
    assert verifier.usage.late == 0


def test_known_never_goes_back():
    verifier = session()
    send(verifier, branch(1, 5))
    commit(verifier, 5, 6)
    send(verifier, [], known=4)
    send(verifier, branch(2, 6, parent=1), known=2)
    assert verifier.live_nodes == 0


def test_a_late_draft_below_what_the_device_knew_before_is_not_remembered_whatever_it_says_now():
    verifier = session()
    commit(verifier, 5)
    send(verifier, [], known=3)
    send(verifier, branch(1, 5), known=0)
    assert (verifier.live_nodes, verifier.usage.late) == (0, 0)


def test_late_drafts_of_one_position_are_all_forgotten_once_known_has_passed_it():
    verifier = session()
    commit(verifier, 5)
    send(verifier, [*branch(1, 5), *branch(2, 5)])
    assert (verifier.live_nodes, verifier.usage.late) == (2, 2)
    send(verifier, [], known=3)
    assert verifier.live_nodes == 0


def test_a_final_node_is_remembered_until_known_has_passed_it():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    commit(verifier, 5, 6, 7)
    send(verifier, [], known=3)
    assert verifier.live_nodes == 1
    send(verifier, [*branch(3, 7, 8, parent=2)], known=3)
    assert verifier.plan(8).token_ids == (8,)


def test_repeated_numbers_say_nothing_new():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    send(verifier, branch(1, 9, 9, 9)[:2])
    assert verifier.plan(8).token_ids == (5, 6)
    send(verifier, branch(2, 9, 7, parent=1))
    assert verifier.plan(8).token_ids == (5, 6, 7)
    assert verifier.usage.proposed == 3


def test_a_gap_in_the_numbers_is_malformed():
    verifier = session()
    with pytest.raises(MalformedMessageError, match="node 1 must come next, not 2"):
        send(verifier, branch(2, 5))


def test_a_root_beyond_the_log_is_malformed():
    with pytest.raises(MalformedMessageError, match="beyond the final log"):
        send(session(), branch(1, 5, root=3))


def test_a_known_beyond_the_log_is_malformed():
    with pytest.raises(MalformedMessageError, match="known is 3"):
        send(session(), [], known=3)


def test_more_live_nodes_than_the_credit_are_refused():
    verifier = session(credit=40)
    send(verifier, branch(1, *range(40)))
    with pytest.raises(CreditExceededError, match="credit of 40"):
        send(verifier, branch(41, 7, parent=40))


def test_every_verifier_bears_the_initial_credit():
    verifier = session(credit=1)
    send(verifier, branch(1, *range(INITIAL_CREDIT)))
    with pytest.raises(CreditExceededError):
        send(verifier, branch(INITIAL_CREDIT + 1, 7, parent=1))


def test_settled_nodes_give_their_credit_back_once_the_device_knows():
    verifier = session(credit=32)
    send(verifier, branch(1, *range(32)))
    commit(verifier, *range(31), 7, max_nodes=31)
    send(verifier, branch(33, *range(32), root=34), known=34)
    assert verifier.live_nodes == 32


def test_dead_nodes_cost_no_credit():
    verifier = session()
    commit(verifier, 5)
    for first in range(1, 400, 40):
        send(verifier, branch(first, *range(6, 46)))
    assert verifier.live_nodes == 0


def test_numbers_of_final_nodes_are_bounded_by_the_credit():
    """A device that never moves ``known`` must not make the verifier remember without end."""
    verifier = session(credit=40)
    commit(verifier, 5)
    for number in range(1, 41):
        send(verifier, branch(number, 5))
    with pytest.raises(CreditExceededError):
        send(verifier, branch(41, 5))


def test_drafts_that_arrive_during_a_pass_are_used_by_the_next():
    verifier = session()
    send(verifier, branch(1, 5))
    plan = verifier.plan(8)
    send(verifier, branch(2, 6, 7, parent=1))
    verifier.commit(plan, [5, 6])
    assert verifier.plan(8) == Plan((3,), (7,), 4)


def test_the_pass_flag_stands_until_the_next_verdict():
    verifier = session()
    send(verifier, [], passes=True)
    send(verifier, branch(1, 5))
    assert verifier.passed
    assert verifier.has_drafts
    commit(verifier, 5)
    assert not verifier.passed


def test_a_pass_flag_from_before_the_last_verdict_was_answered_by_that():
    verifier = session()
    commit(verifier, 5)
    send(verifier, [], known=2, passes=True)
    assert not verifier.passed
    send(verifier, [], known=3, passes=True)
    assert verifier.passed


def test_a_choice_that_equals_a_draft_which_was_not_run_accepts_it():
    verifier = session()
    send(verifier, branch(1, 5, 6))
    assert commit(verifier, 5, max_nodes=0) == Verdict(2, 0, 0, 5, ACCEPT)
    assert (verifier.usage.accepted, verifier.usage.bonus) == (1, 0)


def test_a_pass_that_several_verdicts_tell_of_is_counted_once():
    verifier = session()
    for passes in (1, 0, 0):
        verifier.commit(verifier.plan(0), [5], passes=passes)
    assert (verifier.usage.passes, verifier.usage.completion_tokens) == (1, 3)


def test_usage_counts_in_the_fields_words():
    verifier = session()
    send(verifier, branch(1, 5, 6, 7))
    plan = verifier.plan(8)
    verifier.commit(plan, [5, 8, 1, 1], near_ties=1, advice=7)
    usage = verifier.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.passes, usage.proposed) == (2, 2, 1, 3)
    assert (usage.accepted, usage.corrections, usage.discarded, usage.near_ties) == (1, 1, 2, 1)
