"""A link over gRPC: one bidirectional stream of the verifier's service, kept alive as a phone needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from speculation.certificates import ClientTls
from speculation.errors import InvalidRequestError, LinkError
from speculation.links.base import TRACEPARENT, LinkStatistics
from speculation.links.diagnosis import fault_of
from speculation.links.status import error_from
from speculation.links.targets import is_here
from speculation.protocol.messages import Cancel, CloudMessage, DeviceMessage, Finished
from speculation.tenants import AUTHORIZATION, bearer
from speculation.wire import codec
from speculation.wire.padding import Padder

MAX_MESSAGE_BYTES = 256 * 1024
KEEPALIVE_MS = 15_000
KEEPALIVE_TIMEOUT_MS = 10_000
STATUS_TIMEOUT_S = 2.0

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # Its probes are pings, and each costs more than three drafted tokens.
    ("grpc.http2.bdp_probe", 0),
    # Else a channel made anew would inherit the back-off of one that failed before.
    ("grpc.use_local_subchannel_pool", 1),
    # ``grpc.min_reconnect_backoff_ms`` is left alone: it is the time that one attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcLink:
    """One call of ``Verify``. One task may send while another receives; cancelling either ends the stream."""

    def __init__(self, call: Any) -> None:
        self.statistics = LinkStatistics()
        self._call = call
        self._received = aiter(call)
        self._padder = Padder()
        self._is_closed = False
        self._ends_by_itself = False

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message over; waits for flow control.

        What comes after the stream's end is dropped: a draft may cross the verifier's ``Finished`` or its refusal, and only
        ``receive`` can tell which, once all before it is read. Raises ``LinkError`` after ``aclose``,
        ``InvalidRequestError`` for a message over the limit.
        """
        self._require_open()
        data = self._padder.encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise InvalidRequestError(f"a message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
        if await self._is_written(data):
            self.statistics.sent_messages += 1
            self.statistics.sent_bytes += len(data)
            self._ends_by_itself = self._ends_by_itself or isinstance(message, Cancel)

    async def receive(self) -> CloudMessage | None:
        """The verifier's next message, None after its orderly end. Raises the error that ended the stream."""
        self._require_open()
        try:
            # The iterator, not ``read``: that one forgets what has arrived as soon as it knows how the call ended.
            data = await anext(self._received)
        except (StopAsyncIteration, grpc.aio.AioRpcError):
            await self._explain_end()
            return None
        except asyncio.CancelledError:
            self._explain_cancel()
            raise
        self.statistics.received_messages += 1
        self.statistics.received_bytes += len(data)
        message = codec.decode_response(data)
        self._ends_by_itself = self._ends_by_itself or isinstance(message, Finished)
        return message

    async def aclose(self) -> None:
        """Close at once. The call of a session that is over is left to the verifier, which is about to end it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._ends_by_itself:
            _end_within(self._call, STATUS_TIMEOUT_S)
        else:
            self._call.cancel()

    def _require_open(self) -> None:
        if self._is_closed:
            raise LinkError("the link was closed")

    async def _is_written(self, data: bytes) -> bool:
        """Whether the call took it: one that is over does not. Cancelled, it ends the call."""
        try:
            await self._write(data)
        except (grpc.aio.InternalError, grpc.aio.AioRpcError):
            return False
        except asyncio.CancelledError:
            self._call.cancel()
            self._explain_cancel()
            raise
        return True

    async def _write(self, data: bytes) -> None:
        """``call.write`` replaces the status of a call that ends meanwhile (grpc/grpc#36066): hence the layer below it."""
        await self._call.wait_for_connection()
        await self._call._cython_call.send_serialized_message(data)

    def _explain_cancel(self) -> None:
        """A call that this end closed shows as a cancelled task; only a task that was cancelled may stay so."""
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            raise LinkError("the link was closed") from None

    async def _explain_end(self) -> None:
        """Raises the error of a call that is over, if it ended with one."""
        call = self._call
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                code, trailers, details = await call.code(), await call.trailing_metadata(), await call.details()
        except TimeoutError:
            raise LinkError("the stream broke and its end was never told") from None
        if code is not grpc.StatusCode.OK:
            raise error_from(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), details))


def _end_within(call: Any, limit_s: float) -> None:
    """What a server on Python's gRPC sends into a cancelled call, its status too, leaves memory behind (grpc/grpc#43360)."""
    timer = asyncio.get_running_loop().call_later(limit_s, call.cancel)
    call.add_done_callback(lambda _call: timer.cancel())


class GrpcConnector:
    """Streams to the verifier at ``target`` (``host:port``), over one connection that is made when first needed.

    ``key`` goes with every stream, for a verifier that asks who is calling. ``tls`` None is plain text.
    """

    def __init__(
        self, target: str, connect_timeout_s: float = 5.0, key: str | None = None, tls: ClientTls | None = None
    ) -> None:
        self.target = target
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._metadata = () if key is None else ((AUTHORIZATION, bearer(key)),)
        self._channel: Any = None
        self._calls: set[Any] = set()
        self._turn = asyncio.Lock()

    async def connect(self) -> GrpcLink:
        """A new stream. Raises ``LinkError`` where there is no verifier: at once if that is known, else after the limit."""
        try:
            async with asyncio.timeout(self._connect_timeout_s), self._turn:
                channel = await self._ready_channel()
        except TimeoutError:
            raise LinkError(f"no verifier answered at {self.target} within {self._connect_timeout_s:g} s") from None
        trace = TRACEPARENT.get()
        metadata = self._metadata if trace is None else (*self._metadata, (TRACEPARENT.name, trace))
        call = channel.stream_stream(codec.METHOD_PATH)(metadata=metadata or None)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return GrpcLink(call)

    async def aclose(self) -> None:
        """Close the connection and every stream on it."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _ready_channel(self) -> Any:
        if self._channel is not None and not self._calls and _has_failed(self._channel):
            # What it knows is of an attempt before this one: of a stream that was opened when the connection was over already.
            await self.aclose()
        if self._channel is None:
            self._channel = channel_to(self.target, self._tls, _OPTIONS)
        try:
            await _wait_ready(self._channel, self.target, self._tls)
        except BaseException:
            # A new connection does not wait out the old one's back-off; but streams that still drain are not cut for it.
            if not self._calls:
                await self.aclose()
            raise
        return self._channel


def _has_failed(channel: Any) -> bool:
    return bool(channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE)


def channel_to(target: str, tls: ClientTls | None, options: Sequence[tuple[str, int | str]]) -> Any:
    """A channel to ``target``, over TLS where ``tls`` says how. Raises ``LinkError`` where its files are gone."""
    options = [*options, *_way_to(target)]
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    try:
        files = [path and path.read_bytes() for path in (tls.authorities, tls.key, tls.certificate)]
    except OSError as error:
        raise LinkError(f"{error.filename} cannot be read: {error.strerror}") from error
    named = [] if tls.name is None else [("grpc.ssl_target_name_override", tls.name)]
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*files), options=[*options, *named])


async def _wait_ready(channel: Any, target: str, tls: ClientTls | None) -> None:
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            nobody = f"there is no verifier at {target}; start one with: outrider verifier"
            raise LinkError(await fault_of(target, tls) or nobody)
        await channel.wait_for_state_change(state)


def _way_to(target: str) -> list[tuple[str, int | str]]:
    """Options of a channel: no proxy that the environment names knows the way to this machine itself."""
    return [("grpc.enable_http_proxy", 0)] if is_here(target) else []
