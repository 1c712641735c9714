from __future__ import annotations

import pytest

from speculation.errors import HandshakeError, MalformedMessageError, ProtocolError, VerdictGapError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Cancel,
    Draft,
    Finished,
    FinishReason,
    Node,
    Opened,
    PairIdentity,
    Usage,
    Verdict,
    VerdictKind,
)
from speculation.protocol.outbox import UNOPENED_ROOM
from speculation.protocol.update import Update

ACCEPT, CORRECT, DECODED = VerdictKind.ACCEPT, VerdictKind.REVOKE_AND_CORRECT, VerdictKind.DECODED
END = 99


def session(credit: int | None = 40, max_tokens: int = 100) -> DeviceSession:
    """A device with a prompt of two tokens; with a credit its stream is open."""
    device = DeviceSession("s", PairIdentity("t", "p", "f"), [1, 2], SamplingParameters(), max_tokens, [END])
    device.open()
    if credit is not None:
        device.receive(Opened("s", credit, "x"))
    return device


def draft(device: DeviceSession, *token_ids: int) -> list[int]:
    return [device.drafted(token_id) for token_id in token_ids]


def decoded(device: DeviceSession, token_id: int) -> Update:
    return device.receive(Verdict(len(device.final), 0, 0, token_id, DECODED))


def test_open_holds_all_that_a_verifier_needs():
    device = DeviceSession("s", PairIdentity("t", "p", "f"), [1, 2], SamplingParameters(seed=3), 9, [END], 5, 700)
    message = device.open()
    assert (message.session_id, message.attempt, message.prefix, message.generation_start) == ("s", 1, (1, 2), 2)
    assert (message.max_tokens, message.end_token_ids, message.priority, message.deadline_ms) == (9, (END,), 5, 700)
    assert (message.parameters.seed, message.fingerprint, message.limit) == (3, "", 11)


def asking(*promised: int | None) -> DeviceSession:
    """A device that wants log probabilities, with two tokens beside each, from a verifier that promises as many as said."""
    device = DeviceSession("s", PairIdentity("t", "p", "f"), [1, 2], SamplingParameters(), 9, [END], logprobs=2)
    assert device.open().logprobs == 2
    for count in promised:
        device.receive(Opened("s", 40, "x", logprobs=count))
    return device


def told(value: float, count: int = 2) -> TokenLogprobs:
    return TokenLogprobs(value, tuple((n, value) for n in range(count)))


def test_a_verifier_that_knows_no_log_probabilities_is_refused_by_name():
    for promised in (None, 1):
        with pytest.raises(HandshakeError, match="leave logprobs out"):
            asking(promised)


def test_log_probabilities_come_with_the_tokens_that_are_new():
    device = asking(2)
    draft(device, 5, 6)
    device.flush()
    first = device.receive(Verdict(2, 1, 1, 6, ACCEPT, logprobs=(told(-1), told(-2))))
    assert first.logprobs == (told(-1), told(-2))
    again = device.receive(Verdict(2, 0, 0, 5, DECODED, logprobs=(told(-1),)))
    overlap = device.receive(Verdict(3, 0, 0, 6, DECODED))
    assert (again.logprobs, overlap.logprobs) == ((), ())
    assert device.receive(Verdict(4, 0, 0, 7, DECODED, logprobs=(told(-3),))).logprobs == (told(-3),)
    # The run was final before, the choice was not.
    half = device.receive(Verdict(3, 2, 2, 8, ACCEPT, logprobs=(told(-2), told(-3), told(-4))))
    assert (half.tokens, half.logprobs) == ((8,), (told(-4),))


@pytest.mark.parametrize("logprobs", [(), (told(-1, 3),)])
def test_a_verdict_that_does_not_keep_the_promise_is_malformed(logprobs):
    device = asking(2)
    with pytest.raises(MalformedMessageError, match="log probabilities that Opened promised"):
        device.receive(Verdict(2, 0, 0, 5, DECODED, logprobs=logprobs))
    assert list(device.final) == [1, 2]


def test_log_probabilities_that_nobody_asked_for_are_passed_over():
    device = session()
    assert device.receive(Verdict(2, 0, 0, 5, DECODED, logprobs=(told(-1),))).logprobs == ()


def test_drafts_are_sent_once_and_chained():
    device = session()
    draft(device, 5, 6)
    assert device.flush() == Draft((Node(1, 0, 5, 2), Node(2, 1, 6)), 2)
    assert device.flush() is None
    draft(device, 7)
    assert device.flush() == Draft((Node(3, 2, 7),), 2)
    assert (device.path, device.unsent_nodes) == ((5, 6, 7), 0)


def test_the_pass_flag_may_travel_alone():
    assert session().flush(passes=True) == Draft((), 2, True)


