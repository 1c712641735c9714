"""What one stream may have of the phone: its priority and pace, whether it is held, and how long it waited for others."""

from __future__ import annotations

import asyncio
import math


class Share:
    """Of one stream; belongs to the event loop. ``tokens_per_s`` is a rate that it was promised, ``ends_s`` the moment of its
    deadline on the loop's clock, ``max_tokens`` what it may write until then. Times are the loop's.

    Its pace counts from its first token: what is promised is a reader's pace, not the first word.
    """

    def __init__(
        self, priority: int = 0, tokens_per_s: float | None = None, ends_s: float | None = None, max_tokens: int = 0
    ) -> None:
        self.priority = priority
        self.tokens_per_s = tokens_per_s
        self.waited_s = 0.0
        self.ends_s = ends_s
        self.max_tokens = max_tokens
        self._num_tokens = 0
        self._first_s: float | None = None
        self._held_s: float | None = None
        self._released = asyncio.Event()
        self._released.set()

    @property
    def is_new(self) -> bool:
        """Whether it has no token yet."""
        return self._first_s is None

    @property
    def is_held(self) -> bool:
        """Whether it takes no steps for now."""
        return self._held_s is not None

    @property
    def is_promised(self) -> bool:
        """Whether the moment at which its next token is due was promised."""
        return self.tokens_per_s is not None and self._first_s is not None

    def wrote(self, num_tokens: int, now_s: float) -> None:
        """So many tokens stand now, drafted ones included."""
        self._num_tokens = num_tokens
        if self._first_s is None and num_tokens:
            self._first_s = now_s

    def due_s(self, now_s: float) -> float | None:
        """When its next token should be there, by its rate or its deadline, whichever is sooner; None where it has neither."""
        due_s = []
        if self.tokens_per_s is not None and self._first_s is not None:
            due_s.append(self._first_s + self._num_tokens / self.tokens_per_s)
        if self.ends_s is not None:
            num_left = max(1, self.max_tokens - self._num_tokens)
            due_s.append(now_s + max(0.0, self.ends_s - now_s) / num_left)
        return min(due_s, default=None)

    def left_ms(self, now_s: float) -> int | None:
        """What is left until its deadline, 1 at least; None where it has none."""
        return None if self.ends_s is None else max(1, math.ceil(1000 * (self.ends_s - now_s)))

    def hold(self, now_s: float) -> None:
        """It takes no further step until it is released."""
        if self._held_s is None:
            self._held_s = now_s
            self._released.clear()

    def release(self, now_s: float) -> None:
        """It goes on; the time that it was held is none in which it fell behind its pace."""
        if self._held_s is not None:
            if self._first_s is not None:
                self._first_s += now_s - self._held_s
            self._held_s = None
            self._released.set()

    async def released(self) -> None:
        """Until it is not held; one that is held again by the time that its waiter runs is waited for again."""
        while self.is_held:
            await self._released.wait()
