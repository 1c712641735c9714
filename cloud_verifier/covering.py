"""A session under cover: what the verifier does to hide sizes and times of what it sends (``speculation/protocol/cover.py``).

The device asks for it in its ``Open``; the verifier's own settings are the least that every stream gets.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from cloud_verifier.config import VerifierConfig
from cloud_verifier.live import ON_A_TICK, LiveSession
from cloud_verifier.pairs import Pairs
from cloud_verifier.verification import Verifier
from speculation.errors import InvalidRequestError
from speculation.protocol.fillers import filler_down, is_filler
from speculation.protocol.messages import CloudMessage, DeviceMessage, Finished, Open, Opened
from speculation.tenants import NOBODY, Tenant


class CoveringVerifier:
    """A verifier, or all pairs of one, whose streams are covered: as they ask for, and at least as its configuration says."""

    def __init__(self, verifier: Verifier | Pairs, config: VerifierConfig) -> None:
        self._verifier = verifier
        self._config = config

    def attach(self, message: Open, tenant: Tenant = NOBODY) -> CoveredSession:
        """As ``Verifier.attach``. Raises ``InvalidRequestError`` for a cover that no stream gets."""
        return CoveredSession(self._verifier.attach(granted(message, self._config), tenant))


def granted(message: Open, config: VerifierConfig) -> Open:
    """The ``Open`` with the cover that its stream gets. Raises ``InvalidRequestError`` where it asks for too much: what a
    small request makes the verifier send is bounded."""
    cover = message.cover.with_least(config.cover)
    fault = message.cover.fault or cover.fault
    if fault is None and cover.pad_bytes > config.max_message_bytes:
        fault = f"pad_bytes must be at most {config.max_message_bytes}, the largest message (got {cover.pad_bytes})"
    if fault is not None:
        raise InvalidRequestError(f"the cover that the device asks for: {fault}", "cover")
    return replace(message, cover=cover)


class CoveredSession:
    """A stream's end at the verifier. ``next`` keeps the tick: ``Opened`` at once, then one message on each."""

    def __init__(self, live: LiveSession) -> None:
        self.live = live
        self._cover = live.cover
        self._filler = filler_down(live.state.final[0])
        self._began_s: float | None = None
        self._is_finished = False

    def receive(self, message: DeviceMessage) -> None:
        if not is_filler(message):  # it would wake the passes for nothing
            self.live.receive(message)

    async def next(self) -> CloudMessage | None:
        """The next message for the device, one that says nothing where there is none; None at an orderly end.

        Raises the error that ended the session.
        """
        message = await self._on_tick() if self._cover.tick_ms else await self.live.next()
        self._is_finished = isinstance(message, Finished)
        return replace(message, cover=self._cover) if isinstance(message, Opened) else message

    def close(self) -> None:
        self.live.close()

    @property
    def leaving_s(self) -> float:
        """How long at most the messages that wait for their ticks take, and the last one behind them. They may be more than a
        pass waits for, as where the verifier drafts itself and tells each token apart."""
        return (max(ON_A_TICK, len(self.live.outbox)) + 1) * self._cover.tick_ms / 1000

    async def _on_tick(self) -> CloudMessage | None:
        now_s = asyncio.get_running_loop().time()
        if self._began_s is None or self._is_finished:  # nothing hides when a stream begins, or ends
            self._began_s = now_s
            return await self.live.next()
        await asyncio.sleep(self._cover.next_tick_s(self._began_s, now_s) - now_s)
        try:
            async with asyncio.timeout(0):  # what is there now
                return await self.live.next()
        except TimeoutError:
            return self._filler