def test_a_second_branch_hangs_where_it_is_told():
    device = session()
    first, _ = draft(device, 5, 6)
    device.drafted(7, 1, first)
    device.drafted(8, 1, 0)
    assert device.path == (5, 6)
    assert device.flush().nodes[2:] == (Node(3, 1, 7, 0, 1), Node(4, 0, 8, 2, 1))


def test_the_same_token_behind_the_same_parent_is_the_same_node():
    device = session()
    (first,) = draft(device, 5)
    assert device.drafted(5, 1, 0) == first
    assert device.live_nodes == 1


def test_a_better_rank_takes_the_main_branch_over():
    device = session()
    worse = device.drafted(5, 1)
    device.drafted(6, 0, worse)
    better = device.drafted(7, 0, 0)
    assert (device.path, device.path_handles) == ((7,), (better,))
    device.drafted(8, 0, worse)
    assert device.path == (7,)


def test_drafting_behind_a_lost_node_is_an_error():
    device = session()
    (first,) = draft(device, 5)
    decoded(device, 6)
    with pytest.raises(LookupError):
        device.drafted(7, 0, first)


def test_the_last_final_node_may_still_be_named_as_parent():
    device = session()
    (first,) = draft(device, 5)
    decoded(device, 5)
    device.drafted(7, 0, first)
    assert device.flush().nodes == (Node(1, 0, 7, 3),)


def test_a_run_and_its_choice_become_final():
    device = session()
    draft(device, 5, 6, 7)
    device.flush()
    update = device.receive(Verdict(2, 2, 2, 8, CORRECT))
    assert update == Update(2, (5, 6, 8), kept=False, kind=CORRECT)
    assert list(device.final) == [1, 2, 5, 6, 8]
    assert (device.path, device.live_nodes) == ((), 0)


def test_the_path_is_kept_where_all_new_tokens_agree():
    device = session()
    draft(device, 5, 6, 7, 8)
    device.flush()
    assert device.receive(Verdict(2, 1, 1, 6, ACCEPT)).kept
    assert device.path == (7, 8)
    assert decoded(device, 7).kept
    assert decoded(device, 8).kept
    assert device.path == ()


def test_a_token_behind_the_path_is_not_kept():
    """A draft that was being computed behind the path stands for another position than the log's end."""
    device = session()
    draft(device, 5)
    device.flush()
    assert not device.receive(Verdict(2, 1, 1, 6, ACCEPT)).kept


def test_the_path_moves_to_the_branch_that_holds_the_correction():
    device = session()
    first, _ = draft(device, 5, 6)
    second = device.drafted(7, 1, first)
    third = device.drafted(8, 0, second)
    device.flush()
    assert not device.receive(Verdict(2, 1, 1, 7, CORRECT)).kept
    assert (device.path, device.path_handles) == ((8,), (third,))


def test_a_verdict_may_run_along_another_branch():
    device = session()
    draft(device, 5, 6)
    other = device.drafted(7, 1, 0)
    device.drafted(8, 0, other)
    device.flush()
    assert device.receive(Verdict(2, 2, 4, 9, ACCEPT)).tokens == (7, 8, 9)


def test_drafts_behind_a_decoded_token_hang_on():
    device = session()
    draft(device, 5, 6)
    device.flush()
    decoded(device, 5)
    draft(device, 7)
    assert device.flush() == Draft((Node(3, 2, 7),), 3)
    assert device.receive(Verdict(3, 2, 3, 8, ACCEPT)).tokens == (6, 7, 8)


def test_an_unsent_node_whose_parent_is_final_is_sent_as_a_root():
    device = session()
    draft(device, 5)
    device.flush()
    draft(device, 6)
    decoded(device, 5)
    assert device.flush() == Draft((Node(2, 0, 6, 3),), 3)


def test_a_node_that_died_unsent_leaves_no_gap():
    device = session()
    draft(device, 5)
    decoded(device, 6)
    draft(device, 7)
    assert device.flush() == Draft((Node(1, 0, 7, 3),), 3)


def test_a_repeated_verdict_changes_nothing():
    device = session()
    draft(device, 5, 6, 7)
    device.flush()
    verdict = Verdict(2, 2, 2, 7, ACCEPT)
    device.receive(verdict)
    assert device.receive(verdict) == Update(5, kind=ACCEPT)
    assert list(device.final) == [1, 2, 5, 6, 7]


def test_what_overlaps_is_skipped_and_the_rest_taken():
    device = session()
    draft(device, 5, 6, 7)
    device.flush()
    decoded(device, 5)
    assert device.receive(Verdict(2, 2, 2, 8, CORRECT)) == Update(3, (6, 8), kept=False, kind=CORRECT)


def test_a_verdict_beyond_the_log_is_a_gap():
    with pytest.raises(VerdictGapError, match="starts at 3"):
        session().receive(Verdict(3, 0, 0, 5, DECODED))


