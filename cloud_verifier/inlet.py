"""What a device sends on its stream, read by a task that outlives the stream until its last read has ended by itself.

A read of gRPC's that is cancelled gives nothing of its memory back: some 90 bytes, and often the 8 KiB that the connection
received with it (grpc/grpc#43360). Each session has one under way when it ends. So none is ever cancelled: gRPC ends it once
the stream is over.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

import grpc

from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.covering import CoveredSession
from cloud_verifier.telling import whose
from speculation.errors import EngineError, OutriderError
from speculation.protocol.messages import DeviceMessage
from speculation.tenants import Account
from speculation.wire import codec

FAILED = "the verifier failed; its log says why"

_log = logging.getLogger(__name__)


class Inlet:
    """What the device sends, no faster than its tenant may."""

    def __init__(self, context: Any, account: Account, statistics: VerifierStatistics) -> None:
        self.is_reading = self.is_left = False
        self._context = context
        self._account = account
        self._statistics = statistics
        self._unpaid_bytes = 0

    async def read(self) -> DeviceMessage | None:
        """The next message, None behind the last. A tenant that is over its rate is not read from: its messages wait at the
        device, where flow control stops it."""
        loop = asyncio.get_running_loop()
        if (wait_s := self._account.bytes.ready_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        try:
            return await self.read_at_once()
        finally:
            self.pay()

    async def read_at_once(self) -> DeviceMessage | None:
        """The next message whatever the tenant owes; still to be paid for. None once nobody listens any more."""
        self.is_reading = True
        data = await self._context.read()
        self.is_reading = False
        if data is grpc.aio.EOF or self.is_left:
            return None
        self._unpaid_bytes = len(data)
        self._statistics.received_bytes += len(data)
        return codec.decode_request(data)

    def pay(self) -> None:
        """Charge the tenant with what was read last."""
        self._account.bytes.take(self._unpaid_bytes, asyncio.get_running_loop().time())
        self._unpaid_bytes = 0

    async def hand_over(self, session: CoveredSession) -> None:
        """All that comes, to its session. Half a close is no cancel: the session is then decoded without drafts."""
        try:
            while (message := await self.read()) is not None:
                session.receive(message)
            session.live.hears_no_more()
        except OutriderError as error:
            session.live.end(error)
        except Exception:
            if self.is_left:
                return  # gRPC's word for a read of a stream that is over
            _log.exception("a stream could not be read", extra=whose(session.live))
            session.live.end(EngineError(FAILED))


class Readers:
    """Owns the tasks that read. Enter it before the first stream, and leave it when all streams are over."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)  # not told of the body's error, which it would wrap in a group

    def begin(self, inlet: Inlet, session: CoveredSession) -> asyncio.Task[None]:
        task = self._group.create_task(inlet.hand_over(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def leave(self, inlet: Inlet, task: asyncio.Task[None]) -> None:
        """Its stream ends: a read that is under way will end by itself, and anything else is cancelled."""
        inlet.is_left = True
        if not inlet.is_reading:
            task.cancel()
