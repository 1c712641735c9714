"""An answer that is paused: it takes no draft steps, costs its verifier nothing, and goes on where it was with the same text.

Its conversation is broken off, which ends the session at the verifier and frees what it held there; going on is another stream
of the same session, opened with all that is final. The caches of the draft stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from device_agent.drafting.share import Share
from device_agent.events import Reason


class Pausing:
    """Of one answer. ``tell`` has its reader told, and of how long a pause was that is over; ``expire`` ends an answer that was
    paused for ``max_pause_s`` at a time."""

    def __init__(
        self, share: Share, max_pause_s: float, tell: Callable[[Reason, float], None], expire: Callable[[], None]
    ) -> None:
        self._before_s = 0.0
        self._share = share
        self._max_pause_s = max_pause_s
        self._tell = tell
        self._expire = expire
        self._since_s = 0.0
        self._is_over = False
        self._limit: asyncio.TimerHandle | None = None
        self._conversation: asyncio.Timeout | None = None

    @property
    def is_paused(self) -> bool:
        return self._share.is_held

    @property
    def paused_s(self) -> float:
        """For how long it was paused, all pauses together."""
        now_s = asyncio.get_running_loop().time()
        return self._before_s + (now_s - self._since_s if self.is_paused else 0.0)

    def pause(self) -> None:
        """At once; a draft step that runs still tells what it drafted. Nothing for one that is paused already, or over."""
        if self.is_paused or self._is_over:
            return
        loop = asyncio.get_running_loop()
        self._since_s = loop.time()
        self._share.hold(self._since_s)
        self._limit = loop.call_later(self._max_pause_s, self._give_up)
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.reschedule(self._since_s)
        self._tell(Reason.PAUSED, 0.0)

    def resume(self) -> None:
        """Go on. Nothing for one that is not paused."""
        if self.is_paused:
            paused_s = asyncio.get_running_loop().time() - self._since_s
            self._go_on()
            self._tell(Reason.RESUMED, paused_s)

    def end(self) -> None:
        """The answer is over, paused or not; what is left of it, as hanging up, goes on. Safe to call twice."""
        self._is_over = True
        if self.is_paused:
            self._go_on()

    async def through(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Converse to the end. A pause breaks the conversation off, and another one begins once it is over."""
        while True:
            await self._share.released()
            if self._is_over:
                return None
            try:
                async with asyncio.timeout(None) as conversation:
                    self._conversation = conversation
                    return await converse()
            except TimeoutError:
                if not conversation.expired():
                    raise
            finally:
                self._conversation = None

    def _go_on(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._before_s += now_s - self._since_s
        if self._limit is not None:
            self._limit.cancel()
        self._share.release(now_s)

    def _give_up(self) -> None:
        self._expire()
        self.end()
