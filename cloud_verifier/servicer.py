"""The gRPC edge: one bidirectional stream a session, bytes to messages and back, errors to statuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from cloud_verifier.config import VerifierConfig
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.covering import CoveredSession, CoveringVerifier
from cloud_verifier.door import Door, refuse
from cloud_verifier.inlet import FAILED, Inlet, Readers
from cloud_verifier.pairs import Pairs
from cloud_verifier.telling import closing_span, told, whose
from speculation.errors import (
    DeadlineError,
    EngineError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
    OutriderError,
    status_of,
)
from speculation.protocol.messages import Open
from speculation.telemetry.spans import UNTRACED, Span, Tracer
from speculation.tenants import Account
from speculation.wire import codec
from speculation.wire.padding import Padder

OPEN_TIMEOUT_S = 60.0
"""A long prompt crosses a slow uplink for most of a minute, and arrives as one message."""

_log = logging.getLogger(__name__)


class VerificationServicer:
    """Serves ``Verify`` for all ``pairs`` to whom the door lets in. ``readers`` outlive the streams."""

    def __init__(self, pairs: Pairs, door: Door, config: VerifierConfig, readers: Readers, tracer: Tracer = UNTRACED) -> None:
        self._readers = readers
        self._pairs = pairs
        self._covering = CoveringVerifier(pairs, config)
        self._max_message_bytes = config.max_message_bytes
        self._sessions: set[CoveredSession] = set()
        self._statistics = pairs.statistics
        self._door = door
        self._tracer = tracer

    @property
    def leaving_s(self) -> float:
        """How long it may take until what sessions have said has left, where it waits for ticks."""
        return max((session.leaving_s for session in self._sessions), default=0.0)

    def handler(self) -> Any:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes. Messages pass as bytes: the codec is ours."""
        method = grpc.stream_stream_rpc_method_handler(self.verify)
        return grpc.method_handlers_generic_handler(codec.SERVICE, {codec.METHOD: method})

    async def verify(self, _requests: Any, context: Any) -> None:
        """One stream, from its ``Open`` to its end."""
        metadata = context.invocation_metadata()
        with closing_span(self._tracer, self._pairs.newest.description.name, metadata) as span:
            error = await self._converse(context, span)
            if error is not None:
                span.fail(status_of(error).grpc)
        if error is not None:
            await refuse(context, error)

    async def _converse(self, context: Any, span: Span) -> OutriderError | None:
        """The error that ends the stream, None where it ended in order."""
        try:
            account = self._pairs.account_of(self._door.tenant_of(context.invocation_metadata()))
            inlet = Inlet(context, account, self._statistics)
            session = await self._attach(inlet, account)
        except OutriderError as error:
            self._pairs.observer.refused(error)
            _log.info("a stream got no session", extra={"status": status_of(error).grpc})
            return error
        with told(session.live, span):
            return await self._serve(context, inlet, session)

    async def _serve(self, context: Any, inlet: Inlet, session: CoveredSession) -> OutriderError | None:
        self._sessions.add(session)
        error: OutriderError | None = None
        try:
            error = await self._pump(context, inlet, session)
        except Exception:
            _log.exception("a stream failed", extra=whose(session.live))
            error = EngineError(FAILED)
        finally:
            self._sessions.discard(session)
            if error is not None:  # so that the log and the figures tell what the device is told; only the first end counts
                session.live.end(error)
            session.close()
        return error

    async def _pump(self, context: Any, inlet: Inlet, session: CoveredSession) -> OutriderError | None:
        reader = self._readers.begin(inlet, session)
        try:
            return await _write_all(context, session, self._statistics, self._max_message_bytes)
        finally:
            self._readers.leave(inlet, reader)

    async def _attach(self, inlet: Inlet, account: Account) -> CoveredSession:
        """A session is judged by what its tenant used before its ``Open``, which is paid for whether it is let in or not."""
        try:
            return self._covering.attach(await _read_open(inlet), account.tenant)
        finally:
            inlet.pay()


async def _read_open(inlet: Inlet) -> Open:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            message = await inlet.read_at_once()
    except TimeoutError:
        raise DeadlineError(f"no Open came within {OPEN_TIMEOUT_S:g} s") from None
    if message is None:
        raise LinkError("the device closed the stream before its Open")
    if not isinstance(message, Open):
        raise MalformedMessageError(f"a stream begins with Open, not {type(message).__name__}")
    return message


async def _write_all(
    context: Any, session: CoveredSession, statistics: VerifierStatistics, max_bytes: int
) -> OutriderError | None:
    padder = Padder()
    try:
        while (message := await session.next()) is not None:
            data = padder.encode(message)
            if len(data) > max_bytes:
                # gRPC would fail the write, and say that there is no room: the device would come again for the same.
                what = f"what was asked for makes an answer ({type(message).__name__}) of {len(data)} bytes"
                return InvalidRequestError(f"{what}: at most {max_bytes} are sent")
            statistics.sent_bytes += len(data)
            await context.write(data)
    except OutriderError as error:
        return error
    return None
