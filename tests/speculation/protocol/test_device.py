"""A device's session: what it asks for, how its drafts are sent, and how it begins anew."""

from __future__ import annotations

import pytest

from speculation.errors import HandshakeError, MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Draft,
    Finished,
    FinishReason,
    Node,
    Opened,
    PairIdentity,
    Verdict,
)
from tests.speculation.protocol.device_scene import ACCEPT, DECODED, END, decoded, draft, session


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


def test_of_drafts_of_equal_rank_the_first_stays_on_the_main_branch():
    device = session()
    first, second = draft(device, 5, 6)
    device.drafted(7, 0, 0)
    assert (device.path, device.path_handles) == ((5, 6), (first, second))


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


def test_a_final_node_may_not_be_named_once_the_log_has_gone_on_without_a_draft():
    device = session()
    (first,) = draft(device, 5)
    decoded(device, 5)
    decoded(device, 6)
    with pytest.raises(LookupError, match="not alive"):
        device.drafted(7, 0, first)


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
    device = session(credit=None)
    assert not device.receive(Opened("s", 8, "x")).fingerprint_changed
    device.open()
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
