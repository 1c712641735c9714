"""What hides the sizes and the times of a stream's messages from who watches the line; ``docs/protocol.md`` says what it hides.

Bounds are for who is asked: a small request must not make the other end send much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_PAD_BYTES, MOST_PAD_BYTES = 32, 4096
LEAST_TICK_MS, MOST_TICK_MS = 10, 1000
MOST_BYTES_PER_S = 128 * 1024
"""Of a stream that is nothing but padding, each way."""

_NEARLY = 1e-6
"""Share of a tick by which a clock may be early on one."""


@dataclass(frozen=True, slots=True)
class Cover:
    """``pad_bytes``: every message is padded to a multiple of so many; 0 is off. ``tick_ms``: messages leave on a tick of so
    many milliseconds, one on each, and where nothing is to be said one that says nothing; 0 is off."""

    pad_bytes: int = 0
    tick_ms: int = 0

    @property
    def fault(self) -> str | None:
        """Why this cannot be had, in words that say what can; None where it can."""
        if self.pad_bytes and not LEAST_PAD_BYTES <= self.pad_bytes <= MOST_PAD_BYTES:
            return f"pad_bytes must be 0, or {LEAST_PAD_BYTES} to {MOST_PAD_BYTES} (got {self.pad_bytes})"
        if self.tick_ms and not LEAST_TICK_MS <= self.tick_ms <= MOST_TICK_MS:
            return f"tick_ms must be 0, or {LEAST_TICK_MS} to {MOST_TICK_MS} (got {self.tick_ms})"
        if self.tick_ms and 1000 * self.pad_bytes > MOST_BYTES_PER_S * self.tick_ms:
            least_ms = math.ceil(1000 * self.pad_bytes / MOST_BYTES_PER_S)
            return f"pad_bytes {self.pad_bytes} every {self.tick_ms} ms is too much: tick_ms must be at least {least_ms}"
        return None

    def with_least(self, least: Cover) -> Cover:
        """The larger padding and the longer tick of both."""
        return Cover(max(self.pad_bytes, least.pad_bytes), max(self.tick_ms, least.tick_ms))

    def next_tick_s(self, began_s: float, now_s: float) -> float:
        """The first tick after ``now_s``, of those that began at ``began_s``; seconds of one clock. Needs ``tick_ms``."""
        tick_s = self.tick_ms / 1000
        return began_s + tick_s * (math.floor((now_s - began_s) / tick_s + _NEARLY) + 1)


UNCOVERED = Cover()
