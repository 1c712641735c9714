"""How an answer is drawn while it streams: in place on a terminal, in append-only lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from device_agent.events import CommitEvent, CorrectEvent, DoneEvent, Event, Reason, RevokeEvent, SpeculativeEvent, StateEvent
from outrider.running import harmless
from outrider.transcript import Transcript

PROMPT = "bold"
STATE = "yellow"
TENTATIVE = "bright_black"
REVOKED = "red strike"
REVOKED_FOR_S = 0.5
REFRESHES_PER_SECOND = 20
WORDS = {
    Reason.LINK: "the verifier answers",
    Reason.OFFLINE: "no verifier: the phone writes on alone, and nothing is verified until one answers",
    Reason.BUSY: "the verifier has no room: the phone writes on alone until it has",
    Reason.EXACTNESS: "the verifier's arithmetic is not exact, or another than before: the text may differ from run to run",
    Reason.PAIR: "the verifier serves another pair of models: this phone needs a newer one",
    Reason.THROTTLING: "the phone changes its speed",
    Reason.EMULATION: "another phone, network or cloud is played from here on",
    Reason.QUEUED: "as many answers as may are being written: this one waits for its place",
    Reason.STARTED: "it has its place, and begins",
    Reason.PAUSED: "paused: nothing is written until it is resumed",
    Reason.RESUMED: "the answer goes on",
}
"""What a ``state`` means to a reader."""


class View(Protocol):
    """Draws one answer. Use it as a context; ``show`` comes after the transcript has taken the event in."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, event: Event, transcript: Transcript) -> None: ...


class SilentView:
    """Draws nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def show(self, event: Event, transcript: Transcript) -> None:
        return


class TextView:
    """The text alone, as it becomes final; what was never verified comes at the end. For pipes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._printed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or self._printed:
            print(file=self._file, flush=True)

    def show(self, event: Event, transcript: Transcript) -> None:
        text = event.text if isinstance(event, DoneEvent) else transcript.final_text
        print(text[self._printed :], end="", file=self._file, flush=True)
        self._printed = max(self._printed, len(text))


class LiveView:
    """Tentative text grey, final text plain, revoked text struck for a moment. ``now_s`` is any steady clock in seconds,
    ``before`` the end of the prompt, which the answer goes on from.

    Lines that are final are printed once, and only the rest is drawn again: a terminal cannot take back what has scrolled away.
    """

    def __init__(self, console: Console, now_s: Callable[[], float] = time.monotonic, before: str = "") -> None:
        self._console = console
        self._now_s = now_s
        self._before = harmless(before)
        self._text: tuple[str, str] = ("", "")
        self._num_printed = 0
        self._revoked: tuple[int, str, float] = (0, "", 0.0)
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            vertical_overflow="visible",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()
        self._console.print(self._rest())

    def show(self, event: Event, transcript: Transcript) -> None:
        self._text = (harmless(transcript.final_text), harmless(transcript.tentative_text))
        if isinstance(event, RevokeEvent):
            shown = len(transcript.final_text) + len(transcript.tentative_text)
            self._revoked = (shown, harmless(transcript.revoked), self._now_s() + REVOKED_FOR_S)
        if isinstance(event, StateEvent) and event.reason != Reason.LINK:  # that all is well is not told in front of a text
            self._console.print(Text(_in_words(event), STATE))
        self._print_final_lines()

    def render(self) -> Text:
        """What is not printed yet, as it stands; revoked text keeps its old place, in front of what replaced it."""
        text = self._rest()
        place, revoked, until_s = self._revoked
        place -= self._num_printed
        if not revoked or place < 0 or self._now_s() >= until_s:
            return text
        place += len(self._prompt())
        return text[:place].append(revoked, REVOKED).append_text(text[place:])

    def _print_final_lines(self) -> None:
        final = self._text[0]
        end = final.rfind("\n") + 1
        if end > self._num_printed:
            lines = self._prompt().append(final[self._num_printed : end - 1])
            self._num_printed = end
            self._live.refresh()  # what stands below the lines is what was drawn last: it must not hold them, too
            self._console.print(lines)

    def _rest(self) -> Text:
        final, tentative = self._text
        return self._prompt().append(final[self._num_printed :]).append(tentative, TENTATIVE)

    def _prompt(self) -> Text:
        """The end of the prompt, as long as nothing is printed behind it."""
        return Text() if self._num_printed else Text().append(self._before, PROMPT)


class LineView:
    """One line for every step, behind the seconds since the view was opened. Drafted tokens gather until something else comes.

    For output that is no terminal: lines are only ever added.
    """

    def __init__(self, console: Console, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now_s = now_s
        self._began_s = now_s()
        self._drafted = ""
        self._drafted_at_s = 0.0
        self._num_final = 0

    def __enter__(self) -> Self:
        self._began_s = self._now_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._flush()

    def show(self, event: Event, transcript: Transcript) -> None:
        if isinstance(event, SpeculativeEvent):
            self._drafted_at_s = self._drafted_at_s if self._drafted else self._now_s()
            self._drafted += event.text
            return
        self._flush()
        match event:
            case CommitEvent():
                self._line("final", transcript.final_text[self._num_final :])
            case RevokeEvent():
                self._line("revoked", transcript.revoked)
            case CorrectEvent():
                self._line("correct", event.text)
            case StateEvent():
                self._line("state", _told(event))
            case _:
                pass
        self._num_final = len(transcript.final_text)

    def _flush(self) -> None:
        if self._drafted:
            self._line("draft", self._drafted, self._drafted_at_s)
        self._drafted = ""

    def _line(self, what: str, text: str, at_s: float | None = None) -> None:
        since_s = (self._now_s() if at_s is None else at_s) - self._began_s
        self._console.print(Text(f"{since_s:8.3f} s  {what:<8} {text!r}"), soft_wrap=True)


def is_watched(console: Console) -> bool:
    """Whether what it writes is seen as it changes. A variable that asks for colours (``FORCE_COLOR``) makes a terminal of a
    file or a pipe for rich, and none for who reads it."""
    return console.is_terminal and console.file.isatty()


def _in_words(state: StateEvent) -> str:
    thermal = "" if state.thermal is None else f" (thermal status {harmless(state.thermal)})"
    words = WORDS.get(Reason(state.reason)) if state.reason in list(Reason) else None
    return _told(state) if words is None else words + thermal


def _told(state: StateEvent) -> str:
    round_trip = "" if state.rtt_ms is None else f", {state.rtt_ms:.0f} ms to the verifier and back"
    thermal = "" if state.thermal is None else f", the phone is {state.thermal}"
    return harmless(f"{state.mode}: {state.reason}{round_trip}{thermal}")
