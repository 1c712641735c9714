"""What plain decoding says of a request with stop strings: its tokens and its text, cut where the text first holds one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.pair import PairFacts


@dataclass(frozen=True, slots=True)
class Truth:
    """The full model's answer. ``uncut`` are its tokens without regard to stop strings: an answer that ends early is a
    beginning of them, for it may end in the middle of one.
    """

    token_ids: Sequence[int]
    text: str
    finish_reason: str
    is_cut: bool
    uncut: Sequence[int]


def truth_of(token_ids: Sequence[int], facts: PairFacts, stops: Sequence[str]) -> Truth:
    """By a search in the whole text; of a token that the cut divides, the beginning stays."""
    uncut = list(token_ids)
    text = facts.decode(uncut)
    begins = [begin for stop in stops if (begin := text.find(stop)) >= 0]
    if not begins:
        reason = "stop" if uncut[-1] in facts.end_token_ids else "length"
        return Truth(uncut, text, reason, False, uncut)
    kept = text[: min(begins)]
    count = next(count for count in range(len(uncut) + 1) if facts.decode(uncut[:count]).startswith(kept))
    return Truth(uncut[:count], kept, "stop", True, uncut)
