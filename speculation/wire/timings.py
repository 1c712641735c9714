"""A verdict's times on the wire: a message of their own, which is left out where nobody asked for them."""

from __future__ import annotations

from speculation.protocol.messages import Timing
from speculation.wire.v1 import verification_pb2 as pb


def wire_timing(timing: Timing) -> pb.Timing:
    """The message of a timing."""
    return pb.Timing(pass_us=timing.pass_us, rows=timing.rows, held_us=timing.held_us)


def timing_of(wire: pb.Verdict) -> Timing | None:
    """What a wire verdict tells."""
    if not wire.HasField("timing"):
        return None
    told = wire.timing
    return Timing(told.pass_us, told.rows, told.held_us if told.HasField("held_us") else None)
