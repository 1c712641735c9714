"""Who sends what was drafted, and when: one task a stream to the verifier."""

from __future__ import annotations

import asyncio
import contextlib
import math

from device_agent.drafting.drafter import Drafter
from device_agent.figures import Meter
from speculation.errors import OutriderError
from speculation.links.base import Link
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Draft

HANG_UP_S = 0.5


async def hang_up(link: Link, session: DeviceSession) -> None:
    """Close the stream; where the session still runs, tell the verifier that nobody waits for it."""
    try:
        if session.finish_reason is None:
            with contextlib.suppress(OutriderError, TimeoutError):
                async with asyncio.timeout(HANG_UP_S):
                    await link.send(session.cancel())
    finally:
        await link.aclose()


class Sender:
    """Hands drafts over once they are due. ``wake`` it whenever something was drafted or a message came."""

    def __init__(self, session: DeviceSession, drafter: Drafter, meter: Meter) -> None:
        self._session = session
        self._drafter = drafter
        self._meter = meter
        self._news = asyncio.Event()
        self._said_pass = False

    def wake(self) -> None:
        """Costs a turn of the loop only where there is something to say."""
        if self._session.unsent_nodes or self._has_to_pass:
            self._news.set()

    @property
    def _has_to_pass(self) -> bool:
        return self._drafter.says_pass and not self._said_pass

    def settled(self) -> None:
        """A verdict came: the verifier waits anew."""
        self._said_pass = False

    async def run(self, link: Link) -> None:
        """Until cancelled. A stream that breaks is told by who listens to it, and learns why."""
        loop = asyncio.get_running_loop()
        self._said_pass = False  # what a stream before this one was told, this one's verifier has not heard
        with contextlib.suppress(OutriderError):
            while True:
                now_s = loop.time()
                due_s = now_s if self._has_to_pass else self._drafter.send_s(now_s)
                draft = self._next(now_s) if due_s <= now_s else None
                if draft is None:
                    self._news.clear()
                    await _wait_until(self._news, due_s if due_s > now_s else math.inf)
                else:
                    self._meter.proposed += len(draft.nodes)
                    await link.send(draft)
                    if self._meter.timeline is not None:
                        self._meter.timeline.sent(draft, link.statistics, now_s, loop.time())

    def _next(self, now_s: float) -> Draft | None:
        """What is to be sent now. That nothing more will come is said once a verdict, with the last nodes."""
        says_pass = self._has_to_pass
        self._said_pass = self._said_pass or says_pass
        draft = self._session.flush(says_pass)
        if draft is not None and draft.nodes:
            self._drafter.sent(now_s, draft.nodes[-1].number)
        return draft


async def _wait_until(event: asyncio.Event, moment_s: float) -> None:
    """Until the event is set, but no longer than to a moment of the loop's clock."""
    if math.isinf(moment_s):
        await event.wait()
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(moment_s):
            await event.wait()
