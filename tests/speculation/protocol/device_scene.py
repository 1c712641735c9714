"""A device's session as its tests begin it."""

from __future__ import annotations

from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import (
    Opened,
    PairIdentity,
    Verdict,
    VerdictKind,
)
from speculation.protocol.update import Update

ACCEPT, CORRECT, DECODED = VerdictKind.ACCEPT, VerdictKind.REVOKE_AND_CORRECT, VerdictKind.DECODED
END = 99


def session(credit: int | None = 40, max_tokens: int = 100) -> DeviceSession:
    """A device with a prompt of two tokens; with a credit its stream is open."""
    device = DeviceSession("s", PairIdentity("t", "p", "f"), [1, 2], SamplingParameters(), max_tokens, [END])
    device.open()
    if credit is not None:
        device.receive(Opened("s", credit, "x"))
    return device


def draft(device: DeviceSession, *token_ids: int) -> list[int]:
    return [device.drafted(token_id) for token_id in token_ids]


def decoded(device: DeviceSession, token_id: int) -> Update:
    return device.receive(Verdict(len(device.final), 0, 0, token_id, DECODED))
