"""What followed where a text last read like its last tokens: drafts that cost no step of the draft model. Pure.

As ``speculation/engines/lookup.py`` does with all endings and all that followed, but with one ending and its last place alone,
which are found at once however long the text is. (Saxena, "Prompt lookup decoding", 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.drafting.policy import Pace

ENDING = 4
"""Tokens that must have stood together before: fewer do so by chance, more do so seldom (docs/log.md)."""

LONGEST_COPY = 16
"""Tokens that are copied ahead of the final log: what a pass takes, and what is to be there for the next."""

LEAST_CHANCE = 0.5
"""With less, a copy would bring a token at most: hardly what its message costs."""

LOOKED_BACK = 4096
"""Endings that are known at once, the latest: to read more of a text when looking begins would hold up the loop."""


class Copying:
    """One stream's. ``chance``: that a copied token agrees, by all that could have been copied so far, copied or not."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._num_read = 0
        self._pace = Pace()

    @property
    def chance(self) -> float:
        usual = self._pace.usual_acceptance
        return 1.0 if usual is None else usual

    def read(self, text: Sequence[int]) -> None:
        """The final log has come so far; what could have been copied in the place of its new tokens is compared with them."""
        is_first = not self._num_read
        for position in range(max(self._num_read, ENDING, len(text) - LOOKED_BACK), len(text)):
            ending = tuple(text[position - ENDING : position])
            place = self._places.pop(ending, None)
            if place is not None and not is_first:
                agrees = text[place] == text[position]
                self._pace.compared(agrees, not agrees)
            self._places[ending] = position
            if len(self._places) > LOOKED_BACK:
                del self._places[next(iter(self._places))]
        self._num_read = len(text)

    def behind(self, text: Sequence[int], drafts: Sequence[int], longest: int) -> list[int]:
        """What followed where the text that was ``read`` last read as it does now, with ``drafts`` behind it; up to so many
        tokens, none where it never did or a copy is not worth its message. A text that repeats itself goes on doing so."""
        known = [*text[max(0, len(text) - ENDING) :], *drafts]
        place = self._places.get(tuple(known[-ENDING:]))
        if place is None or self.chance < LEAST_CHANCE:
            return []
        copied: list[int] = []
        ahead = [*drafts]
        while len(copied) < longest:
            copied.append(text[place] if place < len(text) else ahead[place - len(text)])
            ahead.append(copied[-1])
            place += 1
        return copied
