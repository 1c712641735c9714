"""Whether a promised rate was kept: over the whole text, and how far behind it the text ever was. Pure; times are given."""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.events import CorrectEvent, Event, RevokeEvent, SpeculativeEvent

LATE_S = 0.25
"""How far a text may be behind its rate for a while: what a voice that begins a quarter of a second later never meets. Beside a
verifier a token that is withdrawn comes again a round trip and a pass later."""

ROUNDING = 1e-9
"""A token that comes when it is due is in time, whatever is left of the moments' difference."""


def is_kept(tokens_per_s: float, achieved_per_s: float | None, late_s: float) -> bool:
    """Whether a rate was kept: the text came at that rate at least, and never was so far behind that a reader waits for it.

    Both are needed. A text that is ahead for long may stand still for seconds at the right rate; one that is late by little at
    its end had less than its rate. ``achieved_per_s`` None: there were no two tokens at different times.
    """
    is_fast_enough = achieved_per_s is None or achieved_per_s >= tokens_per_s * (1 - ROUNDING)
    return is_fast_enough and late_s <= LATE_S + ROUNDING


class Target:
    """Counts from the first token that is shown: the next is due a ``tokens_per_s``-th of a second later, and so on. A token
    that was withdrawn has not come yet."""

    def __init__(self, tokens_per_s: float) -> None:
        self.tokens_per_s = tokens_per_s
        self.late_s = 0.0
        self._first_s: float | None = None
        self._last_s = 0.0
        self._num_standing = 0

    def showed(self, events: Sequence[Event], now_s: float) -> None:
        """Events that go to the reader now."""
        for event in events:
            if isinstance(event, RevokeEvent):
                self._num_standing -= event.count
            elif isinstance(event, SpeculativeEvent | CorrectEvent) and event.token_ids:
                self._came(len(event.token_ids), now_s)

    def _came(self, count: int, now_s: float) -> None:
        if self._first_s is None:
            self._first_s = now_s
        self.late_s = max(self.late_s, now_s - self._first_s - self._num_standing / self.tokens_per_s)
        self._num_standing += count
        self._last_s = now_s

    def held(self, seconds: float) -> None:
        """It was paused for so long, which makes nothing late."""
        if self._first_s is not None:
            self._first_s += seconds
            self._last_s += seconds

    @property
    def achieved_per_s(self) -> float | None:
        """Tokens a second behind the first; None before there are two at different times."""
        if self._first_s is None or self._last_s <= self._first_s:
            return None
        return (self._num_standing - 1) / (self._last_s - self._first_s)

    @property
    def is_met(self) -> bool:
        """Whether the rate was kept."""
        return is_kept(self.tokens_per_s, self.achieved_per_s, self.late_s)
