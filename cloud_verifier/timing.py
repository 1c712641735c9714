"""What a verdict tells a device that asked: how long its pass took, and since when its drafts were there. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from speculation.protocol.messages import MAX_WIRE_NUMBER, DeviceMessage, Draft, Timing, Verdict

MOST_KEPT = 1024
"""Messages whose times are kept. Dead nodes need no credit, so there may be any number of messages that no verdict settles; a
device of the usual credit has no more than a quarter of these with a node that lives."""


class Arrivals:
    """When the nodes of one stream came; of those that are settled it knows nothing. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._came: deque[tuple[int, float]] = deque()
        self._last_forgotten = 0

    def note(self, message: DeviceMessage, now_s: float) -> None:
        """A message came that the session took. One without a new node tells nothing."""
        if not isinstance(message, Draft) or not message.nodes:
            return
        last_node = message.nodes[-1].number
        if not self._came or last_node > self._came[-1][0]:
            self._came.append((last_node, now_s))
        if len(self._came) > MOST_KEPT:
            self._last_forgotten, _ = self._came.popleft()

    def timed(self, verdicts: Sequence[Verdict], rows: int, began_s: float, now_s: float) -> list[Verdict]:
        """The verdicts of one pass, the last with the times."""
        *others, last = verdicts
        came_s = self._when_came(last.last_node)
        held_us = None if came_s is None else _microseconds(now_s - came_s)
        return [*others, replace(last, timing=Timing(_microseconds(now_s - began_s), rows, held_us))]

    def _when_came(self, node: int) -> float | None:
        if node <= self._last_forgotten:  # or none at all
            return None
        while self._came and self._came[0][0] < node:
            self._came.popleft()
        return self._came[0][1] if self._came else None


def _microseconds(seconds: float) -> int:
    return min(max(0, round(seconds * 1e6)), MAX_WIRE_NUMBER)
