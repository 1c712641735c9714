"""Whether drafts are worth their messages now, found by trying both. Pure.

A draft costs its row of a pass, which is priced (``scheduling.py``), and its message, which costs the loop, the interpreter and
the machine something that no price holds. Where a session's drafts give it little more than one token a pass, as beside many
sessions whose choices are drawn, messages can cost more than drafts bring. So now and then the other way is tried for some
passes, and kept if it makes more tokens a second than both the passes before it and those of a second look at the old way
behind it: a machine that is quicker for a while would else look like a gain. Each trial in vain doubles the time to the next,
up to ``LONGEST`` times the first; another number of sessions begins anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import fmean, median

FEWEST_SESSIONS = 8
"""With fewer sessions messages cost little, and nothing is tried."""

MANY_TOKENS = 2.0
"""Where a session gets so many tokens a pass, drafts are worth their messages, and nothing is tried."""

SETTLING = 4
"""Passes after a change that tell nothing: drafts and verdicts on their way are still of the other way."""

TRIAL, FEWEST_COMPARED = 384, 16
"""A session's part of a pass is a turn. So many turns of each way are compared, in so many passes at least: many sessions'
passes are long, and each of them tells more."""

SHORTEST, FEWEST_BETWEEN = 1024, 16
"""Turns before the first trial, and passes at least."""

KEPT, LONGEST = 12, 32
"""So many times as long is the time to the next trial where one changed the way: the old way has just been seen to be worse.
So many times as long is the longest time between two trials."""

GAIN = 1.03
"""So much more must a way make that was tried, than the old one makes when it is looked at again, to be kept. At the first look
more is enough: few passes tell small gains badly, and a second look costs little."""

LOSS = 0.9
"""A trial that makes less than this share of what the other way made is over at half its passes."""

MOST_READING = 0.1
"""Passes in which more of the sessions than this share make no token, since their prompts are read, tell nothing: how much is
read differs from pass to pass by more than the two ways do."""

OTHER_LOAD = 1.5
"""By this factor more or fewer sessions are another load, of which nothing is known."""


class Holding:
    """Tell it of every pass, and let devices withhold their drafts while ``is_on``.

    Where it is not allowed, as under a clock that messages cost nothing by, nothing is tried.
    """

    def __init__(self, is_allowed: bool = True) -> None:
        self.is_on = False
        self._is_allowed = is_allowed
        self._latest: deque[tuple[int, float]] = deque()
        self._begin_anew(0)

    def passed(self, made: Sequence[int], since_s: float | None) -> None:
        """A pass made so many tokens final for each session, so long after the pass that it followed at once, if it did."""
        if not self._is_allowed:
            return
        num_sessions = len(made)
        if num_sessions < FEWEST_SESSIONS:
            self.is_on = False
            if num_sessions != self._load:
                self._begin_anew(num_sessions)
            return
        if since_s is None:
            return
        if not self._load / OTHER_LOAD <= num_sessions <= self._load * OTHER_LOAD:
            self._begin_anew(num_sessions)
        if made.count(0) > MOST_READING * num_sessions:
            return
        self._num_passes += 1
        if self._before is None or self._num_passes > SETTLING:
            self._note(sum(made), since_s)
        if self._before is not None and self._is_trial_over(self._before):
            self._judge(self._before)
        elif self._before is None and self._num_passes >= self._wait and num_sessions >= FEWEST_SESSIONS:
            self._try(num_sessions)

    def _begin_anew(self, num_sessions: int) -> None:
        self._load = num_sessions
        turns = max(num_sessions, FEWEST_SESSIONS)
        self._num_compared = max(-(-TRIAL // turns), FEWEST_COMPARED)
        self._wait = self._first_wait = max(-(-SHORTEST // turns), FEWEST_BETWEEN)
        self._before: float | None = None  # the old way's rate, while a trial is under way
        self._tried: float | None = None  # the new way's, while the old one is looked at again
        self._restart()

    def _note(self, num_tokens: int, since_s: float) -> None:
        self._latest.append((num_tokens, since_s))
        if len(self._latest) > self._num_compared:
            self._latest.popleft()

    def _restart(self) -> None:
        self._num_passes = 0
        self._latest.clear()

    def _try(self, num_sessions: int) -> None:
        num_tokens = sum(tokens for tokens, _ in self._latest)
        if not self.is_on and num_tokens >= MANY_TOKENS * num_sessions * len(self._latest):
            self._restart()
            return
        self._before = self._rate()
        self.is_on = not self.is_on
        self._restart()

    def _is_trial_over(self, before: float) -> bool:
        num_tried = self._num_passes - SETTLING
        is_half = num_tried == self._num_compared // 2
        return num_tried == self._num_compared or (self._tried is None and is_half and self._rate() < LOSS * before)

    def _judge(self, before: float) -> None:
        rate = self._rate()
        if self._tried is None:
            self.is_on = not self.is_on
            if rate > before:
                self._tried = rate
            else:
                self._end_trial(2 * self._wait)
        elif self._tried > rate * GAIN:
            self.is_on = not self.is_on
            self._end_trial(KEPT * self._first_wait)
        else:
            self._end_trial(2 * self._wait)
        self._restart()

    def _end_trial(self, wait: int) -> None:
        self._wait = min(wait, LONGEST * self._first_wait)
        self._before = self._tried = None

    def _rate(self) -> float:
        """Tokens a second of the latest passes, by the middle one of their times: a few are long for reasons of their own."""
        if not self._latest:
            return 0.0
        return fmean(tokens for tokens, _ in self._latest) / max(median(seconds for _, seconds in self._latest), 1e-9)
