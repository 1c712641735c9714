"""How long a session is waited for: whether it may run now, and when it may if not. Pure: times are arguments, in seconds.

The law: whoever can run runs at the latest when its patience is over, counted from its last verdict; with patience 0 nobody
ever waits. Before a session's first choice nobody waits either: its prompt has to be run anyway and the last row of it chooses
for nothing, so to wait there would cost a pass more and save none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

AUTO: Literal["auto"] = "auto"
NEVER: Literal["never"] = "never"
LONGEST_S = 2.0
"""How long at most a session is waited for; what ``never`` means where no ``pass`` flag comes."""
PASS_WEIGHT = 1 / 8
"""Weight of the newest pass in the mean of what a pass takes: a long prefill counts, but does not rule."""

PatienceSetting = Literal["auto", "never"] | float
"""``auto``, ``never``, or milliseconds."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a session has to be judged by. ``since_s`` is the time of its last verdict, None before the first.

    ``num_drafts`` are the nodes of its likeliest chain; ``may_grow``: a node that comes later could still lengthen it.
    ``has_passed``: the device said that nothing more will come. ``is_silent``: the device never sent a node and was waited for
    in vain once, like one that wants to be decoded alone, or closed its sending side; it is not waited for again.
    """

    since_s: float | None
    num_drafts: int
    may_grow: bool
    has_passed: bool
    is_silent: bool


def ready_s(waiting: Waiting, patience_s: float, gather: int) -> float:
    """The time from which the session may run: 0 where there is nothing to wait for."""
    if waiting.since_s is None or has_enough(waiting, gather):
        return 0.0
    return waiting.since_s + patience_s


def has_enough(waiting: Waiting, gather: int) -> bool:
    """Whether to wait longer would bring nothing that is wanted."""
    is_answered = waiting.has_passed or not waiting.may_grow or waiting.is_silent
    return is_answered or waiting.num_drafts >= gather


def auto_patience_s(num_running: int, num_refused: int, capacity: int, pass_s: float) -> float:
    """Patience by load: 0 while there is room for all who want to run, then so much of a pass as more want to run than fit.

    Below ``capacity`` running sessions a row that is left empty is a row wasted, and so it is on a full server that turned
    nobody away. Beyond, ``num_refused`` sessions would use what is saved: who has no drafts sits out a pass and leaves its row
    to those who get more tokens out of one. One session alone has nobody to make room for.
    """
    if num_running < max(capacity, 2):
        return 0.0
    return min(LONGEST_S, pass_s * num_refused / capacity)


class Policy:
    """The patience that holds now, from the setting and from what was seen of the load.

    ``refusals_s``: for how long a session that was turned away counts as one that wants to run. At most ``capacity`` of them
    count, so a flood of requests costs neither memory nor more patience than a pass takes.
    """

    def __init__(self, setting: PatienceSetting, gather: int, capacity: int, refusals_s: float) -> None:
        self.gather = gather
        self.change(setting)
        self._capacity = capacity
        self._refusals_s = refusals_s
        self._refused_s: deque[float] = deque(maxlen=capacity)
        self._pass_s: float | None = None

    def change(self, setting: PatienceSetting) -> None:
        """Another patience from now on."""
        self.setting = setting
        self._fixed_s = _fixed_s(setting)

    def passed(self, took_s: float) -> None:
        """A pass took so long."""
        mean_s = took_s if self._pass_s is None else self._pass_s
        self._pass_s = mean_s + PASS_WEIGHT * (took_s - mean_s)

    def refused(self, now_s: float) -> None:
        """A session was turned away, for want of room."""
        self._refused_s.append(now_s)

    def patience_s(self, num_running: int, now_s: float, num_waiting: int = 0) -> float:
        """Seconds, while ``num_running`` sessions run and ``num_waiting`` would, if there were room."""
        if self._fixed_s is not None:
            return self._fixed_s
        if num_running < self._capacity:
            return 0.0  # most of the time
        while self._refused_s and self._refused_s[0] + self._refusals_s <= now_s:
            self._refused_s.popleft()
        return auto_patience_s(num_running, num_waiting + len(self._refused_s), self._capacity, self._pass_s or 0.0)


def _fixed_s(setting: PatienceSetting) -> float | None:
    """The patience in seconds where it does not go by load."""
    if setting == AUTO:
        return None
    return LONGEST_S if setting == NEVER else setting / 1000
