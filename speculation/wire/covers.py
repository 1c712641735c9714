"""A cover on the wire: its message, which is left out where nothing is covered."""

from __future__ import annotations

from speculation.protocol.cover import UNCOVERED, Cover
from speculation.wire.v1 import verification_pb2 as pb


def wire_cover(cover: Cover) -> pb.Cover | None:
    """The message of a cover; None where nothing is covered."""
    return None if cover == UNCOVERED else pb.Cover(pad_bytes=cover.pad_bytes, tick_ms=cover.tick_ms)


def cover_of(wire: pb.Open | pb.Opened) -> Cover:
    """What a message says of its cover; whether that can be had is for who is asked to judge."""
    return Cover(wire.cover.pad_bytes, wire.cover.tick_ms)
