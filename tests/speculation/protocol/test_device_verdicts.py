"""What verdicts make final on a device, and which are refused."""

from __future__ import annotations

import pytest

from speculation.errors import MalformedMessageError, ProtocolError, VerdictGapError
from speculation.protocol.messages import (
    Draft,
    Finished,
    FinishReason,
    Node,
    Opened,
    Verdict,
)
from speculation.protocol.update import Update
from tests.speculation.protocol.device_scene import ACCEPT, CORRECT, DECODED, END, decoded, draft, session


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
