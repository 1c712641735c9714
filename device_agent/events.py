"""What a client is told, as values; ``docs/stream.md`` is the contract and ``schema/stream.schema.json`` its letter.

Positions are absolute (the prompt's first token is 0). Texts hold generated text alone, complete characters only: what a token
leaves incomplete comes with the token that completes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, ClassVar, Self

from device_agent.logprobs import FinalLikelihood
from speculation.errors import CapacityError, InvalidRequestError, OutriderError, status_of
from speculation.values import value

Json = dict[str, Any]


@value
class CommitOffset:
    """How much of the answer is final: ``tokens`` generated tokens, ``code_points`` of their text. Never goes back."""

    tokens: int
    code_points: int

    def to_json(self) -> Json:
        return {"tokens": self.tokens, "code_points": self.code_points}


@value
class Event:
    """One event; ``seq`` counts from 0 without gaps."""

    name: ClassVar[str] = ""
    seq: int

    def to_json(self) -> Json:
        """The event as the stream holds it: its name, then its fields in order."""
        own: tuple[str, ...] = self.__slots__  # type: ignore[attr-defined]  # those of the class itself, so not ``seq``
        fields = {key: getattr(self, key) for key in own}
        if (offset := fields.get("commit_offset")) is not None:
            fields["commit_offset"] = offset.to_json()
        if (told := fields.pop("logprobs", None)) is not None:
            fields["logprobs"] = [one.to_json() for one in told]
        return {"event": self.name, "seq": self.seq} | fields


@value
class SessionEvent(Event):
    """First: who answers and how. ``phone`` and ``network`` name emulated profiles, None where nothing is emulated.
    ``retrieval`` tells the documents that the answer was given, None where none were asked for."""

    name: ClassVar[str] = "session"
    session_id: str
    mode: str
    reveal: str
    draft: str
    full: str
    pair_digest: str
    phone: str | None
    network: str | None
    seed: int
    retrieval: Mapping[str, Any] | None = None


@value
class SpeculativeEvent(Event):
    """Tentative tokens, appended behind what is shown; ``stability`` from 0 to 1 is how likely they stay."""

    name: ClassVar[str] = "speculative"
    position: int
    token_ids: tuple[int, ...]
    text: str
    stability: float


@value
class CommitEvent(Event):
    """The next ``count`` shown tokens, from ``position`` on, became final. ``logprobs`` has one for each, where they were asked
    for.
    """

    name: ClassVar[str] = "commit"
    position: int
    count: int
    commit_offset: CommitOffset
    logprobs: tuple[FinalLikelihood, ...] | None = None


@value
class RevokeEvent(Event):
    """The last ``count`` shown tokens, from ``position`` on, are withdrawn; never final ones."""

    name: ClassVar[str] = "revoke"
    position: int
    count: int
    reason: str


@value
class CorrectEvent(Event):
    """Final tokens put behind what is shown in one step: a correction, or tokens that nobody had shown. ``logprobs`` has one
    for each, where they were asked for.
    """

    name: ClassVar[str] = "correct"
    position: int
    token_ids: tuple[int, ...]
    text: str
    commit_offset: CommitOffset
    logprobs: tuple[FinalLikelihood, ...] | None = None


class Reason(StrEnum):
    """Why a ``state`` event comes."""

    LINK = "link"
    OFFLINE = "offline"
    BUSY = "busy"
    EXACTNESS = "exactness"
    PAIR = "pair"
    THROTTLING = "throttling"
    EMULATION = "emulation"
    QUEUED = "queued"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"


@value
class StateEvent(Event):
    """Something about the way of working changed; ``mode`` is what the stream works in from here on.

    ``thermal`` is the thermal status of the phone in its own system's words, where heat is emulated.
    """

    name: ClassVar[str] = "state"
    mode: str
    reason: str
    rtt_ms: float | None = None
    thermal: str | None = None


@value
class DoneEvent(Event):
    """Last: the whole answer. Of ``token_ids`` the first ``verified_count`` are the full model's; the rest is the draft's
    alone.
    """

    name: ClassVar[str] = "done"
    finish_reason: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    verified_count: int
    usage: Mapping[str, Any]
    figures: Mapping[str, Any]


@value
class ErrorEvent(Event):
    """Last, in place of ``done``: an OpenAI error object. ``retry_after_s`` is for who is answered with a status instead."""

    name: ClassVar[str] = "error"
    error: Mapping[str, Any]
    retry_after_s: float | None = field(default=None, compare=False)

    @classmethod
    def of(cls, seq: int, error: BaseException) -> Self:
        """What a client is told of an error."""
        return cls(seq, error_object(error), error.retry_after_s if isinstance(error, CapacityError) else None)

    def to_json(self) -> Json:
        return {"event": self.name, "seq": self.seq, "error": self.error}


# For ``isinstance``: ``A | B`` is an object made anew at every look.
SHOWN = (SpeculativeEvent, CorrectEvent)
"""What puts text behind what is visible."""
COMMITTED = (CommitEvent, CorrectEvent)
"""What makes tokens final."""
LAST = (DoneEvent, ErrorEvent)
"""What ends an answer."""

KINDS: dict[str, type[Event]] = {
    kind.name: kind for kind in (SessionEvent, SpeculativeEvent, CommitEvent, RevokeEvent, CorrectEvent, StateEvent, DoneEvent)
}
"""What an answer is told by; an ``ErrorEvent`` is told in place of the last."""


_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def error_object(error: BaseException) -> Json:
    """An error as OpenAI's clients expect it: message, type, param, code. What is no error of ours is told as internal."""
    known = isinstance(error, OutriderError)
    return error_fields(
        message=str(error) if known else "internal error",
        http_status=status_of(error).http,
        code=code_of(type(error)) if known else "internal",
        parameter=error.parameter if isinstance(error, InvalidRequestError) else None,
    )


def retry_headers(retry_after_s: float | None) -> dict[str, str]:
    """When to come again, as HTTP says it; nothing where nobody knows."""
    if retry_after_s is None:
        return {}
    return {"retry-after": str(math.ceil(retry_after_s)), "retry-after-ms": str(round(retry_after_s * 1000))}


def code_of(leaf: type[BaseException]) -> str:
    """How an error object names a leaf of the tree."""
    return _snake(leaf.__name__.removesuffix("Error"))


def error_fields(message: str, http_status: int, code: str, parameter: str | None = None) -> Json:
    """The four fields of an OpenAI error object."""
    other = "invalid_request_error" if 400 <= http_status < 500 else "api_error"
    kind, parameter = _ERROR_TYPES.get(http_status, other), None if parameter is None else _writable(parameter)
    return {"message": _writable(message), "type": kind, "param": parameter, "code": code}


def _writable(text: str) -> str:
    """A text that quotes a request: JSON may hold half a surrogate pair, UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
