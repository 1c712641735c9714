"""A verifier whose distance changes while a stream runs: every message is so much later as a function says at the moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from speculation.links.memory import Attachment, Endpoint
from speculation.protocol.messages import CloudMessage, DeviceMessage, Open


@dataclass(frozen=True, slots=True)
class FurtherAway:
    """An endpoint ``delay_s()`` seconds behind another, each way. Its streams are tasks of the group."""

    endpoint: Endpoint
    delay_s: Callable[[], float]
    tasks: asyncio.TaskGroup

    def attach(self, message: Open) -> Attachment:
        return _Late(self.endpoint.attach(message), self.delay_s, self.tasks)


class _Late:
    """The other end of a stream. Nothing overtakes, also where the distance shrinks."""

    def __init__(self, inner: Attachment, delay_s: Callable[[], float], tasks: asyncio.TaskGroup) -> None:
        self._inner = inner
        self._delay_s = delay_s
        self._up: deque[DeviceMessage] = deque()
        self._up_due_s = 0.0
        self._down: asyncio.Queue[tuple[float, CloudMessage | None]] = asyncio.Queue()
        self._collecting = tasks.create_task(self._collect())

    def receive(self, message: DeviceMessage) -> None:
        loop = asyncio.get_running_loop()
        self._up.append(message)
        self._up_due_s = max(self._up_due_s, loop.time() + self._delay_s())
        # Each call hands over the oldest: calls that are due at once may come in any order.
        loop.call_at(self._up_due_s, lambda: self._inner.receive(self._up.popleft()))

    async def next(self) -> CloudMessage | None:
        due_s, message = await self._down.get()
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        return message

    def close(self) -> None:
        self._collecting.cancel()
        self._inner.close()

    async def _collect(self) -> None:
        message: CloudMessage | None
        while (message := await self._inner.next()) is not None:
            self._put(message)
        self._put(None)

    def _put(self, message: CloudMessage | None) -> None:
        self._down.put_nowait((asyncio.get_running_loop().time() + self._delay_s(), message))
