"""Which drafts reveal ``stable`` shows: a running product of acceptance, held against bars with hysteresis. Pure.

The stability of a draft is the product of the confidences from the first token that is not final up to and with its own: how
likely all of them stay. Each bar is a power of ``min_stability``, because then an exponent is a length: where every draft is
equally likely, a bar of ``min_stability ** x`` lets ``x`` times as many of them pass.

The rules are those of Mosh's predictive echo (Winstein and Balakrishnan, USENIX ATC 2012; ``PredictionEngine`` in its
``src/frontend/terminaloverlay.cc``). What is shown stays until it is clearly worse than what would be shown: Mosh shows above
30 ms of round trip and stops at 20. Once a prediction that was shown proves wrong, the next ones are tentative until some prove
right, and those that are not shown prove it too: Mosh's epochs, and the confirmations that cure a glitch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import mul

HIDE_EXPONENT = 1.5
"""What is shown stays as long as it would if half as much again were shown; Mosh's two triggers stand as 30 to 20."""

WARY_EXPONENT = 0.25
"""After a revoke a quarter as much is shown."""

NUM_PROOFS = 4
"""So many drafts in a row have to agree, after a revoke, before as much is shown as before."""


class Stability:
    """The bars of one answer, and what moves them. ``min_stability`` from 0 (everything is shown) to 1 (what is certain)."""

    def __init__(self, min_stability: float) -> None:
        self._min_stability = min_stability
        self._num_proofs_owed = 0

    @property
    def is_wary(self) -> bool:
        """Whether something shown was wrong, and too little has proved right since."""
        return self._num_proofs_owed > 0

    @property
    def show_bar(self) -> float:
        """The least stability of a draft that may be shown now."""
        return float(self._min_stability ** (WARY_EXPONENT if self.is_wary else 1.0))

    @property
    def hide_bar(self) -> float:
        """The least stability of a draft that may stay shown; never over ``show_bar``."""
        return float(self._min_stability**HIDE_EXPONENT)

    def reach(self, confidences: Sequence[float], num_shown: int) -> int:
        """How many of the drafts are to be shown, of which the first ``num_shown`` are shown already."""
        for index, stability in enumerate(running(confidences)):
            if stability < (self.hide_bar if index < num_shown else self.show_bar):
                return index
        return len(confidences)

    def compared(self, num_agreed: int, is_contradicted: bool, num_revoked: int) -> None:
        """Drafts stood where tokens became final: so many agreed, then perhaps one did not, and ``num_revoked`` shown ones
        went with it.
        """
        self._num_proofs_owed = max(0, self._num_proofs_owed - num_agreed)
        if is_contradicted and (num_revoked or self.is_wary):
            self._num_proofs_owed = NUM_PROOFS


def running(confidences: Sequence[float]) -> Iterator[float]:
    """The stability of each draft."""
    return accumulate(confidences, mul)
