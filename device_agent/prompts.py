"""From a request to the token ids that the models read, and from token ids back to text; long ones on another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from device_agent.pair import PairFacts
from device_agent.request import Message, StreamRequest, TokenRequest
from speculation.errors import InvalidRequestError

SHORT_PROMPT_BYTES = 4096
"""Up to here the tokenizer takes about a millisecond, less than a turn on another thread may cost."""
SHORT_PROMPT_TOKENS = 1024


class Prompts:
    """The pair's tokenizer and chat template, for prompts of at most ``max_bytes``."""

    def __init__(self, pair: PairFacts, max_bytes: int) -> None:
        self._pair = pair
        self.max_bytes = max_bytes

    async def token_ids(self, request: StreamRequest) -> tuple[int, ...]:
        """The prompt in tokens, at least one. Raises ``InvalidRequestError`` for one that is too long or holds none."""
        if isinstance(request, TokenRequest):
            return self.judged(request.prompt_token_ids)
        num_bytes = self.check_size(request)
        if num_bytes <= SHORT_PROMPT_BYTES:
            token_ids = self.encode(request.prompt, request.messages)
        else:
            token_ids = await asyncio.to_thread(self.encode, request.prompt, request.messages)
        if not token_ids:
            raise InvalidRequestError("the prompt holds no token", "prompt")
        return tuple(token_ids)

    def check_size(self, request: StreamRequest) -> int:
        """The bytes of the prompt, and of roles, which a template may write. Raises ``InvalidRequestError`` for too many."""
        num_bytes = len(request.prompt.encode()) + sum(len(message.role.encode()) for message in request.messages)
        if num_bytes > self.max_bytes:
            raise InvalidRequestError(f"the prompt has {num_bytes} bytes; this agent takes at most {self.max_bytes}", "prompt")
        return num_bytes

    async def text(self, token_ids: Sequence[int]) -> str:
        """What tokens spell. Raises ``InvalidRequestError`` for one that the model has not."""
        judged = list(self.judged(token_ids, "tokens"))
        if len(judged) <= SHORT_PROMPT_TOKENS:
            return self._pair.decode(judged)
        return await asyncio.to_thread(self._pair.decode, judged)

    async def texts(self, token_ids: Sequence[int]) -> list[str]:
        """What each of them spells by itself. Raises as ``text``."""
        judged = self.judged(token_ids, "tokens")
        if len(judged) <= SHORT_PROMPT_TOKENS:
            return self._each(judged)
        return await asyncio.to_thread(self._each, judged)

    def _each(self, token_ids: Sequence[int]) -> list[str]:
        return [self._pair.decode([token_id]) for token_id in token_ids]

    def judged(self, token_ids: Sequence[int], parameter: str = "prompt") -> tuple[int, ...]:
        """The tokens, if the model knows them all. Raises ``InvalidRequestError``."""
        size = self._pair.vocabulary_size
        if size is None:
            raise InvalidRequestError("this agent takes text, no tokens", parameter)
        wrong = next((token_id for token_id in token_ids if not 0 <= token_id < size), None)
        if wrong is not None:
            raise InvalidRequestError(f"{parameter} must hold tokens from 0 to {size - 1}, not {wrong}", parameter)
        return tuple(token_ids)

    def encode(self, prompt: str, messages: Sequence[Message]) -> Sequence[int]:
        """The tokens of a prompt, or of a conversation where the model has a template; computed here and now."""
        if messages and self._pair.chat is not None:
            return self._pair.chat([{"role": message.role, "content": message.content} for message in messages])
        return self._pair.encode(prompt)
