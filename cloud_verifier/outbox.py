"""What one session still has to tell its device: a bounded queue with one reader and a definite end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from speculation.errors import OutriderError
from speculation.protocol.messages import CloudMessage


class Outbox:
    """Messages in order, then an end: in order (``next`` gives None) or with an error (``next`` raises it).

    ``is_full`` asks the writer to wait, it does not refuse: a last message always fits. ``on_room`` is called when a reader
    makes room in a full outbox. ``error`` is what it ended with.
    """

    def __init__(self, limit: int, on_room: Callable[[], None]) -> None:
        self._limit = limit
        self._on_room = on_room
        self._messages: deque[CloudMessage] = deque()
        self._ready = asyncio.Event()
        self.error: OutriderError | None = None
        self.is_ended = False

    def __len__(self) -> int:
        """Messages that wait to be read."""
        return len(self._messages)

    def is_full(self, num_more: int = 0) -> bool:
        """Whether it will be, once so many more are put."""
        return len(self._messages) + num_more >= self._limit

    def put(self, message: CloudMessage) -> None:
        self._messages.append(message)
        self._ready.set()

    def end(self, error: OutriderError | None = None) -> None:
        """Nothing follows what was put. Only the first end counts."""
        if not self.is_ended:
            self.is_ended = True
            self.error = error
            self._ready.set()

    async def next(self) -> CloudMessage | None:
        """The oldest message; None after an orderly end. Raises the error that ended the session."""
        while not self._messages:
            if self.is_ended:
                if self.error is not None:
                    raise self.error
                return None
            self._ready.clear()
            await self._ready.wait()
        was_full = self.is_full()
        message = self._messages.popleft()
        if was_full:
            self._on_room()
        return message
