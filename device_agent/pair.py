"""What the agent needs to know of its pair, whichever way the models are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from device_agent.answer import Decode
from device_agent.logprobs import Spelling
from speculation.parameters import NO_DEFAULTS, GenerationDefaults
from speculation.protocol.messages import PairIdentity


@dataclass(frozen=True, slots=True)
class PairFacts:
    """Names, digests, the tokenizer's two directions, and the limits in tokens.

    ``chat`` gives the token ids of a conversation (objects with role and content) as the model's own template writes it, and
    raises ``InvalidRequestError`` where that refuses; None where the model has no template. ``defaults`` are those of a
    request. Tokens of the full model are below ``vocabulary_size``; None where that is not known, and prompts are texts alone.
    ``examples`` are prompts that the pair was not trained on, with ``source``, ``title`` and ``text``.
    ``names`` are those of special tokens, which are no text.
    """

    draft: str
    full: str
    identity: PairIdentity
    encode: Callable[[str], Sequence[int]]
    decode: Decode
    end_token_ids: tuple[int, ...]
    context_length: int
    draft_context_length: int
    defaults: GenerationDefaults = NO_DEFAULTS
    chat: Callable[[Sequence[Mapping[str, str]]], Sequence[int]] | None = None
    vocabulary_size: int | None = None
    examples: Sequence[Mapping[str, str]] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def spelling(self) -> Spelling:
        """What tokens look like by themselves."""
        return Spelling(self.decode, self.names)
