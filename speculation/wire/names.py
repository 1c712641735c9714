"""Enumerations on the wire, and what they are called here."""

from __future__ import annotations

from typing import TypeVar

from speculation.errors import MalformedMessageError
from speculation.protocol.messages import FinishReason, VerdictKind
from speculation.wire.v1 import verification_pb2 as pb

KINDS = {
    VerdictKind.ACCEPT: pb.VERDICT_KIND_ACCEPT,
    VerdictKind.REVOKE_AND_CORRECT: pb.VERDICT_KIND_REVOKE_AND_CORRECT,
    VerdictKind.DECODED: pb.VERDICT_KIND_DECODED,
}
REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    FinishReason.DEADLINE: pb.FINISH_REASON_DEADLINE,
    FinishReason.SHUTDOWN: pb.FINISH_REASON_SHUTDOWN,
}
_KINDS_BY_NUMBER = {int(number): kind for kind, number in KINDS.items()}
_REASONS_BY_NUMBER = {int(number): reason for reason, number in REASONS.items()}
_Named = TypeVar("_Named")


def kind_of(number: int) -> VerdictKind:
    """Raises ``MalformedMessageError``, also for a kind that is left out."""
    return _named(_KINDS_BY_NUMBER, number, "verdict kind")


def reason_of(number: int) -> FinishReason:
    """Raises ``MalformedMessageError``, also for a reason that is left out."""
    return _named(_REASONS_BY_NUMBER, number, "finish reason")


def _named(names: dict[int, _Named], number: int, what: str) -> _Named:
    name = names.get(number)
    if name is None:
        raise MalformedMessageError(f"unknown {what} {number}")
    return name