def test_a_verdict_that_contradicts_a_final_token_is_refused():
    device = session()
    decoded(device, 5)
    with pytest.raises(ProtocolError, match="contradicts"):
        device.receive(Verdict(2, 0, 0, 6, DECODED))


def test_a_run_that_contradicts_a_final_token_is_refused():
    device = session()
    draft(device, 5, 6)
    device.flush()
    decoded(device, 9)
    with pytest.raises(ProtocolError, match="not alive"):
        device.receive(Verdict(2, 2, 2, 7, ACCEPT))


@pytest.mark.parametrize("verdict", [Verdict(2, 1, 3, 7, ACCEPT), Verdict(2, 1, 2, 7, ACCEPT), Verdict(2, 2, 1, 7, ACCEPT)])
def test_a_run_must_end_in_a_sent_node_at_its_own_position(verdict):
    device = session()
    draft(device, 5, 6)
    device.flush()
    draft(device, 8)
    with pytest.raises(MalformedMessageError):
        device.receive(verdict)


def test_a_verdict_behind_the_limit_is_refused():
    device = session(max_tokens=1)
    draft(device, 5)
    device.flush()
    with pytest.raises(MalformedMessageError, match="behind the end"):
        device.receive(Verdict(2, 1, 1, 6, ACCEPT))
    assert list(device.final) == [1, 2]


def test_a_verdict_behind_an_end_token_is_refused():
    device = session()
    draft(device, END)
    device.flush()
    with pytest.raises(MalformedMessageError, match="behind an end token"):
        device.receive(Verdict(2, 1, 1, 6, ACCEPT))
    device.receive(Verdict(2, 1, 1, None, ACCEPT))
    with pytest.raises(MalformedMessageError, match="behind the end"):
        decoded(device, 6)


def test_opened_must_come_first():
    device = session(credit=None)
    with pytest.raises(MalformedMessageError, match="Opened must come first"):
        decoded(device, 5)
    with pytest.raises(MalformedMessageError, match="Opened must come first"):
        device.receive(Finished(FinishReason.STOP))


def test_opened_must_name_the_session():
    with pytest.raises(MalformedMessageError, match="'other'"):
        session(credit=None).receive(Opened("other", 8, "x"))


def test_room_shrinks_with_every_live_node_and_comes_back_with_verdicts():
    device = session(credit=3)
    draft(device, 5, 6, 7)
    assert device.room == 0
    decoded(device, 5)
    assert device.room == 1
    decoded(device, 9)
    assert device.room == 3


def test_drafts_are_packed_once_the_streams_verifier_says_that_it_reads_them():
    device = session(credit=None)
    draft(device, 5)
    assert not device.flush().is_packed
    device.receive(Opened("s", 40, "x", reads_packed=True))
    draft(device, 6)
    assert device.flush() == Draft((Node(2, 1, 6),), 2, is_packed=True)
    assert device.flush(passes=True) == Draft((), 2, passes=True)
    device.open()
    assert not device.flush().is_packed
    device.receive(Opened("s", 40, "x"))
    draft(device, 7)
    assert not device.flush().is_packed


def test_a_draft_that_cannot_be_packed_is_sent_as_it_was():
    device = session(credit=None)
    device.receive(Opened("s", 40, "x", reads_packed=True))
    device.drafted(5, rank=4)
    assert device.flush() == Draft((Node(1, 0, 5, 2, 4),), 2)


def test_before_opened_a_device_has_the_initial_credit():
    device = session(credit=None)
    draft(device, *range(INITIAL_CREDIT + 2))
    assert len(device.flush().nodes) == INITIAL_CREDIT
    assert device.flush() is None
    device.receive(Opened("s", INITIAL_CREDIT + 5, "x"))
    assert device.room == 3
    assert len(device.flush().nodes) == 2


def test_before_opened_a_device_may_draft_more_than_it_may_send():
    device = session(credit=None)
    draft(device, *range(INITIAL_CREDIT))
    assert device.room == UNOPENED_ROOM - INITIAL_CREDIT
    device.receive(Opened("s", INITIAL_CREDIT - 1, "x"))
    assert device.room == 0


def test_before_opened_only_the_main_branch_is_sent_and_then_the_rest():
    device = session(credit=None)
    first, second = draft(device, 5, 6)
    other = device.drafted(7, 1, first)
    device.drafted(8, 0, other)
    assert [node.token_id for node in device.flush().nodes] == [5, 6]
    assert device.flush() is None
    device.receive(Opened("s", 40, "x"))
    assert device.flush().nodes == (Node(3, 1, 7, 0, 1), Node(4, 3, 8, 0, 0))
    assert (device.unsent_nodes, device.path_handles) == (0, (first, second))


