"""One map between the tree of errors and gRPC statuses, used both ways: a leaf raised at one end is the same leaf at the other.

A status carries ``google.rpc.Status`` in its trailers: ``ErrorInfo`` (reason = the leaf's class name, metadata = its fields)
and, where there is a time to wait, ``RetryInfo``. An error that is no leaf crosses as INTERNAL, without its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from speculation import errors
from speculation.errors import STATUS, OutriderError, status_of

DOMAIN = "outrider"
DETAILS_KEY = "grpc-status-details-bin"
FIELDS = ("parameter", "name", "asked", "served")
MAX_FIELD_CHARACTERS = 64
MAX_CHARACTERS = 400
"""Of a text in a status, which may quote what the peer sent. It travels twice and escaped, and gRPC drops trailers over 8 KiB,
the status with them: 400 characters of four bytes stay below."""

_LEAVES: dict[str, type[OutriderError]] = {leaf.__name__: leaf for leaf in STATUS}

# What a bare code means: one that gRPC itself, a proxy or a foreign server has set.
_BARE: dict[str, type[OutriderError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "RESOURCE_EXHAUSTED": errors.CapacityError,
    "FAILED_PRECONDITION": errors.HandshakeError,
    "UNIMPLEMENTED": errors.HandshakeError,
    "OUT_OF_RANGE": errors.VerdictGapError,
    "UNAUTHENTICATED": errors.AuthenticationError,
    "NOT_FOUND": errors.SessionNotFoundError,
    "ABORTED": errors.SessionSupersededError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
    "INTERNAL": errors.EngineError,
}


def status_from(error: BaseException) -> Any:
    """The ``google.rpc.Status`` of an error."""
    known = isinstance(error, OutriderError)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(status_of(error).grpc),
        message=_cut(str(error)) if known else "the verifier failed; its log says why",
    )
    if known:
        info = error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=_fields(error))
        status.details.add().Pack(info)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_after_s * 1e9))
        status.details.add().Pack(retry)
    return status


def error_from(call_error: Any) -> OutriderError:
    """The leaf that a failed call (``grpc.aio.AioRpcError``) stands for; what cannot be told apart is a ``LinkError``."""
    code, message = call_error.code(), call_error.details() or ""
    told = _details(call_error.trailing_metadata() or ())
    if told is not None:
        status, info, retry_after_s = told
        if info.domain == DOMAIN and info.reason in _LEAVES:
            return _rebuild(_LEAVES[info.reason], status.message, dict(info.metadata), retry_after_s)
    leaf = _BARE.get(code.name, errors.LinkError) if isinstance(code, grpc.StatusCode) else errors.LinkError
    return _rebuild(leaf, f"{code.name.lower()}: {message}", {}, None)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def _fields(error: BaseException) -> dict[str, str]:
    return {name: _text(value) for name in FIELDS if (value := getattr(error, name, None)) is not None}


def _text(value: object) -> str:
    """A field as text; several numbers with spaces between."""
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value))[:MAX_FIELD_CHARACTERS]


def _numbers(text: str) -> tuple[int, ...]:
    """``_text`` back, as far as it means something: a peer may send anything."""
    words = [word for word in text.split() if word.isascii() and word.isdecimal() and len(word) <= MAX_FIELD_CHARACTERS]
    return tuple(map(int, words))


def _details(trailers: Iterable[tuple[str, Any]]) -> tuple[Any, Any, float | None] | None:
    """The status, its ``ErrorInfo``, and the time to wait; None where there is no status, or it is damaged."""
    value = next((value for key, value in trailers if key == DETAILS_KEY), None)
    if value is None:
        return None
    info, retry, retry_after_s = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    try:
        status = status_pb2.Status.FromString(value)
        for detail in status.details:
            detail.Unpack(info)
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    except DecodeError:
        return None
    return status, info, retry_after_s


def _rebuild(leaf: type[OutriderError], message: str, fields: dict[str, str], retry_after_s: float | None) -> OutriderError:
    """A leaf without its constructor, whose arguments have become text by now."""
    error = leaf.__new__(leaf)
    Exception.__init__(error, message)
    if issubclass(leaf, errors.InvalidRequestError):
        error.__dict__.update({"parameter": None} | fields)
    if issubclass(leaf, errors.CapacityError):
        error.__dict__["retry_after_s"] = retry_after_s
    if issubclass(leaf, errors.PairError):
        asked, served = (_numbers(fields.get(name, "")) for name in ("asked", "served"))
        error.__dict__.update({"asked": asked[0] if asked else 0, "served": served})
    return error
