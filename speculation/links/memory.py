"""A link to a verifier in the same process: every message goes through the codec, none through a socket."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from speculation.errors import InvalidRequestError, LinkError, MalformedMessageError, OutriderError
from speculation.links.base import LinkStatistics
from speculation.protocol.messages import CloudMessage, DeviceMessage, Open
from speculation.wire import codec
from speculation.wire.padding import Padder


class Attachment(Protocol):
    """The verifier's end of a stream. ``receive`` never raises: what ends the session is told by ``next``."""

    def receive(self, message: DeviceMessage) -> None: ...

    def next(self) -> Awaitable[CloudMessage | None]: ...

    def close(self) -> None: ...


class Endpoint(Protocol):
    """What streams are opened at: a verifier."""

    def attach(self, message: Open) -> Attachment: ...


class MemoryLink:
    """A stream without a network. Like over gRPC, what the verifier refuses is raised by ``receive``."""

    def __init__(self, endpoint: Endpoint, max_message_bytes: int) -> None:
        self.statistics = LinkStatistics()
        self._endpoint = endpoint
        self._max_message_bytes = max_message_bytes
        self._up, self._down = Padder(), Padder()
        self._attachment: Attachment | None = None
        self._error: OutriderError | None = None
        self._is_closed = False

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message over. Raises ``LinkError`` after ``aclose``, ``InvalidRequestError`` for a message over the limit."""
        self._require_open()
        data = self._up.encode(message)
        if len(data) > self._max_message_bytes:
            raise InvalidRequestError(f"a message of {len(data)} bytes is over the limit of {self._max_message_bytes}")
        self.statistics.sent_messages += 1
        self.statistics.sent_bytes += len(data)
        if self._error is None:
            self._deliver(data)

    async def receive(self) -> CloudMessage | None:
        """The verifier's next message, None after its orderly end. Raises what the verifier refused with."""
        self._require_open()
        if self._error is not None:
            raise self._error
        if self._attachment is None:
            raise LinkError("nothing was opened on this link: send Open first")
        message = await self._attachment.next()
        self._require_open()
        if message is None:
            return None
        data = self._down.encode(message)
        self.statistics.received_messages += 1
        self.statistics.received_bytes += len(data)
        return codec.decode_response(data)

    async def aclose(self) -> None:
        self._is_closed = True
        if self._attachment is not None:
            self._attachment.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise LinkError("the link was closed")

    def _deliver(self, data: bytes) -> None:
        try:
            message = codec.decode_request(data)
            if self._attachment is not None:
                self._attachment.receive(message)
            elif isinstance(message, Open):
                self._attachment = self._endpoint.attach(message)
            else:
                raise MalformedMessageError(f"a stream begins with Open, not {type(message).__name__}")
        except OutriderError as error:
            self._error = error


class MemoryConnector:
    """Opens streams to a verifier of this process."""

    def __init__(self, endpoint: Endpoint, max_message_bytes: int = 256 * 1024) -> None:
        self._endpoint = endpoint
        self._max_message_bytes = max_message_bytes

    async def connect(self) -> MemoryLink:
        return MemoryLink(self._endpoint, self._max_message_bytes)

    async def aclose(self) -> None:
        """Nothing is held."""
