"""What the agent needs to know of its pair, whichever way the models are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_agent.answer import Decode
from speculation.protocol.messages import PairIdentity


@dataclass(frozen=True, slots=True)
class PairFacts:
    """Names, digests, the tokenizer's two directions, and the limits in tokens."""

    draft: str
    full: str
    identity: PairIdentity
    encode: Callable[[str], Sequence[int]]
    decode: Decode
    end_token_ids: tuple[int, ...]
    context_length: int
    draft_context_length: int
