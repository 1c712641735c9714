"""When drafts are sent: as late as the verifier's next pass can still use them. Pure; times are arguments, in seconds.

A pass begins when the one before ends, and a draft that arrives while a pass runs waits for the next. So drafts are held back
until they must leave to be there when the next pass begins, and share one message: the same tokens a second for a fraction of
the bytes. Where nothing is known yet, or the estimate is off, a draft leaves a little early, or catches the pass after.

A verifier may also wait for drafts. Then a pass begins when they arrive, and nothing is held back. The device sees it: a pass
that checked a node began after the node's arrival; where that leaves less time to it than lies between its verdict and the one
before, the verifier stood idle in between.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median_low

MARGIN_SHARE = 0.05
"""Drafts leave so much of a pass earlier than the estimate says, and by half of what verdicts come unevenly."""

MOST_EARLY_SHARE = 0.1
"""But no earlier than so much of a pass. In that time nothing is held back: every draft step is a message of its own."""

WINDOW = 8
"""Verdicts whose intervals count."""

FORGETTING = 0.01
"""Share of what a late draft added to the estimate that every verdict takes off again."""

IDLE_SHARE = 0.1
"""A verifier was idle where it was so for more than this share of the time between two verdicts: less may be the network."""

IDLE_WINDOW = 32
"""Verdicts for which it counts that a verifier was seen idle."""

SHORTEST_PASS_S = 0.01
"""Below, nothing is held back: an event loop's timers are a millisecond coarse."""

SAME_S = 1e-6
"""Moments that differ by less are the same: they are sums of floats, and what is only just in time must not be held back."""