def test_flush_never_exceeds_the_credit():
    device = session(credit=2)
    draft(device, 5, 6, 7, 8)
    assert [n.token_id for n in device.flush().nodes] == [5, 6]
    assert device.flush() is None
    decoded(device, 5)
    assert [n.token_id for n in device.flush().nodes] == [7]
    assert device.unsent_nodes == 1


def test_a_small_ceiling_is_kept_even_by_one_who_sent_more_before():
    device = session(credit=None)
    draft(device, 5, 6, 7)
    device.flush()
    device.receive(Opened("s", 2, "x"))
    assert (device.room, device.flush()) == (0, None)


def test_the_ceiling_never_shrinks_on_a_stream():
    device = session(credit=40)
    device.receive(Opened("s", 10, "x"))
    assert device.room == 40


def test_advice_is_followed_by_drafting_less():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, advice=3))
    assert device.room == 3
    decoded(device, 6)
    assert device.room == 40


def test_no_draft_is_sent_while_none_is_worth_it_and_all_that_live_are_sent_afterwards():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, withholds=True))
    for token_id in (6, 7, 8):
        device.drafted(token_id)
    assert (device.flush(), device.unsent_nodes, device.room) == (None, 3, 37)
    assert device.flush(passes=True) == Draft((), 3, passes=True)
    decoded(device, 6)
    assert [node.token_id for node in device.flush().nodes] == [7, 8]


def test_a_new_stream_withholds_nothing():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, withholds=True))
    device.drafted(6)
    device.open()
    assert [node.token_id for node in device.flush().nodes] == [6]


@pytest.mark.parametrize("token_ids", [(END,), (5, END)])
def test_there_is_no_room_behind_a_drafted_end_token(token_ids):
    device = session()
    draft(device, *token_ids)
    assert device.room == 0


def test_there_is_no_room_behind_the_limit():
    device = session(max_tokens=2)
    draft(device, 5)
    assert device.room > 0
    draft(device, 6)
    assert device.room == 0


def test_there_is_no_room_behind_the_end_of_the_text():
    device = session()
    decoded(device, END)
    assert (device.is_complete, device.room, device.finish_reason) == (True, 0, None)


def test_there_is_no_room_after_cancel():
    device = session()
    assert device.cancel() == Cancel()
    assert device.room == 0
    assert decoded(device, 5).tokens == (5,)


def test_finished_brings_reason_and_usage():
    device = session()
    finished = Finished(FinishReason.LENGTH, Usage(passes=3))
    assert device.receive(finished) == Update(2, finished=finished)
    assert (device.finish_reason, device.usage, device.room) == (FinishReason.LENGTH, Usage(passes=3), 0)
    with pytest.raises(MalformedMessageError, match="behind the end"):
        decoded(device, 5)


def test_a_new_stream_numbers_and_sends_the_live_tree_again():
    device = session()
    draft(device, 5, 6, 7)
    device.flush()
    decoded(device, 5)
    message = device.open()
    assert (message.attempt, message.prefix, message.generation_start, message.fingerprint) == (2, (1, 2, 5), 2, "x")
    assert device.flush() == Draft((Node(1, 0, 6, 3), Node(2, 1, 7)), 3)
    assert device.path == (6, 7)


def test_a_new_stream_starts_with_the_initial_credit_and_without_advice():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, advice=3))
    device.open()
    draft(device, *range(INITIAL_CREDIT + 1))
    assert len(device.flush().nodes) == INITIAL_CREDIT
    with pytest.raises(MalformedMessageError, match="Opened must come first"):
        decoded(device, 6)


def test_handles_outlive_streams():
    device = session()
    first, second = draft(device, 5, 6)
    device.flush()
    device.open()
    device.drafted(7, 1, first)
    assert device.path_handles == (first, second)
    assert [node.number for node in device.flush().nodes] == [1, 2]
    device.receive(Opened("s", 8, "x"))
    assert device.flush().nodes == (Node(3, 1, 7, 0, 1),)


def test_another_fingerprint_is_told():
    device = session()
    assert not device.receive(Opened("s", 8, "x")).fingerprint_changed
    device.open()
    assert device.receive(Opened("s", 8, "y")).fingerprint_changed
    assert device.fingerprint == "y"


def test_a_session_that_was_finished_may_be_opened_again():
    """A verifier that shuts down ends its streams in order; another goes on."""
    device = session()
    device.receive(Finished(FinishReason.SHUTDOWN))
    device.open()
    device.receive(Opened("s", 8, "x"))
    assert device.finish_reason is None
    assert decoded(device, 5).tokens == (5,)


def test_a_cancel_ends_its_own_stream_only():
    device = session()
    device.cancel()
    assert device.room == 0
    device.open()
    assert device.room > 0
