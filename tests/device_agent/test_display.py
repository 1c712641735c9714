from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_agent.display import Display
from device_agent.request import Reveal
from speculation.text import StopStrings
from tests.device_agent.display_scene import PROMPT_LENGTH, WORDS, Screen, decode

tokens = st.integers(0, len(WORDS) - 1)
final_text = st.lists(tokens, max_size=24)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("right"), st.integers(1, 5)),
        st.tuples(st.just("wrong"), st.lists(tokens, min_size=1, max_size=4)),
        st.tuples(st.just("final"), st.integers(1, 5)),
        st.tuples(st.just("reassessed"), st.lists(st.floats(0, 1), min_size=1, max_size=4)),
    ),
    max_size=40,
)
reveals = st.sampled_from(list(Reveal))
bars = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
confidences = st.sampled_from([0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0])
stops = st.lists(st.sampled_from(["ab", "bab", "b", "a ba", "éa", "X", "€xa", " "]), max_size=3)


def play(screen, truth, script):
    """Drafts right and wrong, and final tokens, in any order; the final tokens are always the next of ``truth``."""
    final = path = 0
    for kind, what in script:
        if screen.display.is_stopped:
            return
        if kind == "right":
            screen.drafted(truth[final + path : final + path + what])
            path += len(truth[final + path : final + path + what])
        elif kind == "wrong":
            screen.drafted(what)
            path += len(what)
        elif kind == "reassessed":
            screen.reassessed(what)
        else:
            newly = truth[final : final + what]
            if newly:
                kept = screen.display._answer.token_ids(final, final + len(newly)) == tuple(newly)
                screen.final(newly)
                final += len(newly)
                path = max(0, path - len(newly)) if kept else 0
    if not screen.display.is_stopped and truth[final:]:
        screen.final(truth[final:])


@given(final_text, steps, reveals)
def test_following_the_events_gives_exactly_the_final_text(truth, script, reveal):
    screen = Screen(reveal)
    play(screen, truth, script)
    screen.finish()
    assert screen.replay.token_ids == truth
    assert screen.replay.text == decode(truth)


class Watched(Screen):
    """A screen that knows how sure the draft is of everything, and checks each step against the bars."""

    def __init__(self, min_stability, confidences):
        super().__init__(Reveal.STABLE, min_stability)
        self.min_stability = min_stability
        self.confidences = confidences
        self.is_over = False

    def drafted(self, token_ids):
        for token_id in token_ids:
            super().drafted([token_id], next(self.confidences))

    def finish(self, max_drafts=0):
        self.is_over = True
        super().finish(max_drafts)

    def follow(self, events):
        super().follow(events)
        assert all(event.stability >= round(self.min_stability, 4) for event in events if event.name == "speculative")
        held = self.display._confidences
        num_shown = max(0, len(self.replay.shown) - self.display.num_final)
        assert num_shown == 0 or math.prod(held[:num_shown]) >= self.min_stability**1.5
        if num_shown < len(held) and not self.is_over:
            assert math.prod(held[: num_shown + 1]) < self.min_stability**0.25
        return events


@given(final_text, steps, bars, st.lists(confidences, min_size=1))
def test_stable_keeps_the_law_and_never_shows_what_is_below_its_bars(truth, script, min_stability, sureness):
    """Nothing is shown at less than ``min_stability``, nothing stays below the lower bar, and what the raised bar lets pass is
    always shown.
    """
    screen = Watched(min_stability, itertools.cycle(sureness))
    play(screen, truth, script)
    screen.finish()
    assert screen.replay.token_ids == truth
    assert screen.replay.text == decode(truth)


@given(final_text, steps, reveals, stops)
def test_a_stop_string_ends_the_text_where_the_whole_text_first_holds_one(truth, script, reveal, stops):
    """However the tokens came: what is judged is the text, not its pieces."""
    screen = Screen(reveal, stops=stops)
    play(screen, truth, script)
    screen.finish()
    whole = decode(truth)
    end = StopStrings(stops).find(whole) if stops else None
    assert screen.replay.text == whole[:end]
    assert screen.display.is_stopped == (end is not None)
    assert screen.replay.token_ids == truth[: len(screen.replay.token_ids)]


@given(final_text, final_text, stops)
def test_a_device_alone_judges_stop_strings_on_its_own_text(truth, tail, stops):
    screen = Screen(stops=stops)
    if truth:
        screen.final(truth)
    screen.follow(screen.display.go_alone())
    screen.drafted(tail)
    screen.follow(screen.display.finish(max_drafts=99))
    assert screen.replay.text == screen.display.text
    assert screen.replay.token_ids == list(screen.display.token_ids)
    whole = decode(truth + tail)
    assert screen.replay.text == whole[: StopStrings(stops).find(whole) if stops else None]


@given(final_text, steps)
def test_only_final_tokens_are_shown_with_reveal_final(truth, script):
    screen = Screen(Reveal.FINAL)
    play(screen, truth, script)
    screen.finish()
    assert set(screen.replay.names) <= {"correct"}


@given(st.text(max_size=12))
@example("\ufffd")
def test_incomplete_characters_are_never_shown(text):
    display = Display(1, lambda token_ids: bytes(token_ids).decode(errors="replace"), itertools.count())
    events = [event for byte in text.encode() for event in display.drafted(byte, 1.0)]
    events += display.finish(max_drafts=99)
    assert "".join(event.text for event in events) == text
    assert all("\ufffd" not in event.text for event in events) or "\ufffd" in text


