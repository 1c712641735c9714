"""The gRPC edge: one bidirectional stream a session, bytes to messages and back, errors to statuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from cloud_verifier.live import LiveSession
from cloud_verifier.verification import Verifier
from speculation.errors import DeadlineError, EngineError, LinkError, MalformedMessageError, OutriderError
from speculation.links.status import DETAILS_KEY, status_from
from speculation.protocol.messages import DeviceMessage, Open
from speculation.wire import codec

OPEN_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class VerificationServicer:
    """Serves ``Verify`` from a ``Verifier``."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def handler(self) -> Any:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes. Messages pass as bytes: the codec is ours."""
        method = grpc.stream_stream_rpc_method_handler(self.verify)
        return grpc.method_handlers_generic_handler(codec.SERVICE, {codec.METHOD: method})

    async def verify(self, _requests: Any, context: Any) -> None:
        """One stream, from its ``Open`` to its end."""
        error = await self._converse(context)
        if error is not None:
            status = status_from(error)
            code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
            await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))

    async def _converse(self, context: Any) -> OutriderError | None:
        """The error that ends the stream, None where it ended in order."""
        try:
            live = self._verifier.attach(await _read_open(context))
        except OutriderError as error:
            return error
        try:
            return await _pump(context, live)
        except Exception:
            _log.exception("a stream failed")
            return EngineError("the verifier failed; its log says why")
        finally:
            live.close()


async def _pump(context: Any, live: LiveSession) -> OutriderError | None:
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(_read_all(context, live))
        error = await _write_all(context, live)
        reader.cancel()
    return error


async def _read_open(context: Any) -> Open:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            message = await _read(context)
    except TimeoutError:
        raise DeadlineError(f"no Open came within {OPEN_TIMEOUT_S:g} s") from None
    if message is None:
        raise LinkError("the device closed the stream before its Open")
    if not isinstance(message, Open):
        raise MalformedMessageError(f"a stream begins with Open, not {type(message).__name__}")
    return message


async def _read_all(context: Any, live: LiveSession) -> None:
    """Hand over what the device sends. Half a close is no cancel: the session is then decoded without drafts."""
    try:
        while (message := await _read(context)) is not None:
            live.receive(message)
    except OutriderError as error:
        live.end(error)


async def _write_all(context: Any, live: LiveSession) -> OutriderError | None:
    try:
        while (message := await live.next()) is not None:
            await context.write(codec.encode_response(message))
    except OutriderError as error:
        return error
    return None


async def _read(context: Any) -> DeviceMessage | None:
    data = await context.read()
    return None if data is grpc.aio.EOF else codec.decode_request(data)
