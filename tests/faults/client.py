"""A reader whose connection breaks, and who reads on behind the last event that it got."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.agent import DeviceAgent
from device_agent.request import StreamRequest
from device_agent.stream import Reader, Stream


@dataclass(frozen=True, slots=True)
class Break:
    """The connection breaks behind event ``after_seq``; what was handed to it and not read is lost.

    ``is_taken_over``: another connection reads on before the first is known to be gone; else after ``away_s``.
    """

    after_seq: int
    away_s: float
    is_taken_over: bool


async def read(
    agent: DeviceAgent, request: StreamRequest, breaks: Sequence[Break], tally: Counter[str]
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of one answer, as JSON, each once."""
    stream = await agent.start(request)
    reader, left = stream.reader, deque(breaks)
    try:
        while events := await reader.take():
            for event in events:
                yield event.to_json()
                if left and event.seq >= left[0].after_seq:
                    tally["read on"] += 1
                    reader = await _come_back(stream, reader, event.seq, left.popleft(), agent.config.resume_grace_s)
                    break
    finally:
        await stream.aclose()


async def _come_back(stream: Stream, reader: Reader, seq: int, broken: Break, grace_s: float) -> Reader:
    if broken.is_taken_over:
        taken = stream.read_after(seq)
        await stream.leave(reader, grace_s)
        return taken
    await stream.leave(reader, grace_s)
    await asyncio.sleep(broken.away_s)
    return stream.read_after(seq)
