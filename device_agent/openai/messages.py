"""Messages as OpenAI's clients write them, as plain ones with a role and a text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agent.privacy import Privacy
from speculation.errors import InvalidRequestError

CALLS = ("tool_calls", "function_call")
ROLES = {"developer": "system"}
"""A newer name for the same role, which models' templates do not know."""


def as_messages(messages: Any) -> list[dict[str, Any]]:
    """Roles, texts and privacy labels; what else a message holds is passed over. Raises ``InvalidRequestError``."""
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("messages must be a list of objects with role and content", "messages")
    return [_plain(message) for message in messages]


def _plain(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequestError("each of messages must be an object with role and content", "messages")
    if any(message.get(key) for key in CALLS):
        raise InvalidRequestError("tool calls are not implemented", "messages")
    role: str = message["role"]
    content = message.get("content")
    return {"role": ROLES.get(role, role), "content": _text(content), "privacy": _label(message, content)}


def _label(message: Mapping[str, Any], content: Any) -> Any:
    """The message's label, or that of a part that stays here. One that is none is for the request's own check to refuse."""
    labels = [part.get("privacy") for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    own = message.get("privacy")
    return next((label for label in (own, *labels) if label not in (None, Privacy.OPEN)), own)


def _text(content: Any) -> str:
    """Parts of a text stand in lines of their own."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InvalidRequestError("the content of each of messages must be a text, or a list of parts of type text", "messages")
    return "\n".join([_part(part) for part in content])


def _part(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
    if not isinstance(text, str):
        raise InvalidRequestError("the parts of a message must be of type text: this agent reads nothing else", "messages")
    return text
