"""Where a stop string ends what a client is shown, and what is held back until that is known."""

from __future__ import annotations

import pytest

from tests.device_agent.display_scene import Screen


def test_tokens_that_may_begin_a_stop_string_are_not_committed_yet():
    screen = Screen(stops=["ab"])
    screen.drafted([0])
    assert screen.display.finalised([0]) == []
    events = screen.display.finalised([9])
    assert [event.name for event in events] == ["commit", "correct"]


@pytest.mark.parametrize("pieces", [[[0, 1, 9]], [[0, 1], [9]], [[0], [1], [9]]])
def test_a_longer_stop_string_that_began_earlier_is_waited_for(pieces):
    """In "ab " both "b" and "ab " stand; the text ends before the one that begins first, however it came."""
    screen = Screen(stops=["b", "ab "])
    for token_ids in pieces:
        screen.final(token_ids)
    screen.finish()
    assert screen.replay.text == ""


def test_at_the_end_of_the_text_a_stop_string_is_waited_for_no_longer():
    screen = Screen(stops=["b", "ab "])
    screen.final([0, 1])
    assert not screen.display.is_stopped
    screen.finish()
    assert screen.display.is_stopped
    assert screen.replay.text == "a"


def test_a_longer_stop_string_that_begins_where_one_is_found_is_not_waited_for():
    screen = Screen(stops=["ab", "aba"])
    screen.final([0, 1])
    assert screen.display.is_stopped


def test_what_stands_before_a_stop_string_in_a_drafted_token_is_shown_at_the_end():
    """Of "aXb" the "X" is certain only once no "aXb " can follow."""
    screen = Screen(stops=["X", "aXb "])
    screen.display.go_alone()
    screen.drafted([13])
    assert not screen.display.is_stopped
    screen.finish(max_drafts=1)
    assert screen.display.is_stopped
    assert screen.replay.text == "a"


def test_with_a_verifier_again_stop_strings_are_judged_on_final_text():
    screen = Screen(stops=["b"])
    screen.follow(screen.display.go_alone())
    screen.display.come_back()
    screen.drafted([0, 1])
    assert not screen.display.is_stopped
    screen.final([0, 0])
    screen.finish()
    assert screen.replay.text == "aa"


def test_a_stop_string_in_the_middle_of_a_token_cuts_its_text():
    screen = Screen(stops=["X"])
    screen.drafted([13, 0])
    screen.final([13, 0])
    screen.finish()
    assert screen.display.is_stopped
    assert screen.replay.text == "a"
    assert screen.replay.token_ids == [13]


def test_a_stop_string_in_drafts_that_are_here_already_ends_the_text_of_a_device_that_goes_on_alone():
    screen = Screen(stops=["b"])
    screen.drafted([0, 1, 0])
    assert not screen.display.is_stopped
    screen.follow(screen.display.go_alone())
    assert screen.display.is_stopped
    screen.finish(max_drafts=9)
    assert screen.replay.text == "a"


@pytest.mark.parametrize("is_alone", [False, True])
def test_behind_a_stop_string_nothing_more_is_added(is_alone):
    screen = Screen(stops=["b"])
    if is_alone:
        screen.display.go_alone()
        screen.drafted([0, 1])
    else:
        screen.final([0, 1])
    assert screen.display.is_stopped
    assert screen.display.drafted(0, 0.9) == screen.display.finalised([0, 9]) == []
    screen.finish(max_drafts=9)
    assert (screen.replay.text, screen.replay.token_ids) == ("a", [0])


def test_half_a_character_behind_a_stop_string_in_its_token_is_not_shown():
    screen = Screen(stops=["X"])
    screen.final([14])
    screen.finish()
    assert (screen.replay.text, screen.display.text) == ("a", "a")