class Schedule:
    """The verifier's passes as one stream sees them: verdicts come a pass apart, and each left half a round trip ago.

    ``pass_s`` is the middle one of the last times between verdicts (neither one that waited nor two that came together count),
    None before there are any.
    """

    def __init__(self) -> None:
        self._pass_s: float | None = None
        self._verdict_s: float | None = None
        self._sent_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=WINDOW)
        self._round_trip_s: float | None = None
        self._soonest_answer_s = math.inf
        self._delay_s = 0.0
        self._sent: deque[tuple[int, float]] = deque()
        self._num_since_idle = IDLE_WINDOW

    @property
    def pass_s(self) -> float | None:
        if self._pass_s is None and self._intervals_s:
            self._pass_s = median_low(self._intervals_s)
        return self._pass_s

    @property
    def is_waited_for(self) -> bool:
        """Whether the verifier has been seen idle lately: it waits for drafts."""
        return self._num_since_idle < IDLE_WINDOW

    def lag(self, step_s: float) -> int | None:
        """Passes that begin between one that ends and the arrival of the first draft made with its verdict at hand.

        0 beside a verifier that waits. None where nothing is known, or passes are too short for it to be told.
        """
        pass_s = self.pass_s
        if pass_s is None or pass_s < SHORTEST_PASS_S or self._round_trip_s is None:
            return None
        if self.is_waited_for:
            return 0
        return math.ceil((step_s + self._round_trip_s + self._delay_s - SAME_S) / pass_s)

    def is_outrun(self, num_tokens: int) -> bool:
        """Whether so many tokens ahead of the final log would be final before they came, a token a pass: sent for nothing.

        A handshake that had to wait for a processor took longer than the network; a node that was taken tells better.
        """
        if self.is_waited_for or self.pass_s is None or self._round_trip_s is None:
            return False
        return num_tokens * self.pass_s <= min(self._round_trip_s, self._soonest_answer_s)

    def opened(self, round_trip_s: float) -> None:
        """A new stream: nothing of an older one holds. What was sent before is this one's: the initial credit."""
        self._verdict_s = self._sent_s = self._pass_s = None
        self._intervals_s.clear()
        self._round_trip_s, self._delay_s = round_trip_s, 0.0
        self._soonest_answer_s = math.inf
        self._num_since_idle = IDLE_WINDOW

    def sent(self, now_s: float, last_node: int) -> None:
        """Drafts left the device, up to this number; every stream counts from 1 again."""
        if self._sent and last_node <= self._sent[-1][0]:
            self._sent.clear()
        self._sent_s = now_s
        self._sent.append((last_node, now_s))

    def verdict(self, now_s: float, is_bare: bool, is_overtaken: bool, last_node: int = 0) -> None:
        """A verdict came. ``is_bare``: its pass had no drafts of this stream; ``is_overtaken``: nothing sent still stands;
        ``last_node``: the number of the last node that it took, 0 where it took none.

        Drafts that left in time for that pass, by the estimate, and were not there took longer than the estimate.
        """
        sent_s = self._when_sent(last_node)
        if sent_s is not None:
            self._soonest_answer_s = min(self._soonest_answer_s, now_s - sent_s)
            self._shorten(now_s - sent_s)
        if self._verdict_s is not None:
            self._intervals_s.append(now_s - self._verdict_s)
            self._pass_s = None  # worked out where it is asked for: who only listens never does
            self._num_since_idle += 1
            if sent_s is not None and self._was_idle(now_s - sent_s, now_s - self._verdict_s):
                self._num_since_idle = 0
        self._verdict_s = now_s
        self._delay_s *= 1 - FORGETTING
        if is_bare and self._sent_s is not None and self.pass_s is not None and self._round_trip_s is not None:
            took_s = now_s - self.pass_s - self._sent_s
            if took_s >= self._round_trip_s + self._delay_s:
                self._delay_s = took_s - self._round_trip_s
        if is_overtaken or is_bare:
            self._sent_s = None

    def leave_s(self, now_s: float) -> float:
        """The moment at which drafts should leave to be there for the next pass that can still be reached.

        Close to the last moment there is no waiting at all: what is drafted then may just be in time.
        """
        # The shortest interval: who leaves too early has lost nothing.
        pass_s = min(self._intervals_s, default=0.0)
        if pass_s < SHORTEST_PASS_S or self._round_trip_s is None or self._verdict_s is None or self.is_waited_for:
            return now_s
        uneven_s = max(self._intervals_s) - min(self._intervals_s)
        early_s = min(pass_s * MARGIN_SHARE + uneven_s / 2, pass_s * MOST_EARLY_SHARE)
        last_s = self._verdict_s + pass_s - self._round_trip_s - self._delay_s
        last_s += max(0, -int((last_s - now_s + SAME_S) // pass_s)) * pass_s
        return max(now_s, last_s - early_s)

    def _when_sent(self, last_node: int) -> float | None:
        """The moment at which a node left that a verdict took; None where it took none."""
        while self._sent and self._sent[0][0] < last_node:
            self._sent.popleft()
        return self._sent[0][1] if last_node and self._sent else None

    def _shorten(self, answered_s: float) -> None:
        """A node was answered so long after it had left: a pass and the round trip, or more where it had to wait.

        A way that has become shorter shows itself where that is less by a whole pass than it should be: by less it may be
        jitter, and drafts that leave too late cost more than drafts that leave too early. What late drafts have added to the
        estimate does not count here: of that only what is left over of whole passes need be true.
        """
        pass_s = min(self._intervals_s, default=0.0)
        if pass_s >= SHORTEST_PASS_S and self._round_trip_s is not None and answered_s < self._round_trip_s:
            self._round_trip_s, self._delay_s = max(0.0, answered_s - pass_s), 0.0

    def _was_idle(self, answered_s: float, interval_s: float) -> bool:
        """Whether the verifier stood idle before the pass that took a node, which was answered so long after it had left.

        Between verdicts that come in short order nothing can be told: loops and threads take as long as would be idle.
        """
        if self._round_trip_s is None or interval_s < SHORTEST_PASS_S:
            return False
        longest_pass_s = answered_s - self._round_trip_s
        return interval_s - longest_pass_s > IDLE_SHARE * interval_s
