"""Padding on the wire: messages of a stream as bytes whose number is a multiple of what its cover says. Pure."""

from __future__ import annotations

from speculation.protocol.cover import MOST_PAD_BYTES
from speculation.protocol.messages import CloudMessage, DeviceMessage, Open, Opened
from speculation.wire import codec
from speculation.wire.v1 import verification_pb2 as pb

_EMPTY_BYTES = pb.VerifyRequest(padding=b"x").ByteSize() - 1
"""The field's own bytes where its length takes one; an empty field is not written at all, but may be read."""
_EMPTY = pb.VerifyRequest(padding=b"x").SerializeToString()[: _EMPTY_BYTES - 1] + b"\0"


def padded_size(num_bytes: int, multiple: int) -> int:
    """Bytes of a padded message: the next multiple that can be reached, since the field itself takes some. 0 pads nothing."""
    if not multiple or num_bytes % multiple == 0 < num_bytes:
        return num_bytes
    return -(-(num_bytes + _EMPTY_BYTES) // multiple) * multiple


def padded(data: bytes, multiple: int) -> bytes:
    """An envelope of either direction with padding behind its message: fields may come in any order, and those are known to
    no end but as what to skip."""
    return data + _field(padded_size(len(data), multiple) - len(data))


def _field(num_bytes: int) -> bytes:
    """Exactly so many bytes of padding, its own name and length included; 0, or at least ``_EMPTY_BYTES``."""
    if not num_bytes:
        return b""
    for head in range(_EMPTY_BYTES, _EMPTY_BYTES + 3):
        field = pb.VerifyRequest(padding=bytes(max(num_bytes - head, 0))).SerializeToString()
        if len(field) == num_bytes:
            return field
    # One number of bytes where the length grows by a byte is left out by a single field; of two, readers take the last.
    return _EMPTY + _field(num_bytes - _EMPTY_BYTES)


_FIRST = Open, Opened


class Padder:
    """One direction of one stream: pads all messages as its ``Open``, or its ``Opened``, says, which come first.

    It never makes more of a message than may be asked for, whatever is asked.
    """

    def __init__(self) -> None:
        self._multiple = 0

    def encode(self, message: DeviceMessage | CloudMessage) -> bytes:
        """The message as bytes of its envelope."""
        data, multiple = codec.encode(message).SerializeToString(), self._multiple_of(message)
        return padded(data, multiple) if multiple else data

    def size(self, message: DeviceMessage | CloudMessage | None) -> int:
        """How many bytes ``encode`` makes of it; none of None."""
        return 0 if message is None else padded_size(codec.encoded_size(message), self._multiple_of(message))

    def heed(self, message: Open | Opened) -> None:
        """Learn from a message that somebody else encodes."""
        self._multiple_of(message)

    def _multiple_of(self, message: DeviceMessage | CloudMessage) -> int:
        if isinstance(message, _FIRST):
            self._multiple = min(message.cover.pad_bytes, MOST_PAD_BYTES)
        return self._multiple
