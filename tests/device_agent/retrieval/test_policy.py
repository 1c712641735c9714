"""The table of ``docs/retrieval.md``, row by row."""

from __future__ import annotations

import itertools

import pytest

from device_agent.privacy import Privacy
from device_agent.request import Mode, Reveal, StreamRequest
from device_agent.retrieval.asking import Into, Private, Retrieve, read_retrieve
from device_agent.retrieval.documents import Label
from device_agent.retrieval.policy import judge
from speculation.errors import InvalidRequestError, PrivateTextError, UnknownNameError

BOTH, SHARED, NONE = {Label.PRIVATE, Label.SHARED}, {Label.SHARED}, set()
COLLABORATE, CLOUD, DEVICE, AUTO = Mode.COLLABORATE, Mode.CLOUD, Mode.DEVICE, Mode.AUTO


def judged(mode, asked=None, finds_private=True, drafts_may_leave=False, reveal=Reveal.ALL, privacy=Privacy.OPEN):
    request = StreamRequest("x", mode=mode, reveal=reveal, privacy=privacy)
    verdict = judge(request, asked or Retrieve(), finds_private, drafts_may_leave)
    if Label.PRIVATE in verdict.prompt and finds_private:
        assert verdict.privacy is Privacy.DEVICE_ONLY
    return verdict.mode, verdict.prompt, verdict.drafts


@pytest.mark.parametrize(
    ("mode", "asked", "finds_private", "wanted"),
    [
        (DEVICE, Retrieve(), True, (DEVICE, BOTH, NONE)),
        (DEVICE, Retrieve(), False, (DEVICE, BOTH, NONE)),
        (COLLABORATE, Retrieve(), False, (COLLABORATE, SHARED, SHARED)),
        (COLLABORATE, Retrieve(into=Into.DRAFTS), False, (COLLABORATE, NONE, SHARED)),
        (CLOUD, Retrieve(), False, (CLOUD, SHARED, NONE)),
        (AUTO, Retrieve(), False, (AUTO, SHARED, SHARED)),
        (COLLABORATE, Retrieve(), True, (DEVICE, BOTH, NONE)),
        (AUTO, Retrieve(), True, (DEVICE, BOTH, NONE)),
        (AUTO, Retrieve(private=Private.WITHHOLD), True, (AUTO, SHARED, SHARED)),
        (COLLABORATE, Retrieve(private=Private.WITHHOLD), True, (COLLABORATE, SHARED, SHARED)),
        (CLOUD, Retrieve(private=Private.WITHHOLD), True, (CLOUD, SHARED, NONE)),
    ],
)
def test_who_writes_and_what_goes_where(mode, asked, finds_private, wanted):
    assert judged(mode, asked, finds_private) == wanted


@pytest.mark.parametrize(
    ("mode", "asked", "changes", "told"),
    [
        (CLOUD, Retrieve(), {}, "mode cloud needs the verifier"),
        (COLLABORATE, Retrieve(), {"reveal": Reveal.FINAL}, "reveal final needs the verifier"),
        (COLLABORATE, Retrieve(private=Private.DRAFTS), {}, "set rag_drafts_may_leave"),
        (CLOUD, Retrieve(private=Private.DRAFTS), {"drafts_may_leave": True}, "mode cloud drafts nothing"),
    ],
)
def test_what_is_refused_says_what_would_be_right(mode, asked, changes, told):
    with pytest.raises(PrivateTextError, match=told) as refusal:
        judged(mode, asked, **changes)
    assert refusal.value.parameter == "retrieve"


def test_private_drafts_leave_where_the_owner_has_said_so_and_no_prompt_holds_them():
    asked = Retrieve(private=Private.DRAFTS)
    assert judged(COLLABORATE, asked, drafts_may_leave=True) == (COLLABORATE, SHARED, BOTH)


def test_what_is_labelled_device_only_gets_all_and_stays():
    assert judged(AUTO, privacy=Privacy.DEVICE_ONLY) == (AUTO, BOTH, NONE)
    assert judged(AUTO, finds_private=False, privacy=Privacy.DEVICE_ONLY) == (AUTO, BOTH, NONE)


def test_where_a_verifier_is_asked_no_prompt_holds_private_text_whatever_is_asked():
    answered = 0
    for mode, reveal, private, into, finds, may in itertools.product(Mode, Reveal, Private, Into, (False, True), (False, True)):
        if (mode, reveal) == (Mode.DEVICE, Reveal.FINAL):
            continue
        try:
            verdict = judge(StreamRequest("x", mode=mode, reveal=reveal), Retrieve(4, private, into), finds, may)
        except PrivateTextError:
            continue
        answered += 1
        if verdict.mode is not Mode.DEVICE:
            assert Label.PRIVATE not in verdict.prompt
            assert Label.PRIVATE not in verdict.drafts or (may and finds and private is Private.DRAFTS)
    assert answered > 50


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, Retrieve()),
        (False, None),
        ({}, Retrieve()),
        ({"k": 2, "private": "withhold", "into": "drafts"}, Retrieve(2, Private.WITHHOLD, Into.DRAFTS)),
    ],
)
def test_the_key_of_a_request_is_a_flag_or_says_how(value, wanted):
    assert read_retrieve("retrieve", value) == wanted


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("yes", InvalidRequestError),
        ([], InvalidRequestError),
        ({"k": 0}, InvalidRequestError),
        ({"k": 33}, InvalidRequestError),
        ({"k": True}, InvalidRequestError),
        ({"store": "other.db"}, UnknownNameError),
        ({"private": "never"}, UnknownNameError),
        ({"into": None}, UnknownNameError),
    ],
)
def test_what_it_cannot_be_is_refused(value, error):
    with pytest.raises(error) as refusal:
        read_retrieve("retrieve", value)
    assert refusal.value.parameter == "retrieve"