def test_agreed_drafts_are_committed_and_the_rest_stands():
    screen = Screen()
    screen.drafted([0, 1, 2])
    events = screen.display.finalised([0, 1])
    assert [event.name for event in events] == ["commit"]
    assert (events[0].position, events[0].count) == (PROMPT_LENGTH, 2)


def test_a_contradiction_is_a_revoke_a_commit_and_a_correction():
    screen = Screen()
    screen.drafted([0, 1, 2])
    events = screen.display.finalised([0, 9])
    assert [event.name for event in events] == ["revoke", "commit", "correct"]
    revoke, _, correct = events
    assert (revoke.position, revoke.count, revoke.reason) == (PROMPT_LENGTH + 1, 2, "contradicted")
    assert (correct.position, correct.token_ids, correct.text) == (PROMPT_LENGTH + 1, (9,), " ")


def test_a_character_is_shown_with_the_token_that_completes_it():
    screen = Screen()
    first, second = screen.display.drafted(4, 1.0) + screen.display.drafted(5, 1.0)
    assert (first.text, second.text) == ("", "é")


def test_bytes_that_never_complete_come_last_as_a_replacement_character():
    screen = Screen()
    screen.final([0, 4])
    screen.finish()
    assert screen.replay.text == "a\ufffd"
    assert screen.replay.code_points_committed == 2


def test_stable_shows_drafts_while_their_running_product_is_high_enough():
    screen = Screen(Reveal.STABLE, min_stability=0.7)
    screen.drafted([0, 1, 2], confidence=0.8)
    assert screen.replay.token_ids == [0]
    screen.final([0])
    assert screen.replay.token_ids == [0, 1]


def test_after_a_revoke_the_bar_is_raised_until_four_drafts_in_a_row_agreed():
    """Held drafts prove it too: raised, the bar of 0.5 is 0.84."""
    screen = Screen(Reveal.STABLE, min_stability=0.5)
    screen.drafted([0, 1], confidence=0.8)
    screen.final([0, 9])
    assert screen.replay.names[-3:] == ["revoke", "commit", "correct"]
    screen.drafted([0], confidence=0.8)
    assert screen.display.is_holding
    screen.drafted([0, 0, 0, 0], confidence=0.8)
    screen.final([0, 0, 0])
    assert screen.display.is_holding
    screen.final([0])
    assert not screen.display.is_holding


def test_a_held_draft_that_is_wrong_raises_no_bar():
    screen = Screen(Reveal.STABLE, min_stability=0.5)
    screen.drafted([0, 1], confidence=0.6)
    screen.final([0, 9])
    screen.drafted([0], confidence=0.6)
    assert not screen.display.is_holding


def test_while_the_bar_is_raised_a_held_draft_that_is_wrong_begins_the_count_again():
    screen = Screen(Reveal.STABLE, min_stability=0.5)
    screen.drafted([1], confidence=0.8)
    screen.final([9])
    screen.drafted([0, 0, 0, 1], confidence=0.8)
    screen.final([0, 0, 0, 9])
    screen.drafted([0, 0], confidence=0.8)
    screen.final([0])
    assert screen.display.is_holding


def test_what_is_shown_stays_until_it_is_clearly_worse_and_comes_back_when_it_is_likely_again():
    """With 0.5, half is enough to be shown and 0.354 to stay."""
    screen = Screen(Reveal.STABLE, min_stability=0.5)
    screen.drafted([0, 1], confidence=0.8)
    assert screen.reassessed([0.8, 0.45]) == []
    (revoke,) = screen.reassessed([0.8, 0.4])
    assert (revoke.position, revoke.count, revoke.reason) == (PROMPT_LENGTH + 1, 1, "unstable")
    assert screen.reassessed([0.8, 0.6]) == []
    assert [event.name for event in screen.reassessed([0.8, 0.7])] == ["speculative"]


@pytest.mark.parametrize("num_confidences", [1, 3])
def test_a_draft_without_a_new_confidence_is_refused_and_so_is_a_confidence_without_a_draft(num_confidences):
    screen = Screen()
    screen.drafted([0, 1])
    with pytest.raises(ValueError, match=f"{num_confidences} confidences for 2 drafts"):
        screen.display.reassessed([0.5] * num_confidences)


def test_stability_counts_from_the_end_of_the_final_tokens():
    screen = Screen()
    first, second = screen.display.drafted(0, 0.5) + screen.display.drafted(1, 0.5)
    assert (first.stability, second.stability) == (0.5, 0.25)
    screen.display.finalised([0])
    (third,) = screen.display.drafted(2, 0.5)
    assert third.stability == 0.25


def test_a_draft_that_was_never_shown_is_not_kept_at_the_end():
    screen = Screen(Reveal.STABLE, min_stability=0.7)
    screen.drafted([0, 1, 2], confidence=0.8)
    screen.finish(max_drafts=9)
    assert (screen.replay.token_ids, screen.display.num_drafts, screen.display.is_holding) == ([0], 1, False)


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_drafts_at_the_end_are_kept_or_withdrawn(keep):
    screen = Screen()
    screen.final([0])
    screen.drafted([1, 2])
    screen.follow(screen.display.finish(max_drafts=keep))
    assert screen.replay.token_ids == [0, 1, 2][: 1 + keep]
    assert screen.display.num_final == 1
