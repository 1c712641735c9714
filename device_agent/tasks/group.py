"""Answers that belong together: begun one by one, paused, resumed and cancelled all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from device_agent.agent import DeviceAgent
from device_agent.events import Event
from device_agent.request import StreamRequest
from device_agent.stream import Stream, StreamState


class Group:
    """Of one agent. One that is paused begins further answers paused."""

    def __init__(self, agent: DeviceAgent) -> None:
        self.is_paused = False
        self._agent = agent
        self._streams: list[Stream] = []

    @property
    def running(self) -> Sequence[Stream]:
        """Those that are not over, in the order in which they began."""
        self._streams = [stream for stream in self._streams if stream.state is not StreamState.ENDED]
        return tuple(self._streams)

    async def start(self, request: StreamRequest, watch: Callable[[Sequence[Event]], None] | None = None) -> Stream:
        """Begin one more. Raises as ``DeviceAgent.start``."""
        stream = await self._agent.start(request, watch)
        self._streams.append(stream)
        if self.is_paused:
            stream.pause()
        return stream

    def pause(self) -> None:
        """All of them, at once."""
        self.is_paused = True
        for stream in self.running:
            stream.pause()

    def resume(self) -> None:
        """Let all go on."""
        self.is_paused = False
        for stream in self.running:
            stream.resume()

    async def aclose(self) -> None:
        """Cancel those that still run; they have ended when this returns. Safe to call twice."""
        await asyncio.gather(*(stream.aclose() for stream in self.running))
