"""Log probabilities as OpenAI's clients ask for them, and as they read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.events import Json
from device_agent.logprobs import FinalLikelihood, Likelihood
from speculation.errors import InvalidRequestError
from speculation.logprobs import MAX_LOGPROBS


def of_completion(given: Mapping[str, Any]) -> int | None:
    """How many of the likeliest tokens a completion asks for, None where it asks for no log probabilities.

    Raises ``InvalidRequestError``.
    """
    if _number(given, "top_logprobs"):
        raise InvalidRequestError(
            "top_logprobs is for chats: here logprobs says how many of the likeliest tokens", "top_logprobs"
        )
    return None if given.get("logprobs") is False else _number(given, "logprobs")


def of_chat(given: Mapping[str, Any]) -> int | None:
    """The same for a chat, where one key asks and another says how many. Raises ``InvalidRequestError``."""
    is_asked, count = given.get("logprobs"), _number(given, "top_logprobs")
    if not (is_asked is None or isinstance(is_asked, bool)):
        raise InvalidRequestError(
            "logprobs must be true or false: top_logprobs says how many of the likeliest tokens", "logprobs"
        )
    if count and not is_asked:
        raise InvalidRequestError("top_logprobs go with logprobs: true", "top_logprobs")
    return (count or 0) if is_asked else None


def _number(given: Mapping[str, Any], key: str) -> int | None:
    value = given.get(key)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or (is_whole and 0 <= value <= MAX_LOGPROBS):
        return value
    raise InvalidRequestError(f"{key} must be a whole number from 0 to {MAX_LOGPROBS}, not {str(value)[:40]}", key)


def chat_json(told: Sequence[FinalLikelihood]) -> Json:
    """``choices[].logprobs`` of a chat."""
    content = [_entry(one) | {"top_logprobs": [_entry(other) for other in one.top]} for one in told]
    return {"content": content, "refusal": None}


def _entry(one: Likelihood) -> Json:
    data = None if one.data is None else list(one.data)
    return {"token": one.token, "logprob": one.logprob, "bytes": data}


def completion_json(told: Sequence[FinalLikelihood]) -> Json:
    """``choices[].logprobs`` of a completion. Tokens are named by their texts; ``text_offset`` counts from where the answer
    begins."""
    return {
        "tokens": [_name(one) for one in told],
        "token_logprobs": [one.logprob for one in told],
        "top_logprobs": [_by_name(one) for one in told],
        "text_offset": [one.offset for one in told],
    }


def _by_name(one: FinalLikelihood) -> dict[str, float]:
    """The likeliest, and the one that stands there where it is none of them. Of two with one name the likelier counts."""
    named: dict[str, float] = {}
    for other in (*one.top, one):
        named.setdefault(_name(other), other.logprob)
    return named


def _name(one: Likelihood) -> str:
    """Bytes that are no text by themselves say so, as in OpenAI's own answers."""
    is_text = one.data is None or one.data == one.token.encode()
    return one.token if is_text else f"bytes:{one.token}"
