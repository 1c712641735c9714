"""The link seam: how a device's messages reach a verifier. One ``Link`` is one stream of one session."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from speculation.protocol.messages import CloudMessage, DeviceMessage

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The span that streams opened from here belong to, as W3C Trace Context spells it; goes with each stream over gRPC."""


@dataclass(slots=True)
class LinkStatistics:
    """Counted where the bytes are made: messages and their encoded payload, both ways.

    ``arrives_s`` is when the last message that was sent is at the other end, by the loop's clock: known where a network is
    emulated, else None.
    """

    sent_messages: int = 0
    sent_bytes: int = 0
    received_messages: int = 0
    received_bytes: int = 0
    arrives_s: float | None = None


class Link(Protocol):
    """An open stream to a verifier. Every failure of the stream is an error of the tree in ``speculation.errors``."""

    @property
    def statistics(self) -> LinkStatistics: ...

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message over; may wait for flow control. After the stream's end it is dropped: ``receive`` tells why."""

    async def receive(self) -> CloudMessage | None:
        """The next message, or None when the other end closed in order.

        Raises what the other end refused with, or ``LinkError``.
        """

    async def aclose(self) -> None:
        """Close at once. Safe to call twice."""


class Connector(Protocol):
    """Opens streams to one verifier."""

    async def connect(self) -> Link:
        """A new stream. Raises ``LinkError`` when the verifier cannot be reached within the connector's time limit."""

    async def aclose(self) -> None: ...
