"""How far a person has read of a text that is still being written and taken back. Time is handed in. Pure.

The reader is a model, not a person: reading starts when the first text is visible, goes on at ``WORDS_PER_MINUTE`` and never
ahead of what is visible; where text is withdrawn the reader goes back to its end, and time spent waiting there is not made up
for. A withdrawn token was read where the reader had passed its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.events import SHOWN, Event, RevokeEvent

WORDS_PER_MINUTE = 238
"""Silent reading of English non-fiction, adults: Brysbaert 2019, "How many words do we read per minute?", 190 studies."""

CODE_POINTS_PER_WORD = 6
"""Five letters and a space: the standard word of reading research (Carver 1976). An assumption for any other language."""

CODE_POINTS_PER_S = WORDS_PER_MINUTE * CODE_POINTS_PER_WORD / 60


class Reader:
    """Follows what is visible, as ``follow`` is told. Positions are code points of the visible text."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        """Of each visible token, where its text ends."""
        self._visible = 0
        self._position = 0.0
        self._now_s = 0.0
        self.num_revoked_after_read = 0

    def follow(self, events: Sequence[Event], now_s: float) -> None:
        """What happens to the visible text at ``now_s``, seconds of a clock that never goes back."""
        self._position = min(self._visible, self._position + CODE_POINTS_PER_S * (now_s - self._now_s))
        self._now_s = now_s
        for event in events:
            if isinstance(event, SHOWN):
                self._visible += len(event.text)
                self._ends.extend([self._visible] * len(event.token_ids))
            elif isinstance(event, RevokeEvent):
                self._withdraw(event.count)

    def _withdraw(self, count: int) -> None:
        kept = len(self._ends) - count
        begins = [self._ends[index - 1] if index else 0 for index in range(kept, len(self._ends))]
        self.num_revoked_after_read += sum(begin < self._position for begin in begins)
        self._visible = begins[0]
        self._position = min(self._position, self._visible)
        del self._ends[kept:]
