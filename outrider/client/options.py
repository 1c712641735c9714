"""What a request of an answer is made of, as both clients take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from speculation.errors import InvalidRequestError


class Options(TypedDict, total=False):
    """Optional fields of a request, as in ``docs``; what is left out is the agent's default."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    stop: str | Sequence[str]
    mode: Literal["collaborate", "cloud", "device", "auto"]
    privacy: Literal["open", "device_only"]
    reveal: Literal["all", "stable", "final"]
    min_stability: float
    offline_tokens: int
    priority: int
    deadline_ms: int
    logprobs: int
    tokens_per_s: float | Literal["reader", "voice"]
    retrieve: bool | Mapping[str, Any]


Messages = Sequence[Mapping[str, str]]


def text_keys(prompt: str | Messages) -> dict[str, object]:
    """The key of a request that says what to write about."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    try:
        return {"messages": [dict(message) for message in prompt]}
    except (TypeError, ValueError) as error:
        raise InvalidRequestError("a prompt is a text, or a conversation: objects with role and content", "prompt") from error
