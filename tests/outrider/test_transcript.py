"""The reader's text follows the events, and an agent that breaks its own rules is told so."""

import pytest

from device_agent.events import CommitEvent, CommitOffset, CorrectEvent, RevokeEvent, SpeculativeEvent, StateEvent
from outrider.transcript import Transcript
from speculation.errors import MalformedMessageError

OFFSET = CommitOffset(0, 0)


def drafted(position, text, token_id=7):
    return SpeculativeEvent(0, position, (token_id,), text, 0.5)


def shown(*texts, start=10):
    transcript = Transcript()
    for index, text in enumerate(texts):
        transcript.apply(drafted(start + index, text))
    return transcript


def test_drafted_text_is_tentative():
    transcript = shown("a", "b")
    assert (transcript.final_text, transcript.tentative_text) == ("", "ab")


def test_a_commit_makes_the_next_tokens_final():
    transcript = shown("a", "b", "c")
    transcript.apply(CommitEvent(0, 10, 2, OFFSET))
    assert (transcript.final_text, transcript.tentative_text) == ("ab", "c")


def test_a_revoke_withdraws_and_remembers_what_was_shown():
    transcript = shown("a", "b", "c")
    transcript.apply(CommitEvent(0, 10, 1, OFFSET))
    transcript.apply(RevokeEvent(0, 11, 2, "contradicted"))
    assert (transcript.final_text, transcript.tentative_text, transcript.revoked) == ("a", "", "bc")
    assert (transcript.num_revoked, transcript.num_speculative) == (2, 3)


def test_a_correction_is_final_at_once_and_drafts_hang_behind_it():
    transcript = shown("a")
    transcript.apply(RevokeEvent(0, 10, 1, "contradicted"))
    transcript.apply(CorrectEvent(0, 10, (1, 2), "xy", OFFSET))
    transcript.apply(drafted(12, "z"))
    assert (transcript.final_text, transcript.tentative_text) == ("xy", "z")
    assert transcript.token_ids == (1, 2, 7)


def test_an_event_without_tokens_adds_its_text():
    transcript = shown("a")
    transcript.apply(CommitEvent(0, 10, 1, OFFSET))
    transcript.apply(CorrectEvent(0, 11, (), "\N{REPLACEMENT CHARACTER}", OFFSET))
    assert transcript.final_text == "a\N{REPLACEMENT CHARACTER}"


def test_other_events_change_no_text():
    transcript = shown("a")
    transcript.apply(StateEvent(0, "device", "link lost"))
    assert transcript.tentative_text == "a"


@pytest.mark.parametrize(
    "event",
    [
        drafted(14, "gap"),
        drafted(11, "overlap"),
        CommitEvent(0, 11, 1, OFFSET),
        CommitEvent(0, 10, 3, OFFSET),
        RevokeEvent(0, 9, 2, "not where they stand"),
        RevokeEvent(0, 10, 1, "not all of them"),
        RevokeEvent(0, 9, 3, "never shown"),
    ],
    ids=repr,
)
def test_an_event_that_does_not_fit_what_is_shown_is_refused(event):
    with pytest.raises(MalformedMessageError, match="does not fit itself"):
        shown("a", "b").apply(event)


def test_a_final_token_cannot_be_withdrawn():
    transcript = shown("a", "b")
    transcript.apply(CommitEvent(0, 10, 2, OFFSET))
    with pytest.raises(MalformedMessageError):
        transcript.apply(RevokeEvent(0, 11, 1, "contradicted"))


def test_a_step_of_several_tokens_cannot_be_cut():
    transcript = Transcript()
    transcript.apply(SpeculativeEvent(0, 10, (1, 2), "ab", 0.5))
    with pytest.raises(MalformedMessageError, match="is cut at 11"):
        transcript.apply(CommitEvent(0, 10, 1, OFFSET))


def test_final_tokens_behind_tentative_ones_are_refused():
    transcript = shown("a")
    with pytest.raises(MalformedMessageError, match="behind tentative ones"):
        transcript.apply(CorrectEvent(0, 11, (1,), "x", OFFSET))
    assert (transcript.final_text, transcript.tentative_text) == ("", "a")


def test_what_is_refused_is_not_counted():
    transcript = shown("a")
    with pytest.raises(MalformedMessageError):
        transcript.apply(drafted(17, "b"))
    assert transcript.num_speculative == 1
