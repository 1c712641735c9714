"""The device's messages in what a gRPC client wrote, as ``recording_relay.py`` keeps it."""

from __future__ import annotations

from speculation.wire import codec
from tests.support.recording_relay import DATA, FRAME_HEAD_BYTES, PREFACE

PADDED, MESSAGE_HEAD_BYTES = 0x8, 5


def messages_in(written):
    """The messages of a connection: HTTP/2's frames of data, stream by stream, cut as gRPC cuts them."""
    bodies, place = {}, len(PREFACE)
    while place + FRAME_HEAD_BYTES <= len(written):
        length, kind, flags = int.from_bytes(written[place : place + 3]), written[place + 3], written[place + 4]
        stream = int.from_bytes(written[place + 5 : place + 9])
        content = written[place + FRAME_HEAD_BYTES : place + FRAME_HEAD_BYTES + length]
        if kind == DATA:
            if flags & PADDED:
                content = content[1 : len(content) - content[0]]
            bodies.setdefault(stream, bytearray()).extend(content)
        place += FRAME_HEAD_BYTES + length
    return [message for body in bodies.values() for message in _cut(bytes(body))]


def _cut(body):
    found, place = [], 0
    while place + MESSAGE_HEAD_BYTES <= len(body):
        assert body[place] == 0, "a message that is compressed"
        end = place + MESSAGE_HEAD_BYTES + int.from_bytes(body[place + 1 : place + MESSAGE_HEAD_BYTES])
        found.append(codec.decode_request(body[place + MESSAGE_HEAD_BYTES : end]))
        place = end
    return found
