"""How OpenAPI tells of refusals: each status with an example, made by the errors that the agent itself raises."""

from __future__ import annotations

from typing import Any

from device_agent.events import error_fields, error_object
from speculation.errors import (
    AuthenticationError,
    CapacityError,
    DeadlineError,
    EngineError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
    ModelNotFoundError,
    PairError,
    SessionNotFoundError,
)

Schema = dict[str, Any]

NO_MODEL = ModelNotFoundError("the model 'gpt-4' does not exist here; this agent serves pydoc-full")
NO_SESSION = SessionNotFoundError(
    "no session 'c015de3a43feb957' is kept; an answer is kept for 60 s behind its end, and the last 16 of them"
)
_ELSEWHERE = "the host 'evil.example' is not this machine; name it in allowed_hosts if it is meant"

_TEXT = {"type": "string"}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
        }
    },
}
_REFUSALS: dict[str, tuple[str, Schema]] = {
    "400": (
        "The request cannot be served as it is",
        error_object(InvalidRequestError("max_tokens must be at least 1, not 0", "max_tokens")),
    ),
    "401": (
        "The agent has keys, and none that it knows was sent",
        error_object(AuthenticationError("this agent wants a key: send the header Authorization: Bearer KEY")),
    ),
    "403": ("Not from this machine", error_fields(_ELSEWHERE, 403, "forbidden_origin")),
    "404": ("Nothing of that name is here", error_object(NO_MODEL)),
    "409": (
        "The device and the verifier do not fit each other",
        error_object(PairError("this session runs with pair 6, and stays with it")),
    ),
    "413": ("The body is too long", error_fields("the body is over the limit of 409600 bytes", 413, "body_too_large")),
    "429": (
        "Too many answers are being written, or the tenant is over a limit; see Retry-After",
        error_object(CapacityError("4 answers are being written already; one of them has to end or be cancelled first", 1.0)),
    ),
    "500": ("A model could not be run", error_object(EngineError("pydoc-full could not be run: out of memory"))),
    "502": (
        "The verifier broke the protocol",
        error_object(MalformedMessageError("a verdict makes at least one token final")),
    ),
    "503": (
        "The verifier cannot be reached, or went away; or the agent is shutting down",
        error_object(LinkError("there is no verifier at 127.0.0.1:50051; start one with: outrider verifier")),
    ),
    "504": ("The verifier had no time left", error_object(DeadlineError("the session's deadline of 500 ms passed"))),
}


def refused(*statuses: str, missing: Exception = NO_MODEL) -> dict[int | str, Schema]:
    """The OpenAPI descriptions of refusals; ``missing`` is what a 404 is about."""
    return {status: _response(*_REFUSALS[status]) if status != "404" else _not_found(missing) for status in statuses}


def _not_found(missing: Exception) -> Schema:
    what = "Nothing of that name is kept" if isinstance(missing, SessionNotFoundError) else "No such model is served here"
    return _response(what, error_object(missing))


def _response(description: str, error: Schema) -> Schema:
    content = {"schema": _ERROR, "example": {"error": error}}
    return {"description": description, "content": {"application/json": content}}
