"""How much a device may draft and send: credit, advice and the end of the text."""

from __future__ import annotations

import pytest

from speculation.errors import MalformedMessageError
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Cancel,
    Draft,
    Finished,
    FinishReason,
    Node,
    Opened,
    Usage,
    Verdict,
)
from speculation.protocol.outbox import UNOPENED_ROOM
from speculation.protocol.update import Update
from tests.speculation.protocol.device_scene import DECODED, END, decoded, draft, session


def test_room_shrinks_with_every_live_node_and_comes_back_with_verdicts():
    device = session(credit=3)
    draft(device, 5, 6, 7)
    assert device.room == 0
    decoded(device, 5)
    assert device.room == 1
    decoded(device, 9)
    assert device.room == 3


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


def test_advice_beyond_the_credit_gives_no_more_room_than_the_credit():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, advice=50))
    assert device.room == 40


def test_the_advice_of_an_older_stream_is_not_followed_on_a_new_one():
    device = session(credit=40)
    device.receive(Verdict(2, 0, 0, 5, DECODED, advice=3))
    device.open()
    device.receive(Opened("s", 40, "x"))
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
