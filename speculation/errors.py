"""One tree of errors; every refusal a user or a peer can meet is a leaf of it.

::

    OutriderError
    ├── InvalidRequestError          what was asked for cannot be done as asked (the caller's fault)
    │   ├── UnknownNameError         a name that does not exist; lists those that do
    │   └── PrivateTextError         it would take text of a private document off the device
    ├── ConfigurationError           a service was started with settings that cannot work
    ├── PackageError                 a model package is damaged, incomplete or does not fit its pair
    ├── StoreError                   a store of documents is damaged, in use, or another model's
    ├── DeltaError                   a signed update of a store cannot be applied
    │   ├── DeltaFormatError         it is no such update, or not all of one
    │   ├── DeltaSignatureError      nobody trusted signed it, or it was changed since
    │   ├── DeltaBaseError           it was made for another state of the store
    │   └── DeltaReplayError         it is older than what the store has
    ├── EngineError                  a model could not be run
    │   └── CacheClosedError         a cache was used after it was closed
    ├── CapacityError                no room now; says when to try again
    ├── ProtocolError                the peer broke the protocol
    │   ├── MalformedMessageError    a message that means nothing, or comes from the future
    │   ├── CreditExceededError      more nodes than the credit ceiling allows
    │   └── VerdictGapError          a verdict that starts beyond the final log
    ├── HandshakeError               the two ends do not fit (tokenizer, full model, choice rule)
    │   ├── PairError                the device's pair is not served there; says which are
    │   └── FingerprintError         the session began on other arithmetic than this verifier's
    ├── AuthenticationError          no key, or one that nobody has
    ├── SessionNotFoundError         no such session, or another tenant's
    ├── ModelNotFoundError           a client asks for a model that is not served here
    ├── SessionSupersededError       a later attempt of the same session took over
    ├── DeadlineError                the request's own deadline passed
    └── LinkError                    the other end cannot be reached or went away

Foreign exceptions are turned into these once, at the border where they appear. ``STATUS`` gives each leaf its gRPC status
code (by name, so that this module needs no gRPC) and its HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_RETRY_AFTER_S = 86_400.0
"""A day. What is endless, or nearly so, has no form in a status or a header: the refusal that it goes with would fail."""


class OutriderError(Exception):
    """Root of the tree; never raised itself.

    ``can_go_elsewhere``: another verifier is there to take the session at once. Only a link that knows several sets it.
    """

    can_go_elsewhere = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied, and sent to another process, as it is: a leaf's constructor takes other things than the text it makes."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(leaf: type[OutriderError], told: tuple[Any, ...], fields: dict[str, Any]) -> OutriderError:
    error = leaf.__new__(leaf, *told)
    error.__dict__.update(fields)
    return error


class InvalidRequestError(OutriderError):
    """The request cannot be served as it is. ``parameter`` names the field at fault, if one is."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownNameError(InvalidRequestError):
    """A name that does not exist; the message lists the names that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str], parameter: str | None = None) -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}", parameter or kind)
        self.name = name


class PrivateTextError(InvalidRequestError):
    """What was asked for would take text of a private document off the device."""


class ConfigurationError(OutriderError):
    """Settings that cannot work."""


class PackageError(OutriderError):
    """A model package that cannot be used."""


class StoreError(OutriderError):
    """A store of documents that cannot be used."""


class DeltaError(OutriderError):
    """A signed update of a store that cannot be applied; the store is as it was."""


class DeltaFormatError(DeltaError):
    """It is no update, or not all of one."""


class DeltaSignatureError(DeltaError):
    """The signature is not that of the key that is trusted."""


class DeltaBaseError(DeltaError):
    """It begins at another state of the store."""


class DeltaReplayError(DeltaError):
    """It is older than what the store has."""


class EngineError(OutriderError):
    """A model could not be run."""


class CacheClosedError(EngineError):
    """The cache was closed before."""


class CapacityError(OutriderError):
    """No room now. ``retry_after_s`` is a hint in seconds, or None where waiting does not help."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProtocolError(OutriderError):
    """The peer broke the protocol."""


class MalformedMessageError(ProtocolError):
    """A message that means nothing, or refers to what was never sent."""


class CreditExceededError(ProtocolError):
    """More live nodes than the credit ceiling."""


class VerdictGapError(ProtocolError):
    """A verdict starts beyond the end of the final log."""


class HandshakeError(OutriderError):
    """The two ends do not fit each other."""


class PairError(HandshakeError):
    """The device's pair is not served. ``asked`` is its counter (0: not told), ``served`` are those that are, newest first."""

    def __init__(self, message: str, asked: int = 0, served: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.asked, self.served = asked, tuple(served)


class FingerprintError(HandshakeError):
    """The session began on a verifier whose arithmetic was another."""


class AuthenticationError(OutriderError):
    """The caller has no key, or one that nobody has."""


class SessionNotFoundError(OutriderError):
    """No such session."""


class ModelNotFoundError(OutriderError):
    """No model of that name is served."""


class SessionSupersededError(OutriderError):
    """A later attempt of the same session took over."""


class DeadlineError(OutriderError):
    """The request's deadline passed."""


class LinkError(OutriderError):
    """The other end cannot be reached, or went away."""


class SimulationError(OutriderError):
    """A run under the virtual clock ended otherwise than it can."""


@dataclass(frozen=True, slots=True)
class Status:
    """How an error looks from outside."""

    grpc: str
    http: int


STATUS: dict[type[OutriderError], Status] = {
    InvalidRequestError: Status("INVALID_ARGUMENT", 400),
    UnknownNameError: Status("INVALID_ARGUMENT", 400),
    PrivateTextError: Status("INVALID_ARGUMENT", 400),
    ConfigurationError: Status("FAILED_PRECONDITION", 500),
    PackageError: Status("FAILED_PRECONDITION", 500),
    StoreError: Status("FAILED_PRECONDITION", 500),
    DeltaError: Status("FAILED_PRECONDITION", 500),
    DeltaFormatError: Status("FAILED_PRECONDITION", 500),
    DeltaSignatureError: Status("FAILED_PRECONDITION", 500),
    DeltaBaseError: Status("FAILED_PRECONDITION", 500),
    DeltaReplayError: Status("FAILED_PRECONDITION", 500),
    EngineError: Status("INTERNAL", 500),
    CacheClosedError: Status("INTERNAL", 500),
    CapacityError: Status("RESOURCE_EXHAUSTED", 429),
    MalformedMessageError: Status("INVALID_ARGUMENT", 502),
    CreditExceededError: Status("RESOURCE_EXHAUSTED", 502),
    VerdictGapError: Status("OUT_OF_RANGE", 502),
    HandshakeError: Status("FAILED_PRECONDITION", 409),
    PairError: Status("FAILED_PRECONDITION", 409),
    FingerprintError: Status("FAILED_PRECONDITION", 409),
    AuthenticationError: Status("UNAUTHENTICATED", 401),
    SessionNotFoundError: Status("NOT_FOUND", 404),
    ModelNotFoundError: Status("NOT_FOUND", 404),
    SessionSupersededError: Status("ABORTED", 409),
    DeadlineError: Status("DEADLINE_EXCEEDED", 504),
    LinkError: Status("UNAVAILABLE", 503),
    SimulationError: Status("INTERNAL", 500),
}


def status_of(error: BaseException) -> Status:
    """The status of an error: its own, that of its nearest ancestor in the tree, else an internal error."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return Status("INTERNAL", 500)
