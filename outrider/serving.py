"""``outrider serve``: both services in this process and the agent's page, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from cloud_verifier.server import stop_on_signal
from device_agent.agent import DeviceAgent
from device_agent.request import StreamRequest
from outrider.local import Emulation, Models, local_services
from outrider.running import say
from speculation.heap import freeze_heap

WARM_UP = StreamRequest("The module provides", max_tokens=4)
"""An answer before anybody asks, so that no figure holds what only a first one costs."""


async def run(emulation: Emulation, models: Models, settings: dict[str, Any], show: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let answers finish; a second signal ends at once. ``show`` is called with the port,
    once there is one. Raises as ``local_services``.
    """
    say("starting a verifier and an agent ...")
    async with local_services(emulation, models, **settings) as running:
        stop = stop_on_signal()
        await _warm_up(running.agent, stop)
        freeze_heap()
        for line in [*emulation.lines, f"open {running.url}/ in a browser; Ctrl-C ends"]:
            say(line)
        show(running.port)
        await stop.wait()
        say("ending ...")


async def _warm_up(agent: DeviceAgent, stop: asyncio.Event) -> None:
    """To its end, or until nobody wants it any more."""
    async with contextlib.aclosing(agent.stream(WARM_UP)) as events:
        async for _ in events:
            if stop.is_set():
                return
