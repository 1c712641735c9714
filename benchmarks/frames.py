"""What the bytes that a gRPC client writes are for: HTTP/2 frames told apart, and the device's messages in them. Pure.

Nothing is decompressed and nothing judged: a frame says in its first nine bytes what it is and how long.
"""

from __future__ import annotations

import enum
from collections import Counter

from speculation.wire import codec

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER, MESSAGE_PREFIX = 9, 5
DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x8, 0x9


class Share(enum.StrEnum):
    """What bytes are for."""

    DRAFTS = "drafts"
    FRAMING = "their frames"
    WINDOWS = "window updates"
    CALLS = "opening, ending"
    CONNECTION = "pings, settings"


_SHARE_OF_FRAME = {
    HEADERS: Share.CALLS,
    CONTINUATION: Share.CALLS,
    RST_STREAM: Share.CALLS,
    WINDOW_UPDATE: Share.WINDOWS,
}


class UplinkBytes:
    """Takes what a client writes on one connection, in pieces of any size. Counts start anew with ``clear``."""

    def __init__(self) -> None:
        self.shares: Counter[Share] = Counter()
        self.num_drafts = 0
        self._is_begun = False
        self._unread = bytearray()
        self._messages: dict[int, bytearray] = {}

    @property
    def total(self) -> int:
        """All bytes of the frames that are complete."""
        return self.shares.total()

    def clear(self) -> None:
        self.shares.clear()
        self.num_drafts = 0

    def feed(self, data: bytes) -> None:
        """Raises ``ValueError`` where the connection does not begin as HTTP/2 does."""
        self._unread += data
        if not self._is_begun:
            self._begin()
        while self._is_begun and (frame := self._next_frame()):
            self._count(frame[3], int.from_bytes(frame[5:FRAME_HEADER]), frame[FRAME_HEADER:])

    def _begin(self) -> None:
        length = len(PREFACE)
        if not PREFACE.startswith(bytes(self._unread[:length])):
            raise ValueError("these bytes are no HTTP/2 client's")
        if len(self._unread) >= length:
            self._is_begun = True
            self.shares[Share.CONNECTION] += length
            del self._unread[:length]

    def _next_frame(self) -> bytes:
        """The next frame with its header; nothing where it is not all there."""
        size = FRAME_HEADER + int.from_bytes(self._unread[:3])
        if len(self._unread) < max(size, FRAME_HEADER):
            return b""
        frame = bytes(self._unread[:size])
        del self._unread[:size]
        return frame

    def _count(self, kind: int, stream: int, payload: bytes) -> None:
        if kind != DATA:
            self.shares[_SHARE_OF_FRAME.get(kind, Share.CONNECTION)] += FRAME_HEADER + len(payload)
            return
        self.shares[Share.FRAMING] += FRAME_HEADER
        messages = self._messages.setdefault(stream, bytearray())
        messages += payload
        while len(messages) >= MESSAGE_PREFIX and len(messages) >= (size := MESSAGE_PREFIX + int.from_bytes(messages[1:5])):
            self._count_message(bytes(messages[MESSAGE_PREFIX:size]))
            del messages[:size]

    def _count_message(self, message: bytes) -> None:
        is_draft = codec.VerifyRequest.FromString(message).HasField("draft")
        self.shares[Share.FRAMING] += MESSAGE_PREFIX
        self.shares[Share.DRAFTS if is_draft else Share.CALLS] += len(message)
        self.num_drafts += is_draft
