"""What an agent sent, as the events and the errors that it means; and what it is sent."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from httpx_sse import EventSource, ServerSentEvent

from device_agent.events import KINDS, CommitOffset, DoneEvent, Event
from device_agent.logprobs import FinalLikelihood, Likelihood
from speculation import foreign_json
from speculation.errors import (
    STATUS,
    CapacityError,
    EngineError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
    OutriderError,
)

REFUSALS = frozenset({"invalid_request_error", "permission_error"})

JSON = {"content-type": "application/json"}


def json_of(body: Mapping[str, Any]) -> bytes:
    """A request in ASCII: half a surrogate pair, which UTF-8 has no bytes for, is the agent's to refuse, as all else of it.
    Raises ``InvalidRequestError`` for what is no JSON at all."""
    try:
        return json.dumps(dict(body), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"this cannot be sent as JSON: {error}") from error


async def messages_of(source: EventSource) -> AsyncGenerator[ServerSentEvent, None]:
    """Those of one connection that say something: a comment that keeps it alive, and the empty line behind it, are none.
    ``httpx_sse`` gives such a pair as a message without data once an ``id`` has come."""
    async with aclosing(source.aiter_sse()) as messages:
        async for message in messages:
            if message.data:
                yield message


def event_of(message: ServerSentEvent) -> Event | None:
    """The event of a message; None for one that a newer agent sends and this client does not know."""
    fields = object_of(message.data)
    if message.event == "error":
        raise error_of(fields.get("error"), None)
    return known_event(message.event, fields)


def known_event(name: str, fields: Mapping[str, Any]) -> Event | None:
    """The event of that name; None for one that this client does not know. Raises ``MalformedMessageError``."""
    kind = KINDS.get(name)
    if kind is None:
        return None
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        return kind(**{key: value_of(key, value) for key, value in fields.items() if key in known})
    except (TypeError, KeyError) as error:
        raise MalformedMessageError(f"the agent sent a {name!r} event that lacks a field: {error}") from error


async def done_of(events: AsyncIterator[Event]) -> DoneEvent:
    """The last of the events of an answer. Raises ``LinkError`` where it never comes."""
    async for event in events:
        if isinstance(event, DoneEvent):
            return event
    raise LinkError("the answer ended without its last event")


def value_of(key: str, value: Any) -> Any:
    if key in ("token_ids", "prompt_token_ids"):
        return tuple(value)
    if key == "commit_offset":
        return CommitOffset(value["tokens"], value["code_points"])
    if key == "logprobs" and value is not None:
        return tuple([_likelihood(one) for one in value])
    return value


def _likelihood(told: Mapping[str, Any]) -> FinalLikelihood:
    top = tuple([Likelihood(one["token_id"], one["token"], one["logprob"]) for one in told["top"]])
    return FinalLikelihood(told["token_id"], told["token"], told["logprob"], top=top)


def object_of(text: str) -> dict[str, Any]:
    try:
        value = foreign_json.loads(text)
    except ValueError as error:
        raise MalformedMessageError(f"the agent sent what is no JSON: {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise MalformedMessageError(f"the agent sent what is no JSON object: {text[:80]!r}")
    return value


def error_of(described: object, retry_after_s: float | None, otherwise: str = "the agent failed") -> OutriderError:
    """The leaf of the tree that an error object names by its code; what names none is the request's fault, or the agent's.
    What is no such object, as of a server between that is no agent, is told as ``otherwise``."""
    described = described if isinstance(described, Mapping) else {}
    message, code = str(described.get("message", otherwise)), described.get("code")
    other = InvalidRequestError if described.get("type") in REFUSALS else EngineError
    kind: type[OutriderError] = next((leaf for leaf in STATUS if _code(leaf) == code), other)
    if issubclass(kind, InvalidRequestError):
        return InvalidRequestError(message, described.get("param"))
    return CapacityError(message, retry_after_s) if kind is CapacityError else kind(message)


def _code(leaf: type[OutriderError]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", leaf.__name__.removesuffix("Error")).lower()
