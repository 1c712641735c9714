"""An event loop whose timers are exact to some microseconds, for what is emulated on a real clock.

asyncio waits with epoll, in whole milliseconds rounded up: half a millisecond late on average, at every emulated step and on
both ways of a network. ``virtual_time`` is the same for a clock that jumps.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def loop() -> asyncio.AbstractEventLoop:
    """Where the system allows; elsewhere the usual one."""
    return asyncio.SelectorEventLoop(_ExactSelector()) if sys.platform == "linux" else asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``."""
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


if sys.platform == "linux":

    class _ExactSelector(selectors.EpollSelector):
        """``select`` on epoll's own descriptor waits in microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)
