"""Tokens of a text, and the text of tokens, in the shapes of vLLM's ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agent.agent import DeviceAgent
from device_agent.events import Json
from device_agent.openai.requests import conversation_of, prompt_of, request_of
from speculation.errors import InvalidRequestError


async def tokenized(agent: DeviceAgent, given: Mapping[str, Any]) -> Json:
    """The tokens that a completion, or a chat, of the same text begins with. Raises ``InvalidRequestError``.

    Whether special tokens go before them is the tokenizer's affair here, or the template's: the key ``add_special_tokens`` is
    passed over.
    """
    is_chat = "messages" in given
    request = request_of(conversation_of(given["messages"]) if is_chat else prompt_of(given.get("prompt")))
    token_ids = await agent.prompts.token_ids(request)
    wants_texts = given.get("return_token_strs") is True
    texts = await agent.prompts.texts(token_ids) if wants_texts else None
    facts = {"count": len(token_ids), "max_model_len": agent.pair.context_length}
    return facts | {"tokens": list(token_ids), "token_strs": texts}


async def detokenized(agent: DeviceAgent, given: Mapping[str, Any]) -> Json:
    """Raises ``InvalidRequestError`` for what is no list of the model's tokens."""
    tokens = given.get("tokens")
    if not isinstance(tokens, list) or any(not isinstance(token, int) or isinstance(token, bool) for token in tokens):
        raise InvalidRequestError("tokens must be a list of whole numbers", "tokens")
    return {"prompt": await agent.prompts.text(tokens)}
