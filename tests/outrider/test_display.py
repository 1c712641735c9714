"""Where a terminal is, text changes in place; elsewhere lines are only added."""

import io

from rich.console import Console

from device_agent.events import (
    CommitEvent,
    CommitOffset,
    CorrectEvent,
    DoneEvent,
    Reason,
    RevokeEvent,
    SpeculativeEvent,
    StateEvent,
)
from outrider.display import PROMPT, REVOKED, TENTATIVE, WORDS, LineView, LiveView, TextView
from outrider.transcript import Transcript

OFFSET = CommitOffset(0, 0)
STEPS = [
    SpeculativeEvent(0, 10, (1,), "The", 0.9),
    SpeculativeEvent(1, 11, (2,), " fast", 0.9),
    SpeculativeEvent(2, 12, (3,), " fox", 0.9),
    CommitEvent(3, 10, 1, OFFSET),
    RevokeEvent(4, 11, 2, "contradicted"),
    CorrectEvent(5, 11, (4,), " slow", OFFSET),
    SpeculativeEvent(6, 12, (5,), " ox", 0.9),
]
DONE = DoneEvent(7, "length", (0,), (1, 4, 5), "The slow ox", 2, {}, {})


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def follow(view, events):
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
        view.show(event, transcript)


def styled(text):
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]


def lines_of(events, clock=None):
    console = Console(file=io.StringIO(), width=200)
    with LineView(console, clock or Clock()) as view:
        follow(view, events)
    return console.file.getvalue().splitlines()


def test_final_text_is_plain_tentative_text_grey_and_revoked_text_struck():
    view = LiveView(Console(file=io.StringIO()), Clock())
    follow(view, STEPS)
    text = view.render()
    assert text.plain == "The fast fox slow ox"
    assert styled(text) == [(" fast fox", REVOKED), (" ox", TENTATIVE)]


def test_revoked_text_disappears_after_a_moment():
    clock = Clock()
    view = LiveView(Console(file=io.StringIO()), clock)
    follow(view, STEPS)
    clock.now_s += 1
    assert view.render().plain == "The slow ox"


def test_a_model_cannot_steer_the_terminal():
    view = LiveView(Console(file=io.StringIO()), Clock())
    follow(view, [SpeculativeEvent(0, 10, (1,), "a\x1b[2J\r\n\tb\x9b", 0.9)])
    assert view.render().plain == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\n\tb\N{REPLACEMENT CHARACTER}"


def test_the_answer_goes_on_from_the_end_of_the_prompt():
    view = LiveView(Console(file=io.StringIO()), Clock(), before="It was")
    follow(view, STEPS)
    text = view.render()
    assert text.plain == "It wasThe fast fox slow ox"
    assert styled(text) == [("It was", PROMPT), (" fast fox", REVOKED), (" ox", TENTATIVE)]


def test_final_lines_are_printed_once_and_only_the_rest_is_drawn_again():
    lines = [CorrectEvent(seq, 10 + seq, (seq,), f"line {seq}\n\n", OFFSET) for seq in range(40)]
    rest = [CorrectEvent(40, 50, (40,), "the", OFFSET), SpeculativeEvent(41, 51, (41,), " rest", 0.9)]
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=10, color_system=None)
    clock = Clock()
    with LiveView(console, clock, before="> ") as view:
        follow(view, [*lines[:2], RevokeEvent(2, 12, 0, "ended"), *lines[2:], *rest])
        assert view.render().plain == "the rest"
    printed = console.file.getvalue()
    assert [printed.count(f"line {seq}\n") for seq in range(40)] == [1] * 40
    assert ">" not in printed.partition("> line 0")[2]


def test_revoked_text_is_struck_behind_what_was_printed_already():
    line = CorrectEvent(0, 10, (1,), "one\ntwo", OFFSET)
    steps = [line, SpeculativeEvent(1, 11, (2,), " fast", 0.9), RevokeEvent(2, 11, 1, "contradicted")]
    view = LiveView(Console(file=io.StringIO()), Clock())
    follow(view, steps)
    assert (view.render().plain, styled(view.render())) == ("two fast", [(" fast", REVOKED)])
    transcript = Transcript()
    for event in [*steps, CorrectEvent(3, 11, (3,), "\n\nthree", OFFSET)]:
        transcript.apply(event)
    view.show(CorrectEvent(3, 11, (3,), "\n\nthree", OFFSET), transcript)
    assert view.render().plain == "three"


def test_on_a_terminal_a_state_says_what_it_means_and_that_all_is_well_is_not_said():
    console = Console(file=io.StringIO(), width=200)
    view = LiveView(console, Clock())
    states = [StateEvent(0, "collaborate", "link", 61.5), StateEvent(1, "device", "offline"), StateEvent(2, "device", "news")]
    follow(view, [*states, StateEvent(3, "collaborate", "throttling", None, "SEVERE")])
    alone, other, hot = console.file.getvalue().splitlines()
    assert alone.startswith("no verifier: the phone writes on alone")
    assert other == "device: news"
    assert hot == "the phone changes its speed (thermal status SEVERE)"


def test_a_state_that_an_agent_made_up_steers_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=200)
    with LiveView(console, Clock()) as view:
        follow(view, [StateEvent(0, "device", "\x9b2Jnews"), StateEvent(1, "device", "throttling", None, "\x1b]0;hot\x07")])
    said = console.file.getvalue()
    assert "device: \ufffd2Jnews" in said
    assert "(thermal status \ufffd]0;hot\ufffd)" in said


def test_every_reason_of_a_state_has_words():
    assert WORDS.keys() == set(Reason)


def test_the_terminal_keeps_the_text_when_the_view_closes():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with LiveView(console, Clock()) as view:
        follow(view, STEPS)
    assert "The slow" in console.file.getvalue().splitlines()[-1]


def test_every_step_becomes_a_line_and_drafts_gather_in_one():
    said = [line.split("s  ", 1)[1].split(None, 1) for line in lines_of(STEPS)]
    assert said == [
        ["draft", "'The fast fox'"],
        ["final", "'The'"],
        ["revoked", "' fast fox'"],
        ["correct", "' slow'"],
        ["draft", "' ox'"],
    ]


def test_lines_tell_the_seconds_since_the_view_opened():
    clock = Clock()
    console = Console(file=io.StringIO(), width=200)
    with LineView(console, clock) as view:
        clock.now_s += 1.25
        follow(view, STEPS[:4])
    assert [line.split()[0] for line in console.file.getvalue().splitlines()] == ["1.250", "1.250"]


def test_a_state_is_a_line_of_its_own():
    assert lines_of([StateEvent(0, "device", "the verifier is gone")])[0].endswith("'device: the verifier is gone'")
    hot = StateEvent(0, "collaborate", "throttling", None, "SEVERE")
    assert lines_of([hot])[0].endswith("'collaborate: throttling, the phone is SEVERE'")


def test_a_pipe_gets_final_text_and_the_unverified_tail_at_the_end():
    file = io.StringIO()
    with TextView(file) as view:
        follow(view, STEPS)
        before = file.getvalue()
        follow(view, [DONE])
    assert before == "The slow"
    assert file.getvalue() == "The slow ox\n"
