"""The answer as a reader sees it, kept from the events of a stream. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from device_agent.events import CommitEvent, CorrectEvent, Event, RevokeEvent, SpeculativeEvent
from speculation.errors import MalformedMessageError


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that were shown in one step."""

    position: int
    token_ids: tuple[int, ...]
    text: str

    @property
    def end(self) -> int:
        return self.position + len(self.token_ids)


class Transcript:
    """Shown text, split into what is final and what is tentative.

    ``apply`` raises ``MalformedMessageError`` when an event does not fit what is shown: the agent broke its own rules.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._final = 0
        self.revoked = ""
        self.num_revoked = 0
        self.num_speculative = 0

    def apply(self, event: Event) -> None:
        match event:
            case SpeculativeEvent():
                self._append(Segment(event.position, event.token_ids, event.text))
                self.num_speculative += len(event.token_ids)
            case CorrectEvent():
                is_behind_final = self._final == len(self._segments)
                _require(is_behind_final, f"final tokens at {event.position} behind tentative ones")
                self._append(Segment(event.position, event.token_ids, event.text))
                self._final = len(self._segments)
            case CommitEvent():
                self._commit(event.position, event.count)
            case RevokeEvent():
                self._revoke(event.position, event.count)
            case _:
                pass

    @property
    def final_text(self) -> str:
        return "".join(segment.text for segment in self._segments[: self._final])

    @property
    def tentative_text(self) -> str:
        return "".join(segment.text for segment in self._segments[self._final :])

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token for segment in self._segments for token in segment.token_ids)

    @property
    def _end(self) -> int | None:
        return self._segments[-1].end if self._segments else None

    def _append(self, segment: Segment) -> None:
        _require(self._end in (None, segment.position), f"tokens at {segment.position} behind a text that ends at {self._end}")
        self._segments.append(segment)

    def _commit(self, position: int, count: int) -> None:
        tentative = self._segments[self._final :]
        _require(
            bool(tentative) and tentative[0].position == position, f"a commit at {position}, where nothing tentative stands"
        )
        settled = list(_until(tentative, position + count))
        shown = sum(len(segment.token_ids) for segment in settled)
        _require(shown == count, f"a commit of {count} tokens from {position}, where {shown} tentative ones stand")
        self._final += len(settled)

    def _revoke(self, position: int, count: int) -> None:
        kept = self._final + sum(1 for _ in _until(self._segments[self._final :], position))
        withdrawn = self._segments[kept:]
        shown = sum(len(segment.token_ids) for segment in withdrawn)
        begins = withdrawn[0].position if withdrawn else position
        is_whole = (begins, shown) == (position, count)
        _require(is_whole, f"a revoke of {count} tokens from {position}, where {shown} tentative ones stand from {begins}")
        self.revoked = "".join(segment.text for segment in withdrawn)
        self.num_revoked += count
        del self._segments[kept:]


def _until(segments: list[Segment], position: int) -> Iterator[Segment]:
    """The segments that end at or before ``position``; one that lies across it breaks the rule that steps are undone whole."""
    for segment in segments:
        if segment.position >= position:
            return
        _require(segment.end <= position, f"a step of tokens from {segment.position} to {segment.end} is cut at {position}")
        yield segment


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedMessageError(f"the agent's stream does not fit itself: {what}")
