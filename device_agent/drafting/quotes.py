"""Text that an answer may quote, beside the draft model: where it read as the answer does now, what followed there is likelier.

As ``speculation/engines/blended.py`` does with the text so far, but with text that no prompt need hold. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.engines.blended import SHORTEST_ENDING, blend, log_odds
from speculation.engines.lookup import LONGEST_ENDING, guess, repeats_of


class Quotes:
    """Tokens of documents; ``share`` (0 to 1) is their weight beside the draft model's own chances."""

    def __init__(self, token_ids: Sequence[int], share: float) -> None:
        self._token_ids = np.array(token_ids, np.int64)
        self._odds = log_odds(share)

    def blend(self, row: NDArray[np.float32], ending: Sequence[int]) -> None:
        """Lift the logits of what followed in the documents behind the text's last tokens, in place."""
        text = np.concatenate([self._token_ids, np.array(ending[-LONGEST_ENDING:], np.int64)])
        repeats = repeats_of(text)
        if len(repeats) > SHORTEST_ENDING:
            blend(row, guess(text, repeats, len(row)), self._odds)
