"""What a request leaves open, resolved: token ids, a seed, limits that fit, and the defaults of this agent and its model."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

from device_agent.assignment import Assignment
from device_agent.config import AgentConfig
from device_agent.pair import PairFacts
from device_agent.prompts import Prompts
from device_agent.request import Mode, Reveal, StreamRequest
from device_agent.retrieval.applying import Retrieved
from speculation.errors import InvalidRequestError

SEED_BITS = 53
"""Seeds that are drawn fit a JSON number of any client."""

DEFAULT_MAX_TOKENS = 128
"""Where neither the request nor the settings nor the model say."""


class Resolver:
    """Of one agent."""

    def __init__(self, pair: PairFacts, config: AgentConfig, prompts: Prompts, has_verifier: bool) -> None:
        self._pair = pair
        self._config = config
        self._prompts = prompts
        self._has_verifier = has_verifier

    async def assign(self, found: Retrieved) -> Assignment:
        """The request, with what was found for it, as an assignment of its own. Raises ``InvalidRequestError`` for what cannot
        be served here."""
        request = found.request
        if request.mode is Mode.CLOUD and not self._has_verifier:
            raise InvalidRequestError("mode cloud needs a verifier, and this agent has none; use mode device", "mode")
        prompt = await self._prompts.token_ids(request)
        seed = secrets.randbits(SEED_BITS) if request.seed is None else request.seed
        return Assignment(
            session_id=secrets.token_hex(16),
            request=request,
            prompt=prompt,
            parameters=request.parameters(seed, self._pair.defaults),
            max_tokens=self._max_tokens(request, len(prompt)),
            quotes=found.quotes,
            retrieval=found.told,
        )

    def _max_tokens(self, request: StreamRequest, prompt_tokens: int) -> int:
        """The limit asked for, or the default as far as it fits. Raises ``InvalidRequestError`` where there is no room."""
        pair = self._pair
        context = pair.draft_context_length if self.stays_here(request) else pair.context_length
        room = context - prompt_tokens
        if room < 1:
            raise InvalidRequestError(
                f"the prompt has {prompt_tokens} tokens; a context of {context} leaves no room behind it", "prompt"
            )
        if request.max_tokens is None:
            return min(room, self.default_max_tokens)
        if request.max_tokens > room:
            why = f"a prompt of {prompt_tokens} tokens leaves {room} in a context of {context}"
            raise InvalidRequestError(f"max_tokens must be at most {room} ({why}), not {request.max_tokens}", "max_tokens")
        return request.max_tokens

    def stays_here(self, request: StreamRequest) -> bool:
        """Whether the device writes alone, whatever comes."""
        is_alone = not self._has_verifier and request.reveal is not Reveal.FINAL
        return request.mode is Mode.DEVICE or request.is_private or (request.mode is Mode.AUTO and is_alone)

    @property
    def default_max_tokens(self) -> int:
        """What a request gets that names no limit, as far as it fits."""
        return self._config.default_max_tokens or self._pair.defaults.max_tokens or DEFAULT_MAX_TOKENS

    def defaults(self) -> dict[str, Any]:
        """What a request gets that does not say, and which of the model's own entries it does not get."""
        defaults = asdict(self._pair.defaults)
        return defaults | {"max_tokens": self.default_max_tokens, "unused": list(self._pair.defaults.unused)}
