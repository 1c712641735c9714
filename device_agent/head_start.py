"""Lets ``Open`` leave before the draft's prefill takes the device's one core."""

from __future__ import annotations

import asyncio
import contextlib

LONGEST_S = 2e-3


class HeadStart:
    """Of the conversation before drafting, in one answer.

    The prefill would keep ``Open`` waiting for longer than it takes to leave, and the verifier's own prefill with it. Where a
    connection must be made first, nothing is waited for: the first word is the promise.
    """

    def __init__(self) -> None:
        self._is_connected = False
        self._has_left = asyncio.Event()

    def connected(self) -> None:
        """There is a connection."""
        self._is_connected = True

    def left(self) -> None:
        """``Open`` has left."""
        self._has_left.set()

    async def over(self) -> None:
        """Until drafting may begin: at once without a connection, after ``LONGEST_S`` at the latest with one."""
        if self._is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_S):
                    await self._has_left.wait()
