"""A resting stream copies what followed where its text read like this before, as long as that turns out right."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafting import copying
from device_agent.drafting.branches import Proposal
from device_agent.drafting.copying import ENDING, LONGEST_COPY, Copying
from device_agent.drafting.linear import Ahead
from device_agent.drafting.resting import Resting
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import Watched
from tests.device_agent.drafting.streams import Stream

TEXTS = st.lists(st.integers(0, 2), max_size=60)
VERSE = [5, 6, 7, 8, 9, 10]


class Rests(Resting):
    """As if drafts had been seen to slow every text down."""

    def is_due(self, num_verdicts, has_drafted, pass_s):
        return True


def read(text) -> Copying:
    found = Copying()
    found.read(text)
    return found


@given(TEXTS, TEXTS, st.lists(st.integers(0, 2), max_size=6), st.integers(-1, 12))
def test_what_followed_the_last_time_is_copied_and_behind_the_texts_end_the_copy_itself(text, more, drafts, longest):
    found = read(text)
    found.read(text := text + more)
    found._pace.usual_acceptance = None  # whatever came true
    known = text + drafts
    places = [place for place in range(ENDING, len(text)) if text[place - ENDING : place] == known[-ENDING:]]
    wanted = []
    if places:
        for place in range(places[-1], places[-1] + longest):
            wanted.append((known + wanted)[place])
    assert found.behind(text, drafts, longest) == wanted


def test_a_text_that_goes_round_is_copied_on_and_on():
    found = read(VERSE * 2)
    assert found.behind(VERSE * 2, [], 15) == (VERSE * 3)[:15]
    assert found.behind(VERSE * 2, VERSE[:2], 3) == VERSE[2:5]


def test_less_than_an_ending_that_stood_there_before_is_no_reason():
    assert read([*VERSE, 1, *VERSE[-ENDING + 1 :]]).behind([*VERSE, 1, *VERSE[-ENDING + 1 :]], [], 5) == []
    assert read([*VERSE, 1, *VERSE[-ENDING:]]).behind([*VERSE, 1, *VERSE[-ENDING:]], [], 5)[0] == 1


def test_what_could_have_been_copied_teaches_whether_it_was_or_not():
    """Each verse goes on in another way than all before: copies stop. Once verses are what they were they begin again."""
    found, text = Copying(), list[int]()
    rng = random.Random(1)
    for _ in range(40):
        text += [*VERSE[:ENDING], rng.randrange(100, 10**9)]
        found.read(text)
    assert found.chance < copying.LEAST_CHANCE
    assert found.behind([*text, *VERSE[:ENDING]], [], 5) == []
    for _ in range(20):
        text += VERSE
        found.read(text)
    assert found.chance > copying.LEAST_CHANCE
    assert found.behind(text, [], 2) == VERSE[:2]


def test_a_prompt_teaches_nothing_of_what_the_model_writes():
    rng = random.Random(1)
    prompt = list(itertools.chain.from_iterable([*VERSE[:ENDING], rng.randrange(100, 10**9)] for _ in range(40)))
    assert read(prompt).chance == 1


def test_of_a_very_long_text_the_latest_endings_alone_are_known(monkeypatch):
    monkeypatch.setattr(copying, "LOOKED_BACK", 10)
    text = [*VERSE, *range(100, 120), *VERSE[:ENDING]]
    assert read(text).behind(text, [], 5) == []
    found = read(text)
    for token_id in [*VERSE, 200, 201, *VERSE[:ENDING]]:
        found.read(text := [*text, token_id])
    assert found.behind(text, [], 3) == [*VERSE[ENDING:], 200]
    for token_id in [*VERSE[ENDING:], *range(300, 310), *VERSE[:ENDING]]:
        found.read(text := [*text, token_id])
    assert found.behind(text, [], 3) == []


def resting_on(prompt, **settings) -> Stream:
    return Stream(Watched(vocabulary_size=32), Ahead(), prompt=prompt, resting=Rests(), **settings)


def test_a_resting_stream_sends_what_it_copied_and_tells_it_apart_from_what_its_model_said(monkeypatch):
    stream = resting_on(VERSE * 2)
    observed, calibration = [], stream.drafter.beliefs._calibration
    for _ in range(50):  # the model was never right where it was sure
        calibration.observe(Proposal((1,), (1.0,)), 2, is_greedy=True)
    monkeypatch.setattr(calibration, "observe", lambda *said: observed.append(said))
    grown = stream.drafter.copy()
    assert [branch.token_id for branch in grown] == stream.main == (VERSE * 3)[:LONGEST_COPY]
    assert [node.token_id for node in stream.session.flush().nodes] == stream.main
    assert stream.drafter.chances() == [1.0] * LONGEST_COPY
    stream.settle([*VERSE[:3], 31])
    assert stream.main == []
    assert stream.drafter.copy() == []  # 31 stood nowhere
    assert observed == []
    assert stream.drafter.beliefs.pace.acceptance == pytest.approx(0.9)


def test_it_copies_on_once_half_of_it_is_final():
    stream = resting_on(VERSE * 2)
    stream.drafter.copy()
    stream.settle((VERSE * 2)[: LONGEST_COPY // 2 - 1])
    assert stream.drafter.copy() == []
    stream.settle([stream.main[0]])
    assert len(stream.drafter.copy()) == LONGEST_COPY // 2
    assert stream.main == (VERSE * 5)[LONGEST_COPY // 2 :][:LONGEST_COPY]


@pytest.mark.parametrize(
    ("settings", "copied"),
    [({"credit": 3}, 3), ({"max_tokens": 5}, 5), ({"depth": 2}, 2), ({"context_length": 14}, 3), ({"end_token_ids": (7,)}, 3)],
)
def test_no_further_than_a_draft_may_go(settings, copied):
    stream = resting_on(VERSE * 2, **settings)
    assert len(stream.drafter.copy()) == copied
    if "end_token_ids" in settings:
        assert stream.drafter.copy() == []


@pytest.mark.parametrize(("passes_a_round_trip", "copied"), [(1, LONGEST_COPY), (15.9, LONGEST_COPY), (16.1, 0), (60, 0)])
def test_nothing_is_copied_that_would_come_behind_the_pass_that_writes_it(passes_a_round_trip, copied):
    stream, pass_s = resting_on(VERSE * 2), 0.0015
    stream.drafter.schedule.opened(passes_a_round_trip * pass_s)
    for count in range(3):
        stream.drafter.schedule.verdict(count * pass_s, is_bare=True, is_overtaken=False)
    assert len(stream.drafter.copy()) == copied


def test_a_prompt_may_end_as_an_answer_does():
    assert resting_on(VERSE * 2, end_token_ids=(VERSE[-1],)).drafter.copy() != []


def test_who_drafts_copies_nothing_nor_does_it_behind_a_token_that_is_being_drafted_from():
    drafting = Stream(Watched(vocabulary_size=32), Ahead(), prompt=VERSE * 2)
    assert drafting.drafter.copy() == []
    stream = resting_on(VERSE * 2)
    stream.drafter.branches.begin(stream.drafter.branches.tip)
    assert stream.drafter.copy() == []


def test_the_model_drafts_on_behind_a_copy_once_it_is_asked_again():
    async def work():
        resting = Rests()
        stream = Stream(Watched(vocabulary_size=32), Ahead(), prompt=VERSE * 2, resting=resting)
        stream.drafter.copy()
        await stream.drafter.step()
        assert len(stream.main) == LONGEST_COPY
        resting.is_due = lambda *_, **__: False
        await stream.drafter.step()
        assert len(stream.main) == LONGEST_COPY + 1
        assert stream.drafter.branches.main[-2].proposal.is_copied is False
        stream.settle((VERSE * 3)[:LONGEST_COPY])
        assert len(stream.main) == 1

    virtual_time.run(work())
