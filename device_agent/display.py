"""What a client is shown: from drafted and final tokens to events. Pure.

The law, property-tested in ``tests/device_agent/test_display.py``: a client that follows the events ends with exactly the
final text; the commit offset never goes back; nothing final is withdrawn; ``seq`` has no gap. A ``speculative`` event carries
one token, so that a ``revoke`` never has to split a text. Order within one step: revoke, commit, correct, speculative.

Which drafts are shown is the business of ``stability.py``; ``all`` is its lowest bar.

Stop strings are judged on final text. Final tokens whose text may yet turn out to begin a stop string stay uncommitted: with
reveal ``all`` they are shown as tentative, with ``final`` not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_agent.answer import Answer, Decode
from device_agent.events import CommitEvent, CommitOffset, CorrectEvent, Event, RevokeEvent, SpeculativeEvent
from device_agent.logprobs import FinalLikelihood, Spelling
from device_agent.request import Reveal
from device_agent.stability import Stability, running
from speculation.logprobs import TokenLogprobs
from speculation.text import StopStrings

CONTRADICTED = "contradicted"
ENDED = "ended"
STOPPED = "stop"
UNSTABLE = "unstable"


class Display:
    """One answer as its client sees it.

    ``start`` is the position of the first generated token; ``numbers`` gives out ``seq``. The answer holds first the final
    tokens, then the drafts; shown is a beginning of it, committed a beginning of what is final. With a ``spelling`` what is
    committed is told with its log probabilities.

    ``is_weighing``: what is thought of drafts decides whether they are shown. ``is_stopped``: a stop string was found, the
    answer ends before it and nothing more may be added.
    """

    def __init__(
        self,
        start: int,
        decode: Decode,
        numbers: Iterator[int],
        reveal: Reveal = Reveal.ALL,
        min_stability: float = 0.0,
        stops: Sequence[str] = (),
        spelling: Spelling | None = None,
    ) -> None:
        self._start = start
        self._numbers = numbers
        self._reveal = reveal
        self.is_weighing = reveal is Reveal.STABLE
        self._stability = Stability(min_stability if self.is_weighing else 0.0)
        self._stops = StopStrings(stops) if stops else None
        self._answer = Answer(decode)
        self._spelling = spelling
        self._logprobs: list[TokenLogprobs] = []
        self._confidences: list[float] = []
        self._num_final = 0
        self._num_shown = 0
        self._num_committed = 0
        self._added_text = ""
        self._is_alone = False
        self.is_stopped = False

    @property
    def num_final(self) -> int:
        """Generated tokens that are final, and part of the answer."""
        return self._num_final

    @property
    def num_drafts(self) -> int:
        """Tokens behind the final ones, shown or held."""
        return len(self._confidences)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The answer's tokens: final ones, then those that are shown without being final."""
        return self._answer.token_ids(0, max(self._num_final, self._num_shown))

    @property
    def text(self) -> str:
        return self._answer.text(0, max(self._num_final, self._num_shown)) + self._added_text

    @property
    def is_holding(self) -> bool:
        """Whether something drafted is here and not shown."""
        return self._num_shown < len(self._answer)

    def drafted(self, token_id: int, confidence: float) -> list[Event]:
        """A token was drafted behind all that are here; ``confidence`` (0 to 1) is the draft's own, given those before it."""
        if self.is_stopped:
            return []
        self._answer.extend((token_id,))
        self._confidences.append(confidence)
        return self._judge(len(self._answer))[1] + self._reveal_more() if self._is_alone else self._reveal_more()

    def reassessed(self, confidences: Sequence[float]) -> list[Event]:
        """What is now thought of the drafts that are not final, each given those before it; what became too unlikely is
        hidden, and shown again once it is likely enough.

        Raises ``ValueError`` unless there is one for each of ``num_drafts``.
        """
        if len(confidences) != len(self._confidences):
            raise ValueError(f"{len(confidences)} confidences for {len(self._confidences)} drafts")
        self._confidences = list(confidences)
        return [] if self.is_stopped else self._reveal_more()

    def finalised(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs] = ()) -> list[Event]:
        """The next tokens became final, whatever was drafted in their places; ``logprobs`` has one for each, or is empty."""
        if self.is_stopped:
            return []
        agreed, events = self._compare(token_ids) if self._confidences else (0, [])
        self._answer.extend(token_ids[agreed:])
        self._num_final += len(token_ids)
        self._logprobs += logprobs
        del self._confidences[: len(token_ids)]
        num_settled, withdrawn = self._judge(self._num_final)
        events += withdrawn + self._settle(num_settled)
        return events if self.is_stopped else events + self._reveal_more()

    def go_alone(self) -> list[Event]:
        """No more verdicts: from here on stop strings are judged on drafts too, those that are here first."""
        self._is_alone = True
        return self._judge(len(self._answer))[1] + self._reveal_more()

    def come_back(self) -> None:
        """Verdicts come again: stop strings are judged on final text."""
        self._is_alone = False

    def finish(self, max_drafts: int) -> list[Event]:
        """Nothing more will come: commit what is final, keep at most so many of the drafts shown, let go of held-back bytes."""
        keep = max(self._num_final, min(self._num_shown, self._num_final + max_drafts))
        events = self._withdraw(keep, ENDED)
        if not self.is_stopped:
            events += self._judge(keep, is_end=True)[1] + self._reveal_more()
        events += self._settle(self._num_final)
        return events if self.is_stopped else events + self._add_held_back()

    def _compare(self, token_ids: Sequence[int]) -> tuple[int, list[Event]]:
        """How many of the newly final tokens were drafted in their places; the drafts behind the first that was not go, and
        what shows is judged by it."""
        limit = min(len(token_ids), self.num_drafts)
        agreed = 0
        while agreed < limit and self._answer.token_id(self._num_final + agreed) == token_ids[agreed]:
            agreed += 1
        num_revoked = max(0, self._num_shown - self._num_final - agreed)
        self._stability.compared(agreed, agreed < limit, num_revoked)
        return agreed, self._withdraw(self._num_final + agreed, CONTRADICTED) if agreed < limit else []

    def _withdraw(self, count: int, reason: str) -> list[Event]:
        """Keep the first ``count`` tokens of the answer; tell of those that had been shown."""
        self._keep(count)
        lost = self._num_shown - count
        if lost <= 0:
            return []
        self._num_shown = count
        return [RevokeEvent(next(self._numbers), self._start + count, lost, reason)]

    def _keep(self, count: int) -> None:
        self._answer.cut(count)
        del self._confidences[max(0, count - self._num_final) :]

    def _settle(self, count: int) -> list[Event]:
        """Commit final tokens up to ``count``: those shown by a commit, the others by putting them there."""
        events: list[Event] = []
        shown = min(count, self._num_shown)
        if shown > self._num_committed:
            first, self._num_committed = self._num_committed, shown
            told = self._told(first, shown)
            events.append(CommitEvent(next(self._numbers), self._start + first, shown - first, self._offset(), told))
        if count > self._num_shown:
            first, self._num_shown, self._num_committed = self._num_shown, count, count
            token_ids, text = self._answer.token_ids(first, count), self._answer.text(first, count)
            told = self._told(first, count)
            events.append(CorrectEvent(next(self._numbers), self._start + first, token_ids, text, self._offset(), told))
        return events

    def _told(self, start: int, stop: int) -> tuple[FinalLikelihood, ...] | None:
        """Log probabilities of tokens that become committed; None where nobody asked."""
        if self._spelling is None:
            return None
        answer, spell = self._answer, self._spelling.final
        indexes = range(start, stop)
        return tuple([spell(answer.token_id(n), self._logprobs[n], answer.code_points(n)) for n in indexes])

    def _offset(self) -> CommitOffset:
        return CommitOffset(self._num_committed, self._answer.code_points(self._num_committed))

    def _reveal_more(self) -> list[Event]:
        if (not self._confidences and self._num_shown == self._num_final) or self._reveal is Reveal.FINAL:
            return []
        reach = self._num_final + self._stability.reach(self._confidences, self._num_shown - self._num_final)
        events = self._hide(reach, UNSTABLE)
        stabilities = list(running(self._confidences))
        for index in range(self._num_shown, reach):
            is_final = index < self._num_final
            events.append(self._speculative(index, 1.0 if is_final else stabilities[index - self._num_final]))
            self._num_shown = index + 1
        return events

    def _speculative(self, index: int, stability: float) -> SpeculativeEvent:
        piece = self._answer.text(index, index + 1)
        token_ids = (self._answer.token_id(index),)
        return SpeculativeEvent(next(self._numbers), self._start + index, token_ids, piece, round(stability, 4))

    def _judge(self, count: int, is_end: bool = False) -> tuple[int, list[Event]]:
        """Look for stop strings in what the first ``count`` tokens have added since the last commit.

        Returns how many tokens are settled, and what a stop string made to be withdrawn. A match is certain once none that
        began before it can still be completed, or at the end of all text: so it never matters in which pieces tokens came.
        """
        if self._stops is None:
            return count, []
        text = self._answer.text(self._num_committed, count)
        found, num_open = self._stops.find(text), 0 if is_end else self._stops.held_back(text)
        before = self._answer.code_points(self._num_committed)
        if found is not None and found <= len(text) - num_open:
            events = self._cut(before + found)
            return self._num_final, events
        settled = before + len(text) - num_open
        return min(count, self._answer.tokens_within(settled, self._num_committed)), []

    def _cut(self, code_points: int) -> list[Event]:
        """End the answer behind so much text, even in the middle of a token."""
        self.is_stopped = True
        kept = self._answer.tokens_reaching(code_points, self._num_committed)
        is_split = self._answer.code_points(kept) > code_points
        events = self._hide(kept - 1 if is_split else kept, STOPPED)
        self._keep(kept)
        if is_split:
            self._answer.shorten(code_points)
        self._num_final = min(self._num_final, kept)
        return events

    def _hide(self, count: int, reason: str) -> list[Event]:
        """Withdraw what is shown from token ``count`` on; the tokens stay."""
        lost = self._num_shown - count
        if lost <= 0:
            return []
        self._num_shown = count
        return [RevokeEvent(next(self._numbers), self._start + count, lost, reason)]

    def _add_held_back(self) -> list[Event]:
        """Incomplete characters leave as replacement characters, in a last event without tokens."""
        self._added_text = self._answer.held_back()
        if not self._added_text:
            return []
        count = len(self._answer)
        if count > self._num_final:
            return [SpeculativeEvent(next(self._numbers), self._start + count, (), self._added_text, 0.0)]
        offset = CommitOffset(count, self._answer.code_points(count) + len(self._added_text))
        told = self._told(count, count)
        return [CorrectEvent(next(self._numbers), self._start + count, (), self._added_text, offset, told)]
